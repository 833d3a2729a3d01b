//! Answers to denied packets, which take their place and go back where they came from.
//!
//! An answer leaves by the interface that its packet was seen at, the other way: to the endpoint for what
//! the endpoint sent, and into this node's stack, as if the endpoint had sent it, for what was sent to it.
//! So it meets the endpoint's other hook, which has to let it pass, and nothing else that looks like it: a
//! reset that claims to come from an open port would be taken for a connection of its own, and make room
//! for the packets of one that was just denied. It is known there by its mark.
//!
//! The mark can not be forged by whom it would help. A packet loses its mark when it leaves its network
//! namespace, and one from a tap device or a wire has none: so no endpoint can send one. Within this
//! node's namespace a mark can be set, with `CAP_NET_ADMIN` or `CAP_NET_RAW`, and so by a pod on the host's network:
//! therefore it is a number of 32 bits that each agent draws anew and tells nobody, that is on a packet only
//! between two hooks of one interface, and by which resets, ICMP errors and bare acknowledgements pass, nothing
//! else: none of them begins a connection. Who may read it there could also take our programs off.

use crate::{
    datapath::{indistinct, opaque, owns},
    maps::REJECTIONS,
    packet::fill,
};
use agent_common::{
    parse::{Header, Network, Packet, network},
    rejection::{
        Checksum, Form, Frame, Invoking, Rejectable, Rejections, Toward, form, reset, slot_of,
        unreachable,
    },
    table::{Direction, Endpoint},
};
use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
        TC_ACT_UNSPEC,
    },
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail},
    },
    programs::sk_buff::SkBuff,
};

/// What answers are marked with, set by the agent when it loads the programs; 0 is none.
#[unsafe(no_mangle)]
static MARK: u32 = 0;

/// `BPF_ADJ_ROOM_MAC`: between the Ethernet header and the network header.
const BEFORE_NETWORK: u32 = 1;

/// A packet that is read and written by copies alone, as what it is read from is about to change.
struct Turned(*mut __sk_buff);

impl Packet for Turned {
    #[inline(always)]
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        SkBuff::new(self.0).load(offset).ok()
    }

    #[inline(always)]
    fn fill<T: Header>(&self, offset: usize, place: &mut T) -> bool {
        fill(self.0, offset, place)
    }
}

impl Frame for Turned {
    /// It is in one piece then, nobody else's, and no longer to be cut up (GSO).
    #[inline(always)]
    fn shorten(&self, length: u16) -> bool {
        // SAFETY: the kernel passes a valid context to the program.
        unsafe { bpf_skb_change_tail(self.0, u32::from(length), 0) == 0 }
    }

    #[inline(always)]
    fn make_room(&self, bytes: u16) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, i32::from(bytes), BEFORE_NETWORK, 0) == 0 }
    }

    #[inline(always)]
    fn store<T: Header>(&self, offset: usize, value: &T) -> bool {
        const FLAGS: u64 = (BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH) as u64;
        SkBuff::new(self.0).store(offset, value, FLAGS).is_ok()
    }

    /// No field of the context says it.
    ///
    /// A helper that follows a change through a checksum knows that one which is left to the device does
    /// not depend on what the packet carries, and leaves it alone: so it is given some bytes, and a change of
    /// which there is none. What it does to them does not matter, as they are about to be written.
    #[inline(always)]
    fn checksum(&self) -> Checksum {
        const TWO_BYTES: u64 = 2;
        let before = self.load::<[u8; 2]>(0);
        // SAFETY: the kernel passes a valid context to the program.
        unsafe { bpf_l4_csum_replace(self.0, 0, 0, 1, TWO_BYTES) };
        if self.load::<[u8; 2]>(0) == before {
            Checksum::Left
        } else {
            Checksum::Complete
        }
    }
}

/// Whether a packet has the mark of an answer, which it loses here.
#[inline(always)]
pub(crate) fn is_marked(context: *mut __sk_buff) -> bool {
    let mark = mark();
    // SAFETY: the kernel passes a valid context to the program.
    unsafe {
        if mark == 0 || (*context).mark != mark {
            return false;
        }
        (*context).mark = 0;
    }
    true
}

#[inline(always)]
pub(crate) fn mark() -> u32 {
    // SAFETY: a static of our own; volatile, because the agent changes it before the load.
    unsafe { (&raw const MARK).read_volatile() }
}

/// A packet that was denied, and where.
#[derive(Clone, Copy)]
struct Denied {
    endpoint: u16,
    direction: Direction,
    toward: Toward,
}

