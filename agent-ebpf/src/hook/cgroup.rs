//! Sockets of an endpoint's cgroup, both directions.

use agent_common::{
    judge::unreadable,
    parse::{Family, Headers},
    table::{Direction, Endpoint},
    verdict::Reason,
};
use aya_ebpf::{
    bindings::__sk_buff, helpers::bpf_jiffies64, macros::cgroup_skb, programs::SkBuffContext,
};
use network_types::eth::EtherType;

use crate::{
    datapath::{FamilyMaps, Maps, by_now, indistinct, word},
    family::{Hook, Judges, Outcome, Seen, judges},
    packet::Buffer,
    socket_flows,
    sockets::{LOOPBACK, Nowhere, Told},
};

/// The endpoint that this copy of the program stands for, set by the agent when it loads it.
///
/// A program runs for the cgroup that it is attached to and for all below; a constant says which
/// one that is at no cost, where a look-up by the socket's own cgroup would have to climb.
#[unsafe(no_mangle)]
static ENDPOINT: u16 = 0;

/// Its flags, set likewise.
#[unsafe(no_mangle)]
static FLAGS: u16 = 0;

const IPV4: u32 = EtherType::Ipv4 as u16 as u32;
const IPV6: u32 = EtherType::Ipv6 as u16 as u32;

const PASS: i32 = 1;
const DROP: i32 = 0;

#[cgroup_skb]
pub(crate) fn cgroup_ingress(context: SkBuffContext) -> i32 {
    act::<Arrives>(context.skb.skb)
}

#[cgroup_skb]
pub(crate) fn cgroup_egress(context: SkBuffContext) -> i32 {
    act::<Leaves>(context.skb.skb)
}

/// Costs what a hook costs at the least: the yardstick of the benchmark.
#[cgroup_skb]
pub(crate) fn cgroup_null(_: SkBuffContext) -> i32 {
    PASS
}

/// The endpoint of this copy.
#[inline(always)]
pub(super) fn endpoint() -> Endpoint {
    // SAFETY: a static of our own; volatile, because the agent changes it before the load.
    let (id, flags) = unsafe {
        (
            (&raw const ENDPOINT).read_volatile(),
            (&raw const FLAGS).read_volatile(),
        )
    };
    by_now(Endpoint { id, flags })
}

/// Of what arrives at the cgroup's sockets.
struct Arrives;

/// Of what leaves them.
struct Leaves;

impl Hook for Arrives {
    type Sockets = Told;
    const DIRECTION: Direction = Direction::Ingress;
    const OFFSET: usize = 0;

    #[inline(always)]
    fn sockets(context: *mut __sk_buff) -> Self::Sockets {
        Told(context)
    }
}

impl Hook for Leaves {
    type Sockets = Told;
    const DIRECTION: Direction = Direction::Egress;
    const OFFSET: usize = 0;

    #[inline(always)]
    fn sockets(context: *mut __sk_buff) -> Self::Sockets {
        Told(context)
    }
}

judges! {
    Arrives:
        [arrives_plain_v4 = plain, arrives_whole_v4 = whole],
        [arrives_plain_v6 = plain, arrives_whole_v6 = whole];
    Leaves:
        [leaves_plain_v4 = plain, leaves_whole_v4 = whole],
        [leaves_plain_v6 = plain, leaves_whole_v6 = whole];
}

#[inline(always)]
fn act<H: Judges>(context: *mut __sk_buff) -> i32 {
    let endpoint = endpoint();
    // SAFETY: the kernel passes a valid context to the program.
    let (protocol, ifindex) = unsafe { ((*context).protocol, (*context).ifindex) };
    let Some(word) = word(endpoint) else {
        return DROP;
    };
    let seen = Seen {
        endpoint,
        word,
        made_here: indistinct(endpoint.has(Endpoint::ONLY_OWN) && ifindex == LOOPBACK),
    };
    let is_known = match protocol {
        IPV4 => is_known::<[u8; 4], H>(context, seen),
        IPV6 => is_known_apart::<[u8; 16], H>(context, seen),
        _ => false,
    };
    if indistinct(is_known) {
        return PASS;
    }
    let outcome = match protocol {
        IPV4 => H::v4(context, seen),
        IPV6 => H::v6(context, seen),
        _ => Outcome::of(unreadable::<[u8; 4], _>(
            &Maps(Nowhere),
            &seen.sight::<H>(context),
            Reason::NotIp,
        )),
    };
    if outcome.allows() { PASS } else { DROP }
}

/// Whether the packet's socket knows its flow, and no more is to be done.
#[inline(always)]
fn is_known<A: FamilyMaps + Family, H: Hook>(context: *mut __sk_buff, seen: Seen) -> bool {
    let Some(noted) = socket_flows::of_packet::<A>(context) else {
        return false;
    };
    let mut headers = Headers::EMPTY;
    A::plain(&Buffer::new(context), H::OFFSET, &mut headers)
        // SAFETY: a helper without arguments.
        && noted.count(&headers, &seen.sight::<H>(context), || unsafe { bpf_jiffies64() })
}

/// The same, to spare the stack of those that judge.
#[inline(never)]
fn is_known_apart<A: FamilyMaps + Family, H: Hook>(context: *mut __sk_buff, seen: Seen) -> bool {
    is_known::<A, H>(context, seen)
}
