//! From headers to a verdict, and what is remembered and reported on the way.
//!
//! Everything that a hook does between parsing and returning, over a [`Datapath`] that is maps in
//! the kernel and plain collections in tests.

use crate::{
    decide::{Question, Tables, decide},
    event::EventKind,
    flow::{Flow, FlowKey, Side, Step},
    parse::{Class, Family, Headers, Packet},
    table::{Direction, Endpoint, Word},
    verdict::{Reason, RuleId, Verdict},
};

/// The state that judging needs, and where it reports.
pub trait Datapath<A>: Tables<A> {
    fn flow(&self, key: &FlowKey<A>) -> Option<&Flow>;

    /// Remembers a new flow, in place of one with the same key; false if there is no room.
    fn remember(&self, key: &FlowKey<A>, new: &NewFlow) -> bool;

    fn forget(&self, key: &FlowKey<A>);

    /// Whether the endpoint may send from this address.
    fn owns(&self, endpoint: Endpoint, address: &A) -> bool;

    fn jiffies(&self) -> u64;

    /// Reports what happened to a flow that is, or was, in the table.
    fn report_flow(&self, kind: EventKind, key: &FlowKey<A>, flow: &Flow);

    /// Reports a packet of a flow that is not in the table.
    fn report_packet(&self, kind: EventKind, key: &FlowKey<A>, sight: &Sight, verdict: Verdict);

    fn count(&self, endpoint: Endpoint, reason: Reason, length: u32);
}

/// A packet at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub endpoint: Endpoint,
    pub word: Word,
    pub direction: Direction,
    /// Bytes from the network header on.
    pub length: u32,
    /// The packet was made by this node's own stack, not forwarded by it.
    pub made_here: bool,
}

/// A flow that is about to be remembered, with its first packet counted.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow {
    pub generation: u32,
    pub rule: RuleId,
    pub reason: Reason,
    pub origin: u8,
    pub tcp_flags: u8,
    pub length: u32,
}

/// Judges a packet whose headers are known.
#[inline(always)]
pub fn judge<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    headers: &Headers<A>,
    sight: &Sight,
) -> Verdict {
    let key = FlowKey::new(sight.endpoint.id, headers, sight.direction);
    match headers.class {
        Class::Ordinary | Class::Reply => {}
        Class::Neighbour => return pass(datapath, sight, Reason::NeighbourDiscovery),
        Class::Router => {
            return match sight.direction {
                Direction::Ingress => pass(datapath, sight, Reason::NeighbourDiscovery),
                Direction::Egress => refuse(datapath, &key, sight, Reason::RogueRouter),
            };
        }
        Class::Error => {
            if is_related(datapath, packet, headers, sight) {
                return pass(datapath, sight, Reason::Related);
            }
        }
    }

    if let Some(flow) = datapath.flow(&key)
        && let Step::Continue(side) = flow.step(headers, sight.direction)
    {
        return continued(datapath, &key, flow, headers, side, sight);
    }
    opened(datapath, &key, headers, sight)
}

/// Counts a packet that was dropped before it could be judged.
#[inline(always)]
pub fn unreadable<A, D: Datapath<A>>(datapath: &D, sight: &Sight, reason: Reason) -> Verdict {
    datapath.count(sight.endpoint, reason, sight.length);
    Verdict::because(reason)
}

/// A packet of a flow that the table has.
#[inline(always)]
fn continued<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    flow: &Flow,
    headers: &Headers<A>,
    side: Side,
    sight: &Sight,
) -> Verdict {
    if flow.generation.get() != sight.word.generation() {
        let verdict = decide(
            datapath,
            &question(key, flow.direction(), flow.origin, sight),
        );
        if !verdict.allows() {
            flow.reason.set(Reason::Revoked as u8);
            datapath.report_flow(EventKind::Close, key, flow);
            datapath.forget(key);
            return refuse(datapath, key, sight, Reason::Revoked);
        }
        let rule = verdict.rule().0;
        let changed = flow.rule.get() != rule;
        flow.rule.set(rule);
        flow.reason.set(verdict.reason() as u8);
        flow.generation.set(sight.word.generation());
        if changed {
            datapath.report_flow(EventKind::Change, key, flow);
        }
    }
    if flow.count(headers, side, sight.length, datapath.jiffies()) {
        datapath.report_flow(EventKind::Close, key, flow);
    }
    Verdict::by_rule(RuleId(flow.rule.get()))
}