/// Tells of a packet that was denied; what the hook is to answer.
#[inline(always)]
pub(crate) fn tell(
    context: *mut __sk_buff,
    endpoint: Endpoint,
    direction: Direction,
    toward: Toward,
) -> i32 {
    tell_of_denied(
        context,
        u32::from(endpoint.id),
        direction as u32,
        toward as u32,
    )
}

/// A function that others can see, and so one that the verifier walks through by itself, once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_of_denied(
    context: *mut __sk_buff,
    endpoint: u32,
    direction: u32,
    toward: u32,
) -> i32 {
    let [low, high, ..] = endpoint.to_le_bytes();
    let denied = Denied {
        endpoint: u16::from_le_bytes([low, high]),
        direction: if direction == Direction::Ingress as u32 {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        toward: if toward == Toward::Receiver as u32 {
            Toward::Receiver
        } else {
            Toward::Sender
        },
    };
    match network(&Turned(context)) {
        Network::V4 => tell_family::<[u8; 4]>(context, denied),
        Network::V6 => tell_family::<[u8; 16]>(context, denied),
        Network::Arp | Network::Other | Network::Short => TC_ACT_SHOT,
    }
}

/// A function of its own, so that each family has room on the stack for itself.
#[inline(never)]
fn tell_family<A: Rejectable>(context: *mut __sk_buff, denied: Denied) -> i32 {
    let Denied {
        endpoint,
        direction,
        toward,
    } = denied;
    let mut invoking = Invoking::<A>::EMPTY;
    let form = form(&Turned(context), &mut invoking, toward);
    // All ways through the parser come together here, and one goes on.
    let is_reset = indistinct(matches!(form, Form::Reset));
    let is_silent = indistinct(matches!(form, Form::Silence));
    let [protocol, ..] = opaque(u64::from(invoking.headers.protocol)).to_le_bytes();
    invoking.headers.protocol = protocol;
    if is_silent {
        return TC_ACT_SHOT;
    }
    // What was sent to an address that is not the endpoint's came here by chance: a bridge may have sent
    // it to everybody.
    let is_sent = matches!(direction, Direction::Egress);
    if !is_sent && !owns(endpoint, &invoking.headers.destination) {
        return TC_ACT_SHOT;
    }
    if !is_due(denied) {
        return TC_ACT_SHOT;
    }
    let is_written = if is_reset {
        write_reset(context, &invoking, toward)
    } else {
        write_unreachable(context, &invoking)
    };
    if !is_written {
        return TC_ACT_SHOT;
    }
    match toward {
        Toward::Receiver => TC_ACT_UNSPEC,
        Toward::Sender => turn(context, direction),
    }
}

/// Sends it back.
#[inline(always)]
fn turn(context: *mut __sk_buff, direction: Direction) -> i32 {
    let into = match direction {
        Direction::Egress => 0,
        Direction::Ingress => u64::from(BPF_F_INGRESS),
    };
    // SAFETY: the kernel passes a valid context to the program.
    let action = unsafe {
        (*context).mark = mark();
        bpf_redirect((*context).ifindex, into)
    };
    #[expect(clippy::cast_possible_truncation, reason = "an action of TC")]
    let action = action as i32;
    action
}

/// Whether there is room for one more answer; counts it.
#[inline(never)]
fn is_due(denied: Denied) -> bool {
    let Denied {
        endpoint,
        direction,
        toward,
    } = denied;
    let Some(counts) = REJECTIONS.get(slot_of(endpoint, direction)) else {
        return false;
    };
    // SAFETY: the same bytes, as the contract asserts; others change them at any time.
    let rejections = unsafe { &*(&raw const *counts).cast::<Rejections>() };
    match toward {
        // In the place of a packet, and once for each connection.
        Toward::Receiver => {
            rejections.sent.add(1);
            true
        }
        // SAFETY: a helper without arguments.
        Toward::Sender => rejections.may_send(unsafe { bpf_ktime_get_boot_ns() }),
    }
}

#[inline(never)]
fn write_reset<A: Rejectable>(
    context: *mut __sk_buff,
    invoking: &Invoking<A>,
    toward: Toward,
) -> bool {
    reset(&Turned(context), invoking, toward)
}

#[inline(never)]
fn write_unreachable<A: Rejectable>(context: *mut __sk_buff, invoking: &Invoking<A>) -> bool {
    unreachable(&Turned(context), invoking)
}
