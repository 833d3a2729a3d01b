//! Whose socket is at the other end of a flow over the loopback interface.
//!
//! Many endpoints share the addresses of their node, and there only the socket tells them apart. The
//! kernel finds it by addresses and ports, as it does for a packet that arrives.

use core::ptr;

use agent_common::{
    flow::{Flow, FlowKey, Side},
    process::Process,
    protocol::{TCP, UDP},
    rtt::RoundTrip,
    socket_flow::SocketFlow,
    table::{Direction, NO_SOCKET},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_sk_ancestor_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_tcp_sock,
    },
};

use crate::{datapath::FamilyMaps, maps::CGROUPS, processes, rejection::is_marked, socket_flows};

pub(crate) trait Sockets {
    /// Whether packets in pieces come here. In a cgroup they are whole: cut up after it, put together
    /// before. What a raw socket cuts up by itself is dropped there.
    const PIECES: bool;

    /// Whether a verdict follows from a flow alone, and so may be remembered for it.
    const REFUSALS: bool;

    /// See [`agent_common::judge::Datapath`].
    const MAY_BE_PROMPTED: bool = false;

    /// Whether packets carry the endpoint's own socket.
    const OWN: bool = false;

    /// The number of the endpoint at the remote end, asked in the direction of the flow's initiator;
    /// [`NO_SOCKET`] if that can not be told.
    #[inline(always)]
    fn of_peer<A: FamilyMaps>(&self, _: &FlowKey<A>, _: Direction) -> u32 {
        NO_SOCKET
    }

    /// Whether the packet is an answer of our own to a denied one. These leave and arrive at interfaces alone.
    #[inline(always)]
    fn is_rejection(&self) -> bool {
        false
    }

    /// What the packet's socket knows of its flow.
    #[inline(always)]
    fn noted<A: FamilyMaps>(&self) -> Option<&SocketFlow<A>> {
        None
    }

    /// Has it know that.
    #[inline(always)]
    fn note<A: FamilyMaps>(&self, _: &FlowKey<A>, _: &Flow) {}

    /// Whose the endpoint's own socket is, or null.
    #[inline(always)]
    fn process(&self) -> *const Process {
        ptr::null()
    }

    /// See [`agent_common::judge::Datapath`].
    #[inline(always)]
    fn is_to_measure(&self, _: &Flow, _: Side, _jiffies: u64) -> bool {
        false
    }

    /// See [`agent_common::judge::Datapath`].
    #[inline(always)]
    fn round_trip(&self) -> RoundTrip {
        RoundTrip::default()
    }
}

/// At an interface: addresses say who it is. What the endpoint is sent carries no socket, or that of the
/// sender.
pub(crate) struct Untold<const SENT: bool>(pub(crate) *mut __sk_buff);

/// Where there is no packet, or none that could be an answer of ours or of a process that is noted.
pub(crate) struct Nowhere;

/// In a cgroup, from the packet.
pub(crate) struct Told(pub(crate) *mut __sk_buff);

/// Every network namespace has its loopback at index 1.
pub(crate) const LOOPBACK: u32 = 1;

/// How deep a socket's cgroup may lie below the root of the hierarchy, to be told by one above it.
pub(crate) const DEPTH: i32 = 8;

/// `TCP_LISTEN`.
const LISTENING: u32 = 10;

impl<const SENT: bool> Sockets for Untold<SENT> {
    const MAY_BE_PROMPTED: bool = !SENT;
    const PIECES: bool = true;
    const REFUSALS: bool = true;
    const OWN: bool = SENT;

    #[inline(always)]
    fn is_rejection(&self) -> bool {
        let Self(context) = self;
        is_marked(*context)
    }

    #[inline(always)]
    fn process(&self) -> *const Process {
        let Self(context) = self;
        if SENT {
            processes::of_packet(*context)
        } else {
            ptr::null()
        }
    }

    #[inline(always)]
    fn is_to_measure(&self, flow: &Flow, side: Side, _: u64) -> bool {
        flow.is_measured_with(side)
    }

    #[inline(always)]
    fn round_trip(&self) -> RoundTrip {
        round_trip_of(self.0)
    }
}

impl Sockets for Nowhere {
    const PIECES: bool = true;
    const REFUSALS: bool = true;
}

