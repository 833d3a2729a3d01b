//! Sockets of an endpoint's cgroup, both directions.

use agent_common::{
    judge::{Sight, unreadable},
    table::{Direction, Endpoint},
    verdict::Reason,
};
use aya_ebpf::{bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use network_types::eth::EtherType;

use crate::{
    datapath::{Maps, indistinct, word},
    family::judge_family,
    packet::Buffer,
    sockets::{LOOPBACK, Told},
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
    act(context.skb.skb, Direction::Ingress)
}

#[cgroup_skb]
pub(crate) fn cgroup_egress(context: SkBuffContext) -> i32 {
    act(context.skb.skb, Direction::Egress)
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
    Endpoint { id, flags }
}

#[inline(always)]
fn act(context: *mut __sk_buff, direction: Direction) -> i32 {
    // SAFETY: the kernel passes a valid context to the program.
    let (length, protocol) = unsafe { ((*context).len, (*context).protocol) };
    let endpoint = endpoint();
    // SAFETY: as above.
    let is_loopback = unsafe { (*context).ifindex } == LOOPBACK;
    let made_here = indistinct(endpoint.has(Endpoint::ONLY_OWN) && is_loopback);
    let Some(word) = word(endpoint) else {
        return DROP;
    };
    let sight = Sight {
        endpoint,
        word,
        direction,
        length,
        made_here,
        ifindex: 0,
    };
    let maps = Maps(Told(Buffer::new(context)));
    let Maps(Told(packet)) = &maps;
    let allows = match protocol {
        IPV4 => judge_family::<[u8; 4], _>(&maps, packet, 0, &sight).allows(),
        IPV6 => judge_family::<[u8; 16], _>(&maps, packet, 0, &sight).allows(),
        _ => unreadable::<[u8; 4], _>(&maps, &sight, Reason::NotIp).allows(),
    };
    if allows { PASS } else { DROP }
}
