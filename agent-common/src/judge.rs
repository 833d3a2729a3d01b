//! From headers to a verdict, and what is remembered and reported on the way.
//!
//! Everything that a hook does between parsing and returning, over a [`Datapath`] that is maps in
//! the kernel and plain collections in tests.
//!
//! | module | holds |
//! |---|---|
//! | `live` | a packet of a flow that the table has |
//! | `start` | one that starts a flow, or would |
//! | `related` | ICMP errors, which are about one |
//! | `policy` | what policy says, and whose an address is |

mod live;
mod policy;
mod related;
mod start;

pub(crate) use self::policy::{answer_to, is_own, is_permitted};
use self::{
    live::continued,
    policy::{is_beside, unknown},
    related::is_related,
    start::{first_state, opened, origin},
};
use crate::{
    decide::Tables,
    event::{DenialKey, Event, EventKind},
    flow::{Flow, FlowKey, FlowState, Side, Step, tcp},
    neighbour::{self, Claim},
    parse::{Class, Family, Headers, Packet},
    protocol, refusal, rejection,
    rtt::RoundTrip,
    socket_flow::is_to_be_noted,
    table::{Direction, Endpoint, NO_SOCKET, Word},
    verdict::{Reason, RuleId, Verdict},
};

/// Bytes of an IPv6 packet with a neighbour message and the options that hosts send in one.
const NEIGHBOUR_LENGTH: u32 = 160;

/// The state that judging needs, and where it reports.
pub trait Datapath<A>: Tables<A> {
    /// Whether packets that ask an idle end to speak come here: on their way to an endpoint.
    const MAY_BE_PROMPTED: bool = false;

    /// Whether [`Datapath::round_trip`] knows of any.
    const MEASURES: bool = false;

    fn flow(&self, key: &FlowKey<A>) -> Option<&Flow>;

    /// Remembers a new flow; false if there is no room for it, or its endpoint holds what it may.
    fn remember(&self, key: &FlowKey<A>, flow: &FlowState, place: Place) -> bool;

    /// The number of the endpoint whose socket is at the remote end of a flow over the loopback
    /// interface, asked in the direction of its initiator; [`NO_SOCKET`] if that can not be told.
    fn socket_of_peer(&self, _: &FlowKey<A>, _: Direction) -> u32 {
        NO_SOCKET
    }

    /// Notes the flow in the packet's socket, see [`crate::socket_flow`].
    fn note_at_socket(&self, _: &FlowKey<A>, _: &Flow) {}

    /// Counts in the flow what has been counted at the packet's socket, which leaves it to the table from now
    /// on.
    fn tell_from_socket(&self, _: &FlowKey<A>, _: &Flow) {}

    /// Whether the endpoint may send from this address.
    fn owns(&self, endpoint: Endpoint, address: &A) -> bool;

    /// What is remembered at one of the places of [`crate::fragment`]; 0 is nothing.
    fn first(&self, slot: u32) -> u64;

    /// Remembers it there.
    fn keep_first(&self, slot: u32, memory: u64);

    /// What policy said of such a packet a moment ago, as the bits of a verdict, if it denied it and that is
    /// remembered; else 0. `seen` is from [`refusal::seen`].
    fn refused(&self, _: &FlowKey<A>, _seen: u64) -> u64 {
        0
    }

    /// Remembers that policy denied such a packet, where there is memory for it.
    fn keep_refused(&self, _: &FlowKey<A>, _seen: u64, _: Verdict) {}

    fn jiffies(&self) -> u64;

    /// Whether the packet's socket is to be asked for its round trips, where nothing else needs to be done.
    fn is_to_measure(&self, _: &Flow, _: Side, _jiffies: u64) -> bool {
        false
    }

    /// How long round trips take, as the endpoint's own socket that the packet is of has measured and smoothed
    /// it, if it has.
    fn round_trip(&self) -> RoundTrip {
        RoundTrip::default()
    }

    /// Whether the packet is an answer of our own, see [`crate::rejection`]. Asked once, and only of what could
    /// be one.
    fn is_rejection(&self) -> bool {
        false
    }

    /// Makes an event where there is room for it; `fill` sets every field.
    fn report(&self, fill: impl FnOnce(&mut Event));

    /// As [`Datapath::report`], if it is known whose socket of the endpoint's the packet is of.
    fn report_process(&self, fill: impl FnOnce(&mut Event));

    /// Counts a denied packet with others of its kind; true for one that is to be told by itself, see
    /// [`crate::denial`].
    fn deny(&self, kind: &DenialKey, length: u32) -> bool;

    fn count(&self, endpoint: Endpoint, reason: Reason, length: u32);

    /// The same number, by which whoever follows all ways through the program tells no two of them
    /// apart: the kernel's verifier.
    fn opaque(&self, number: u64) -> u64;
}