impl Sockets for Told {
    const PIECES: bool = false;
    const REFUSALS: bool = false;
    const OWN: bool = true;

    #[inline(always)]
    fn of_peer<A: FamilyMaps>(&self, key: &FlowKey<A>, direction: Direction) -> u32 {
        let Self(context) = self;
        // SAFETY: the kernel passes a valid context to the program.
        if unsafe { (**context).ifindex } != LOOPBACK {
            return NO_SOCKET;
        }
        find(*context, key, direction)
    }

    #[inline(always)]
    fn noted<A: FamilyMaps>(&self) -> Option<&SocketFlow<A>> {
        let Self(context) = self;
        socket_flows::of_packet(*context)
    }

    #[inline(always)]
    fn note<A: FamilyMaps>(&self, key: &FlowKey<A>, flow: &Flow) {
        let Self(context) = self;
        socket_flows::note(*context, key, flow);
    }

    #[inline(always)]
    fn process(&self) -> *const Process {
        processes::of_packet(self.0)
    }

    #[inline(always)]
    fn is_to_measure(&self, flow: &Flow, _: Side, jiffies: u64) -> bool {
        flow.is_measured_at(jiffies)
    }

    #[inline(always)]
    fn round_trip(&self) -> RoundTrip {
        round_trip_of(self.0)
    }
}

#[inline(always)]
fn round_trip_of(context: *mut __sk_buff) -> RoundTrip {
    let [low, high, ..] = round_trip(context).to_le_bytes();
    RoundTrip(u16::from_le_bytes([low, high]))
}

/// What the packet's socket has measured, as a [`RoundTrip`]; 0 if it is none of TCP, or not whole yet. Linux verifies
/// a function that others can see by itself, and once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn round_trip(context: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel passes a valid context to the program, and this is its own socket, which lives while the
    // program runs.
    unsafe {
        let socket = (*context).__bindgen_anon_2.sk;
        if socket.is_null() {
            return 0;
        }
        let connection = bpf_tcp_sock(socket);
        if connection.is_null() {
            return 0;
        }
        // The kernel keeps eighths.
        u32::from(RoundTrip::of_micros((*connection).srtt_us >> 3).0)
    }
}

#[inline(never)]
fn find<A: FamilyMaps>(context: *mut __sk_buff, key: &FlowKey<A>, direction: Direction) -> u32 {
    // As in a packet that the remote end receives.
    let mut tuple = A::tuple(key);
    let (context, tuple) = (context.cast(), (&raw mut tuple).cast::<bpf_sock_tuple>());
    let netns = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
    // SAFETY: a valid context, and as many bytes of the tuple as the family has. Called by their names:
    // a call by pointer is no instruction of BPF.
    let socket = unsafe {
        match key.protocol {
            TCP => bpf_sk_lookup_tcp(context, tuple, A::TUPLE_BYTES, netns, 0),
            UDP => bpf_sk_lookup_udp(context, tuple, A::TUPLE_BYTES, netns, 0),
            _ => return NO_SOCKET,
        }
    };
    if socket.is_null() {
        return NO_SOCKET;
    }
    let endpoint = owner(socket, key.protocol, direction);
    // SAFETY: the reference that the look-up gave, once.
    unsafe { bpf_sk_release(socket.cast()) };
    endpoint
}

/// The endpoint whose cgroup is the socket's, or the nearest above it.
#[inline(always)]
fn owner(socket: *mut bpf_sock, protocol: u8, direction: Direction) -> u32 {
    // Who begins to speak does not listen there: such a packet is forged in the listener's name.
    // SAFETY: the caller holds the socket.
    let listens = protocol == TCP && unsafe { (*socket).state } == LISTENING;
    if listens && matches!(direction, Direction::Ingress) {
        return NO_SOCKET;
    }
    let mut found = NO_SOCKET;
    for level in 1..=DEPTH {
        // SAFETY: as above.
        let cgroup = unsafe { bpf_sk_ancestor_cgroup_id(socket.cast(), level) };
        if cgroup == 0 {
            break;
        }
        // SAFETY: as for `INTERFACES`.
        if let Some(endpoint) = unsafe { CGROUPS.get(cgroup) } {
            found = u32::from(endpoint.id);
        }
    }
    found
}
