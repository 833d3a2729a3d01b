//! What an endpoint says about who is where on its link: ARP, and the neighbour messages of IPv6.
//!
//! Whoever believes it sends what is for one address to another machine. So an endpoint whose source is
//! checked speaks for its own addresses alone, and for the link address that its frame comes from. What
//! comes *to* an endpoint passes: those that are confined are stopped where they send. A service of the
//! node's says nothing of its kind: its node does.

use core::mem::offset_of;

use network_types::{eth::EthHdr, ip::Ipv6Hdr};

use crate::{
    flow::FlowKey,
    judge::{Datapath, Facts, Sight, is_own, pass, refuse, unreadable},
    parse::{Family, Packet},
    protocol::Address,
    table::{Direction, Endpoint},
    verdict::{Reason, Verdict},
};

/// Of frames whose source is checked; those that have no link are not.
const NETWORK: usize = EthHdr::LEN;

/// Bytes of a message before its options: a router solicitation (RFC 4861, 4.1), and those that have a
/// target (4.3, 4.4).
const SOLICITATION: usize = 8;
const TARGET: usize = 8;
const TARGETED: usize = 24;

/// Options that are walked: as many as a message has room for that is short enough to pass unasked.
const MAX_OPTIONS: usize = 14;

/// Any of these: what an endpoint says is looked at.
const CHECKED: u16 = Endpoint::CHECK_SOURCE | Endpoint::NO_LINK;

type LinkAddress = [u8; 6];

/// A message of RFC 826, of IPv4 over Ethernet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Arp {
    /// Hardware, protocol, and the lengths of their addresses.
    form: [u8; 6],
    operation: [u8; 2],
    sender_link: LinkAddress,
    sender: [u8; 4],
    target_link: LinkAddress,
    target: [u8; 4],
}

impl Arp {
    /// Ethernet, IPv4.
    const FORM: [u8; 6] = [0, 1, 8, 0, 6, 4];
    const REQUEST: [u8; 2] = [0, 1];
    const REPLY: [u8; 2] = [0, 2];
}

/// Judges a frame of ARP.
#[inline(never)]
pub fn arp<D: Datapath<[u8; 4]>>(datapath: &D, packet: &impl Packet, sight: &Sight) -> Verdict {
    let sends = matches!(sight.direction, Direction::Egress);
    if !sends || !sight.endpoint.has(CHECKED) || is_own_arp(datapath, packet, sight) {
        return pass(datapath, sight, Reason::Arp);
    }
    let Some(sender) = packet.load::<[u8; 4]>(NETWORK + offset_of!(Arp, sender)) else {
        return unreadable(datapath, sight, Reason::Malformed);
    };
    let Some(target) = packet.load::<[u8; 4]>(NETWORK + offset_of!(Arp, target)) else {
        return unreadable(datapath, sight, Reason::Malformed);
    };
    let key = FlowKey {
        endpoint: sight.endpoint.id,
        protocol: 0,
        zero: 0,
        local_port: 0,
        remote_port: 0,
        local: sender,
        remote: target,
    };
    let verdict = Verdict::because(Reason::SpoofedNeighbour);
    refuse(datapath, &key, sight, Facts::NONE, verdict)
}

/// Whether it is a request or a reply whose sender is the endpoint.
///
/// A probe has no sender yet and asks for an address of its own (RFC 5227, 2.1.1): one for another's
/// would keep that one from using it. A function of its own, to spare the stack of the other.
#[inline(never)]
fn is_own_arp<D: Datapath<[u8; 4]>>(datapath: &D, packet: &impl Packet, sight: &Sight) -> bool {
    let is_own =
        !sight.endpoint.has(Endpoint::NO_LINK) && speaks_for_itself(datapath, packet, sight);
    datapath.opaque(u64::from(is_own)) != 0
}

