//! Frames that processes of the node make themselves, past every protocol of the kernel's and so past the
//! hooks of their cgroup: caught where they leave, at the node's interfaces.
//!
//! All else that leaves there costs a look at whose it is.

use agent_common::{
    neighbour,
    parse::{Network, network},
    table::{Direction, Endpoint, Word},
    verdict::Reason,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_skb_ancestor_cgroup_id,
    macros::classifier,
    programs::TcContext,
};
use network_types::eth::EthHdr;

use super::tc::{is_named, unjudged};
use crate::{
    datapath::{Maps, by_now, word},
    family::{Hook, Judges, Outcome, Seen, judges},
    maps::CGROUPS,
    packet::Buffer,
    sockets::{DEPTH, Nowhere},
};

/// `AF_PACKET`.
const PACKET: u32 = 17;

/// No endpoint has this number.
const NOBODY: u32 = 0;
/// Nor all flags. A hook would ask each of several; there is no room on the stack for more than one here.
const SEVERAL: u32 = u32::MAX;

/// Where frames begin with an Ethernet header.
#[classifier]
pub(crate) fn from_host(context: TcContext) -> i32 {
    act::<true>(context.skb.skb)
}

/// Where they do not: what such a frame is, nothing in it says for certain.
#[classifier]
pub(crate) fn from_host_bare(context: TcContext) -> i32 {
    act::<false>(context.skb.skb)
}

/// Of such frames.
struct Made;

impl Hook for Made {
    type Sockets = Nowhere;
    const DIRECTION: Direction = Direction::Egress;
    const OFFSET: usize = EthHdr::LEN;

    #[inline(always)]
    fn sockets(_: *mut __sk_buff) -> Self::Sockets {
        Nowhere
    }
}

judges! {
    Made: [made_v4 = whole], [made_v6 = whole];
}

#[inline(always)]
fn act<const HAS_LINK: bool>(context: *mut __sk_buff) -> i32 {
    if !is_of_packet_socket(context) {
        return TC_ACT_UNSPEC;
    }
    let around = around(context);
    let outcome = if around == NOBODY {
        return TC_ACT_UNSPEC;
    } else if around == SEVERAL {
        beside(context, seen(Endpoint::NOBODY), Reason::NotProgrammed)
    } else {
        let endpoint = Endpoint {
            id: half(around),
            flags: half(around >> 16),
        };
        judge::<HAS_LINK>(context, seen(by_now(endpoint)))
    };
    // Unspecified: programs behind this one still run.
    if outcome.allows() {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}

#[inline(always)]
fn half(word: u32) -> u16 {
    let [low, high, ..] = word.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[inline(always)]
fn is_of_packet_socket(context: *mut __sk_buff) -> bool {
    // SAFETY: the kernel passes a valid context to the program, and its socket or none.
    unsafe {
        let socket = (*context).__bindgen_anon_2.sk;
        !socket.is_null() && (*socket).family == PACKET
    }
}

/// The endpoint whose cgroup is the sender's or above it, as its number and flags; [`NOBODY`] or [`SEVERAL`].
/// A function of its own, so that the verifier walks through it once.
#[inline(never)]
fn around(context: *mut __sk_buff) -> u32 {
    let mut around = NOBODY;
    for level in 1..=DEPTH {
        // SAFETY: a valid context.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(context, level) };
        if cgroup == 0 {
            break;
        }
        // SAFETY: as for `INTERFACES`.
        let Some(endpoint) = (unsafe { CGROUPS.get(cgroup) }) else {
            continue;
        };
        // The node as a whole is judged where its sockets are.
        if endpoint.has(Endpoint::ONLY_OWN) {
            continue;
        }
        if around != NOBODY {
            return SEVERAL;
        }
        around = u32::from(endpoint.id) | u32::from(endpoint.flags) << 16;
    }
    around
}

#[inline(always)]
fn judge<const HAS_LINK: bool>(context: *mut __sk_buff, seen: Seen) -> Outcome {
    if !HAS_LINK {
        return beside(context, seen, Reason::NotIp);
    }
    let packet = Buffer::new(context);
    match network(&packet) {
        Network::V4 => Made::v4(context, seen),
        Network::V6 => Made::v6(context, seen),
        Network::Arp => {
            let sight = seen.sight::<Made>(context);
            Outcome::of(neighbour::arp(&Maps(Nowhere), &packet, &sight))
        }
        Network::Other if is_named(&packet) => beside(context, seen, Reason::AllowedFrame),
        Network::Other => beside(context, seen, Reason::NotIp),
        Network::Short => beside(context, seen, Reason::Malformed),
    }
}

#[inline(always)]
fn beside(context: *mut __sk_buff, seen: Seen, reason: Reason) -> Outcome {
    Outcome::of(unjudged(&seen.sight::<Made>(context), reason))
}

#[inline(always)]
fn seen(endpoint: Endpoint) -> Seen {
    Seen {
        endpoint: endpoint.with(Endpoint::NO_LINK),
        word: word(endpoint).unwrap_or(Word::UNSET),
        made_here: false,
    }
}