/// A packet at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub endpoint: Endpoint,
    pub word: Word,
    pub direction: Direction,
    /// Bytes from the network header on.
    pub length: u32,
    /// The packet was made by this node's own stack, not forwarded by it. In a cgroup known only of
    /// what goes over the loopback interface, and asked only for [`Endpoint::ONLY_OWN`].
    pub made_here: bool,
    /// The interface, or 0 in a cgroup.
    pub ifindex: u32,
}

/// Where a flow goes in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    New,
    /// In place of one with the same key.
    Held,
}

/// What the headers say of a packet beyond its flow's key: TCP flags, and whether it is a reply.
///
/// One number, because a function of the kernel takes five arguments at most.
#[derive(Clone, Copy)]
pub(crate) struct Facts(u16);

impl Facts {
    const REPLY: u16 = 1 << 8;
    /// Of what is no packet of IP.
    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    fn of<A>(headers: &Headers<A>) -> Self {
        let reply = if matches!(headers.class, Class::Reply) {
            Self::REPLY
        } else {
            0
        };
        Self(u16::from(headers.tcp_flags) | reply)
    }

    #[inline(always)]
    pub(crate) fn of_flags(tcp_flags: u8) -> Self {
        Self(u16::from(tcp_flags))
    }

    #[inline(always)]
    fn tcp_flags(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    #[inline(always)]
    fn is_reply(self) -> bool {
        self.0 & Self::REPLY != 0
    }
}

/// Judges a packet whose headers are known.
///
/// What a packet of a live flow needs stands here; all else is in functions of their own, which
/// the verifier walks through once, and which the short path does not have to jump over.
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
        Class::Neighbour => {
            let claim = neighbour::claim(datapath, packet, headers.further, &key, sight);
            if claim != Claim::OWN {
                let verdict = claim.verdict();
                return refuse(datapath, &key, sight, Facts::of(headers), verdict);
            }
            // A long one may carry anything: policy decides, as of any ICMP.
            if sight.length <= NEIGHBOUR_LENGTH {
                return pass(datapath, sight, Reason::NeighbourDiscovery);
            }
        }
        Class::Router => {
            let sends = matches!(sight.direction, Direction::Egress);
            // A node may be a router.
            if sends && !sight.endpoint.has(Endpoint::ONLY_OWN) {
                let verdict = Verdict::because(Reason::RogueRouter);
                return refuse(datapath, &key, sight, Facts::of(headers), verdict);
            }
            return pass(datapath, sight, Reason::NeighbourDiscovery);
        }
        Class::Error => {
            if is_related(datapath, packet, headers.further, &key, sight) {
                return pass(datapath, sight, Reason::Related);
            }
        }
    }
    judge_ordinary(datapath, &key, sight, Facts::of(headers))
}

/// Judges a packet that [`Family::plain`] has read, which is always one of a flow.
#[inline(always)]
pub fn judge_plain<A: Family, D: Datapath<A>>(
    datapath: &D,
    headers: &Headers<A>,
    sight: &Sight,
) -> Verdict {
    let key = FlowKey::new(sight.endpoint.id, headers, sight.direction);
    judge_ordinary(datapath, &key, sight, Facts::of_flags(headers.tcp_flags))
}

#[inline(always)]
fn judge_ordinary<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
) -> Verdict {
    let flow = datapath.flow(key);
    let tcp_flags = facts.tcp_flags();
    if let Some(flow) = flow
        && flow.generation.get() == sight.word.generation()
        && flow.runs_on(tcp_flags)
    {
        let side = flow.side(sight.direction);
        let jiffies = datapath.jiffies();
        if D::MEASURES && datapath.is_to_measure(flow, side, jiffies) {
            measure(datapath, key, flow);
        }
        flow.count(tcp_flags, side, sight.length, jiffies);
        if is_to_be_noted(key, sight, flow) {
            datapath.note_at_socket(key, flow);
        }
        return Verdict::by_rule(RuleId(flow.rule.get()));
    }
    unusual(datapath, key, sight, facts, flow)
}

/// What becomes of a packet that could not be parsed, beyond the addresses in `headers`.
#[inline(always)]
pub fn unparsed<A: Family, D: Datapath<A>>(
    datapath: &D,
    headers: &Headers<A>,
    sight: &Sight,
    reason: Reason,
) -> Verdict {
    if sight.endpoint.has(Endpoint::ONLY_OWN) && is_of_others(datapath, headers, sight) {
        return pass(datapath, sight, Reason::NotSubject);
    }
    unreadable(datapath, sight, reason)
}