#[inline(always)]
fn speaks_for_itself<D: Datapath<[u8; 4]>>(
    datapath: &D,
    packet: &impl Packet,
    sight: &Sight,
) -> bool {
    let Some(link) = link_of(packet) else {
        return false;
    };
    let Some(message) = packet.load::<Arp>(NETWORK) else {
        return false;
    };
    let asks = message.operation == Arp::REQUEST;
    let is_known = message.form == Arp::FORM && (asks || message.operation == Arp::REPLY);
    let claimed = if asks && message.sender == <[u8; 4]>::UNSPECIFIED {
        message.target
    } else {
        message.sender
    };
    is_known
        && message.sender_link == link
        && claimed != <[u8; 4]>::UNSPECIFIED
        && is_own(datapath, sight, &claimed)
}

/// What a neighbour message claims, as a number that the verifier does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim(u64);

impl Claim {
    /// Nothing but what is the sender's own.
    pub(crate) const OWN: Self = Self(0);
    /// To be from an address that is not.
    const SOURCE: Self = Self(1);

    /// Of one that is not [`Self::OWN`].
    #[inline(always)]
    pub(crate) fn verdict(self) -> Verdict {
        Verdict::because(if self == Self::SOURCE {
            Reason::SpoofedSource
        } else {
            Reason::SpoofedNeighbour
        })
    }
}

/// What a neighbour message claims that begins at `at`; what comes to an endpoint claims nothing. A function
/// of its own, to spare the stack of the hooks.
#[inline(never)]
pub(crate) fn claim<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    at: u16,
    key: &FlowKey<A>,
    sight: &Sight,
) -> Claim {
    const FORGED: u64 = 2;
    let sends = matches!(sight.direction, Direction::Egress);
    let Claim(claim) = if !sends || !sight.endpoint.has(CHECKED) {
        Claim::OWN
    } else if sight.endpoint.has(Endpoint::NO_LINK) {
        Claim(FORGED)
    } else if !is_own(datapath, sight, &key.local) {
        Claim::SOURCE
    } else if claims_another(datapath, packet, usize::from(at), key, sight) {
        Claim(FORGED)
    } else {
        Claim::OWN
    };
    Claim(datapath.opaque(claim))
}

#[inline(always)]
fn claims_another<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    at: usize,
    key: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    const ROUTER_SOLICITATION: u8 = 133;
    const SOLICITATION_OF: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    let [kind, _] = key.remote_port.to_be_bytes();
    let options = match kind {
        ROUTER_SOLICITATION => at + SOLICITATION,
        SOLICITATION_OF | ADVERTISEMENT => {
            // Without a source, somebody asks whether the address is free to be its own.
            let claims = kind == ADVERTISEMENT || key.local == A::UNSPECIFIED;
            if claims {
                let Some(target) = packet.load::<A>(at + TARGET) else {
                    return true;
                };
                if !is_own(datapath, sight, &target) {
                    return true;
                }
            }
            at + TARGETED
        }
        // Of groups, which claim nothing.
        _ => return false,
    };
    names_another(packet, options)
}

/// Whether the options that begin at `at` have a link address that is not the frame's; or cannot be read
/// to their end, which no receiver takes (RFC 4861, 6.1 and 7.1).
#[inline(always)]
fn names_another(packet: &impl Packet, at: usize) -> bool {
    const SOURCE: u8 = 1;
    const TARGET: u8 = 2;
    let Some(length) = packet.load::<[u8; 2]>(NETWORK + offset_of!(Ipv6Hdr, payload_len)) else {
        return true;
    };
    let Some(link) = link_of(packet) else {
        return true;
    };
    let end = NETWORK + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(length));
    let mut at = at;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            break;
        }
        let Some([kind, units]) = packet.load::<[u8; 2]>(at) else {
            return true;
        };
        if units == 0 {
            return true;
        }
        if matches!(kind, SOURCE | TARGET) {
            let Some(named) = packet.load::<LinkAddress>(at + 2) else {
                return true;
            };
            if named != link || units != 1 {
                return true;
            }
        }
        at += usize::from(units) * 8;
    }
    at != end
}

/// Where a frame says that it comes from.
#[inline(always)]
fn link_of(packet: &impl Packet) -> Option<LinkAddress> {
    packet.load(offset_of!(EthHdr, src_addr))
}