/// A packet that starts a flow, or would.
#[inline(always)]
fn opened<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    headers: &Headers<A>,
    sight: &Sight,
) -> Verdict {
    let Sight {
        endpoint,
        word,
        direction,
        length,
        made_here,
    } = *sight;
    if matches!(direction, Direction::Egress)
        && endpoint.has(Endpoint::CHECK_SOURCE)
        && !headers.source.is_local_scope()
        && !datapath.owns(endpoint, &headers.source)
    {
        return refuse(datapath, key, sight, Reason::SpoofedSource);
    }
    if matches!(headers.class, Class::Reply) {
        return refuse(datapath, key, sight, Reason::NoState);
    }

    let mut origin = 0;
    if matches!(direction, Direction::Ingress) {
        origin |= Flow::INITIATED_BY_PEER;
    }
    if made_here {
        origin |= Flow::MADE_HERE;
    }
    if headers.protocol == crate::protocol::TCP && !headers.is_syn() {
        origin |= Flow::ADOPTED;
    }
    let verdict = decide(datapath, &question(key, direction, origin, sight));
    if !verdict.allows() {
        return refuse(datapath, key, sight, verdict.reason());
    }

    if let Some(old) = datapath.flow(key)
        && old.closed.get() == 0
    {
        datapath.report_flow(EventKind::Close, key, old);
    }
    let new = NewFlow {
        generation: word.generation(),
        rule: verdict.rule(),
        reason: verdict.reason(),
        origin,
        tcp_flags: headers.tcp_flags,
        length,
    };
    if datapath.remember(key, &new) {
        datapath.report_packet(EventKind::Open, key, sight, verdict);
        datapath.count(endpoint, verdict.reason(), length);
    } else {
        datapath.report_packet(EventKind::Unremembered, key, sight, verdict);
        datapath.count(endpoint, Reason::FlowTableFull, length);
    }
    verdict
}

/// Whether an ICMP error speaks about a flow that is live and still permitted.
#[inline(always)]
fn is_related<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    headers: &Headers<A>,
    sight: &Sight,
) -> bool {
    let mut quoted = Headers::<A>::EMPTY;
    if A::parse_related(packet, usize::from(headers.related), &mut quoted).is_err() {
        return false;
    }
    // The error travels against the packet that it quotes.
    let key = FlowKey::new(sight.endpoint.id, &quoted, sight.direction.opposite());
    let Some(flow) = datapath.flow(&key) else {
        return false;
    };
    flow.generation.get() == sight.word.generation()
        || decide(
            datapath,
            &question(&key, flow.direction(), flow.origin, sight),
        )
        .allows()
}

#[inline(always)]
fn question<A: Family>(
    key: &FlowKey<A>,
    direction: Direction,
    origin: u8,
    sight: &Sight,
) -> Question<A> {
    Question {
        endpoint: sight.endpoint,
        word: sight.word,
        direction,
        local: key.local,
        peer: key.remote,
        protocol: key.protocol,
        port: key.responder_port(direction),
        made_here: origin & Flow::MADE_HERE != 0,
    }
}

#[inline(always)]
fn pass<A, D: Datapath<A>>(datapath: &D, sight: &Sight, reason: Reason) -> Verdict {
    datapath.count(sight.endpoint, reason, sight.length);
    Verdict::because(reason)
}

#[inline(always)]
fn refuse<A, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    reason: Reason,
) -> Verdict {
    let verdict = Verdict::because(reason);
    datapath.count(sight.endpoint, reason, sight.length);
    datapath.report_packet(EventKind::Deny, key, sight, verdict);
    verdict
}