/// A function of its own, to spare the stack of those that parse.
#[inline(never)]
fn is_of_others<A: Family, D: Datapath<A>>(
    datapath: &D,
    headers: &Headers<A>,
    sight: &Sight,
) -> bool {
    let key = FlowKey::new(sight.endpoint.id, headers, sight.direction);
    is_beside(datapath, &key, sight)
}

/// Counts a packet that was dropped before it could be judged.
#[inline(always)]
pub fn unreadable<A, D: Datapath<A>>(datapath: &D, sight: &Sight, reason: Reason) -> Verdict {
    let reason = if is_spared(sight) && !Verdict::because(reason).allows() {
        Reason::Observed
    } else {
        reason
    };
    datapath.count(sight.endpoint, reason, sight.length);
    Verdict::because(reason)
}

/// A packet that starts a flow, ends one, is the first since a change of policy, or is none of it.
#[inline(never)]
fn unusual<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
    flow: Option<&Flow>,
) -> Verdict {
    // Before the flow table, which it is not to touch: it belongs to what was denied.
    if is_rejection(datapath, key, sight, facts) {
        return pass(datapath, sight, Reason::Rejection);
    }
    let Some(flow) = flow else {
        let refused = datapath.refused(key, refusal::seen(sight, A::FAMILY));
        if refused != 0 && !facts.is_reply() {
            return refuse(datapath, key, sight, facts, Verdict::from_bits(refused));
        }
        return opened(datapath, key, sight, facts, None);
    };
    match flow.step(facts.tcp_flags(), sight.direction) {
        Step::Continue(side) => continued(datapath, key, sight, facts, flow, side),
        Step::Reopen => opened(datapath, key, sight, facts, Some(flow)),
    }
}

/// Whether a packet is an answer of our own to a denied one, or a question of the agent's. A function of its own:
/// what it asks of the packet the verifier would tell apart in all that follows.
#[inline(never)]
fn is_rejection<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
) -> bool {
    let could = match key.protocol {
        protocol::TCP => facts.tcp_flags() & tcp::RST != 0 || is_prompt::<A, D>(sight, facts),
        protocol::ICMP | protocol::ICMPV6 => true,
        _ => false,
    };
    let is_one = could && sight.length <= rejection::LONGEST && datapath.is_rejection();
    datapath.opaque(u64::from(is_one)) != 0
}

/// Whether a packet can be one that asks an idle end of a flow to speak: a bare acknowledgement for the
/// endpoint, with a time stamp or without.
#[inline(always)]
fn is_prompt<A: Family, D: Datapath<A>>(sight: &Sight, facts: Facts) -> bool {
    const SEGMENT: u32 = 32;
    let network = if A::FAMILY == 4 { 20 } else { 40 };
    D::MAY_BE_PROMPTED && facts.tcp_flags() == tcp::ACK && sight.length <= network + SEGMENT
}

/// Has a flow of TCP know how long its round trips take. A function of its own, for those who do not need it.
#[inline(never)]
fn measure<A: Family, D: Datapath<A>>(datapath: &D, key: &FlowKey<A>, flow: &Flow) {
    if key.protocol == protocol::TCP {
        flow.note_round_trip(datapath.round_trip());
    }
}

/// Reports what happened to a flow of the table.
#[inline(never)]
fn report<A: Family, D: Datapath<A>>(
    datapath: &D,
    kind: EventKind,
    key: &FlowKey<A>,
    sight: &Sight,
    flow: &Flow,
) {
    let time = datapath.now();
    datapath.report(|event| event.fill(kind, key, &flow.state(), sight.ifindex, time));
}

#[inline(always)]
pub(crate) fn pass<A, D: Datapath<A>>(datapath: &D, sight: &Sight, reason: Reason) -> Verdict {
    datapath.count(sight.endpoint, reason, sight.length);
    Verdict::because(reason)
}

/// Whether the endpoint loses nothing yet.
#[inline(always)]
pub(crate) fn is_spared(sight: &Sight) -> bool {
    sight.endpoint.has(Endpoint::OBSERVED)
}

/// Drops a packet: counted always, reported if it is the first of its kind.
#[inline(never)]
pub(crate) fn refuse<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
    verdict: Verdict,
) -> Verdict {
    if is_spared(sight) {
        return pass(datapath, sight, Reason::Observed);
    }
    datapath.count(sight.endpoint, verdict.reason(), sight.length);
    if datapath.deny(&DenialKey::new(key, sight, verdict), sight.length) {
        let origin = origin(key, sight, facts);
        let state = FlowState {
            // It is not remembered, so that this is by what it was judged, timed or not.
            generation: sight.word.generation(),
            ..first_state::<A, _>(datapath, sight, facts, verdict, origin)
        };
        datapath.report(|event| {
            event.fill(EventKind::Deny, key, &state, sight.ifindex, state.opened);
        });
    }
    unknown(datapath, verdict)
}

#[cfg(test)]
mod tests;
