//! Frames that processes of the node make themselves, past every protocol of the kernel's and so past the
//! hooks of their cgroup: caught where they leave, at the node's interfaces.
//!
//! All else that leaves there costs a look at whose it is.

use agent_common::{
    judge::Sight,
    neighbour,
    parse::{Network, network},
    table::{Direction, Endpoint, Word},
    verdict::{Reason, Verdict},
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_skb_ancestor_cgroup_id,
    macros::classifier,
    programs::TcContext,
};
use network_types::eth::EthHdr;

use super::tc::{ETHERNET, is_named, unjudged};
use crate::{
    datapath::{Maps, word},
    family::judge_family,
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

#[inline(always)]
fn act<const HAS_LINK: bool>(context: *mut __sk_buff) -> i32 {
    if !is_of_packet_socket(context) {
        return TC_ACT_UNSPEC;
    }
    let around = around(context);
    let endpoint = Endpoint {
        id: half(around),
        flags: half(around >> 16),
    };
    let verdict = if around == NOBODY {
        return TC_ACT_UNSPEC;
    } else if around == SEVERAL {
        unjudged(&sight(context, Endpoint::NOBODY), Reason::NotProgrammed)
    } else {
        judge::<HAS_LINK>(context, endpoint)
    };
    // Unspecified: programs behind this one still run.
    if verdict.allows() {
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
fn judge<const HAS_LINK: bool>(context: *mut __sk_buff, endpoint: Endpoint) -> Verdict {
    let sight = sight(context, endpoint);
    if !HAS_LINK {
        return unjudged(&sight, Reason::NotIp);
    }
    let packet = Buffer::new(context);
    match network(&packet) {
        Network::V4 => judge_family::<[u8; 4], _>(&Maps(Nowhere), &packet, EthHdr::LEN, &sight),
        Network::V6 => judge_family::<[u8; 16], _>(&Maps(Nowhere), &packet, EthHdr::LEN, &sight),
        Network::Arp => neighbour::arp(&Maps(Nowhere), &packet, &sight),
        Network::Other if is_named(&packet) => unjudged(&sight, Reason::AllowedFrame),
        Network::Other => unjudged(&sight, Reason::NotIp),
        Network::Short => unjudged(&sight, Reason::Malformed),
    }
}

#[inline(always)]
fn sight(context: *mut __sk_buff, endpoint: Endpoint) -> Sight {
    // SAFETY: the kernel passes a valid context to the program.
    let (ifindex, length) = unsafe { ((*context).ifindex, (*context).len) };
    Sight {
        endpoint: endpoint.with(Endpoint::NO_LINK),
        word: word(endpoint).unwrap_or(Word::UNSET),
        direction: Direction::Egress,
        length: length.saturating_sub(ETHERNET),
        made_here: false,
        ifindex,
    }
}
