//! A packet that starts a flow, or would.

use super::{
    Datapath, Facts, Place, Sight, is_spared,
    live::is_answered_unseen,
    pass,
    policy::{answer, generation, is_beside, is_foreign},
    refuse, report,
};
use crate::{
    dhcp::{is_dhcp, may_be_dhcp},
    event::EventKind,
    flow::{Flow, FlowKey, FlowState, tcp},
    parse::Family,
    protocol, refusal,
    table::{Direction, Endpoint},
    verdict::{Reason, Verdict},
};

/// A packet that starts a flow, or would; in place of `old`, if that had the same ends.
#[inline(always)]
pub(super) fn opened<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
    old: Option<&Flow>,
) -> Verdict {
    let endpoint = sight.endpoint;
    if is_beside(datapath, key, sight) {
        return pass(datapath, sight, Reason::NotSubject);
    }
    // What an endpoint sends comes from its own side of the key. What it sends to itself stays inside
    // and never gets here: from outside, its own address is forged.
    let is_foreign = is_foreign(datapath, key, sight);
    let is_forged = match sight.direction {
        Direction::Egress => is_foreign,
        Direction::Ingress => {
            endpoint.has(Endpoint::OWNS_ADDRESSES) && key.local == key.remote && !sight.made_here
        }
    };
    if is_forged {
        let verdict = Verdict::because(Reason::SpoofedSource);
        return refuse(datapath, key, sight, facts, verdict);
    }
    if may_be_dhcp(key, endpoint) && is_dhcp(datapath, key, sight) {
        return pass(datapath, sight, Reason::Dhcp);
    }
    if facts.is_reply() {
        // A kernel answers for its node without a socket, at whose hook the question would have
        // been seen: it is judged now.
        let sends = matches!(sight.direction, Direction::Egress);
        if endpoint.has(Endpoint::ONLY_OWN) && sends {
            let asked = answer(datapath, key, sight, Flow::INITIATED_BY_PEER);
            if asked.allows() {
                datapath.count(endpoint, asked.reason(), sight.length);
                return asked;
            }
        }
        return refuse(
            datapath,
            key,
            sight,
            facts,
            Verdict::because(Reason::NoState),
        );
    }
    let origin = origin(key, sight, facts);
    let verdict = answer(datapath, key, sight, origin);
    if !verdict.allows() {
        // What is DHCP depends on the endpoint's addresses too.
        if !verdict.is_timed() && !may_be_dhcp(key, endpoint) {
            datapath.keep_refused(key, refusal::seen(sight, A::FAMILY), verdict);
        }
        return refuse(datapath, key, sight, facts, verdict);
    }
    if let Some(old) = old
        && old.closed.get() == 0
    {
        report(datapath, EventKind::Close, key, sight, old);
    }
    if is_foreign || (is_spared(sight) && origin & Flow::ADOPTED != 0) {
        // Flooded or lured here, or to a group: an entry would let the endpoint answer in that name.
        // Or a flow of before, of which the agent is about to find out who began it.
        datapath.count(endpoint, verdict.reason(), sight.length);
        return verdict;
    }
    let place = if old.is_some() {
        Place::Held
    } else {
        Place::New
    };
    let start = Start {
        origin,
        place,
        facts,
    };
    begin(datapath, key, sight, start, verdict);
    verdict
}

/// How a flow starts.
#[derive(Clone, Copy)]
struct Start {
    origin: u8,
    place: Place,
    facts: Facts,
}

/// Remembers a flow. A function of its own, to spare the stack of those that judge.
#[inline(never)]
fn begin<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    start: Start,
    verdict: Verdict,
) {
    let Start {
        origin,
        place,
        facts,
    } = start;
    let mut flow = first_state(datapath, sight, facts, verdict, origin);
    let generation = flow.generation;
    if is_answered_unseen(key, sight, origin) {
        flow.generation = Flow::NEVER;
    }
    // No event: it would be one for each packet, and nobody else's would find room.
    if !datapath.remember(key, &flow, place) {
        datapath.count(sight.endpoint, Reason::FlowTableFull, sight.length);
        return;
    }
    // What it was judged by, whenever it is judged again.
    flow.generation = generation;
    datapath.report(|event| event.fill(EventKind::Open, key, &flow, sight.ifindex, flow.opened));
    datapath.count(sight.endpoint, verdict.reason(), sight.length);
}

/// How a flow starts whose first packet this is.
#[inline(always)]
pub(super) fn origin<A>(key: &FlowKey<A>, sight: &Sight, facts: Facts) -> u8 {
    let mut origin = 0;
    if matches!(sight.direction, Direction::Ingress) {
        origin |= Flow::INITIATED_BY_PEER;
    }
    if sight.made_here {
        origin |= Flow::MADE_HERE;
    }
    if key.protocol == protocol::TCP && !tcp::is_syn(facts.tcp_flags()) {
        origin |= Flow::ADOPTED;
    }
    origin
}

/// A flow of which one packet has been seen.
#[inline(always)]
pub(super) fn first_state<A, D: Datapath<A>>(
    datapath: &D,
    sight: &Sight,
    facts: Facts,
    verdict: Verdict,
    origin: u8,
) -> FlowState {
    FlowState {
        generation: generation(sight, verdict),
        rule: verdict.rule().0,
        reason: verdict.reason() as u8,
        origin,
        tcp_flags: [facts.tcp_flags(), 0],
        closed: 0,
        rtt: 0,
        opened: datapath.now(),
        last_seen: datapath.jiffies(),
        packets: [1, 0],
        bytes: [u64::from(sight.length), 0],
    }
}
