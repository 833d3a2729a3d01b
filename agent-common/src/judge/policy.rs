//! What policy says of a flow, and whose an address is.

use super::{Datapath, Sight};
use crate::{
    decide::{Question, decide},
    flow::{Flow, FlowKey, direction_of},
    parse::Family,
    protocol::Address,
    table::Endpoint,
    verdict::{Reason, Verdict},
};

/// Whether a flow would be permitted now. A function of its own, to spare the stack of one that parses.
#[inline(never)]
pub(crate) fn is_permitted<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    origin: u8,
) -> bool {
    answer(datapath, key, sight, origin | LIVE).allows()
}

/// Whether a packet is none of the endpoint's, though its hook sees it.
#[inline(always)]
pub(super) fn is_beside<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    sight.endpoint.has(Endpoint::ONLY_OWN)
        && (sight.made_here || !datapath.owns(sight.endpoint, &key.local))
}

/// Whether the endpoint's side of the key is an address that it may not send from. One of the link, which may be its
/// router's, is not its own because both ends have it.
#[inline(always)]
pub(super) fn is_foreign<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    let is_of_its_link = key.local.is_local_scope() && key.local != key.remote;
    sight.endpoint.has(Endpoint::CHECK_SOURCE)
        && !is_of_its_link
        && !datapath.owns(sight.endpoint, &key.local)
}

/// Whether an address is the endpoint's, or one that any may have on its link.
#[inline(always)]
pub(crate) fn is_own<A: Address, D: Datapath<A>>(datapath: &D, sight: &Sight, address: &A) -> bool {
    address.is_local_scope() || datapath.owns(sight.endpoint, address)
}

/// Beside a flow's origin: it has begun, with an address that may have been taken away since, and be another's.
pub(super) const LIVE: u8 = 1 << 7;

/// What policy says of a flow with this origin.
#[inline(always)]
pub(super) fn answer<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    origin: u8,
) -> Verdict {
    // Before the rest and not within it: the kernel's stack has no room for both.
    let socket = datapath.socket_of_peer(key, direction_of(origin));
    answer_to(datapath, key, sight, origin, socket)
}

#[inline(never)]
pub(crate) fn answer_to<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    origin: u8,
    socket: u32,
) -> Verdict {
    if origin & LIVE != 0 && is_foreign(datapath, key, sight) {
        return Verdict::because(Reason::SpoofedSource);
    }
    let direction = direction_of(origin);
    let question = Question {
        endpoint: sight.endpoint,
        word: sight.word,
        direction,
        local: key.local,
        peer: key.remote,
        socket,
        protocol: key.protocol,
        port: key.responder_port(direction),
        made_here: origin & Flow::MADE_HERE != 0,
    };
    unknown(datapath, decide(datapath, &question))
}

/// The same verdict. A policy has a dozen ways to come to one, and a verifier that remembers which way
/// it took walks through all that follows as often.
#[inline(always)]
pub(super) fn unknown<A, D: Datapath<A>>(datapath: &D, verdict: Verdict) -> Verdict {
    Verdict::from_bits(datapath.opaque(verdict.to_bits()))
}

/// Until when a verdict may be taken from the flow: never, where time alone may change it.
#[inline(always)]
pub(super) fn generation(sight: &Sight, verdict: Verdict) -> u32 {
    if verdict.is_timed() {
        Flow::NEVER
    } else {
        sight.word.generation()
    }
}
