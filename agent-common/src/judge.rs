//! From headers to a verdict, and what is remembered and reported on the way.
//!
//! Everything that a hook does between parsing and returning, over a [`Datapath`] that is maps in
//! the kernel and plain collections in tests.

use crate::{
    decide::{Question, Tables, decide},
    dhcp::{is_dhcp, may_be_dhcp},
    event::{DenialKey, Event, EventKind},
    flow::{Flow, FlowKey, FlowState, Side, Step, direction_of, tcp},
    neighbour::{self, Claim},
    parse::{Class, Extent, Family, Headers, Packet},
    protocol::{self, Address},
    refusal, rejection,
    socket_flow::is_to_be_noted,
    table::{Direction, Endpoint, NO_SOCKET, Word},
    verdict::{Reason, RuleId, Verdict},
};

/// Bytes of an IPv6 packet with a neighbour message and the options that hosts send in one.
const NEIGHBOUR_LENGTH: u32 = 160;

/// Bytes of a packet with both its headers at their longest and nothing behind them.
const RESET_LENGTH: u32 = 120;

/// The state that judging needs, and where it reports.
pub trait Datapath<A>: Tables<A> {
    /// Whether packets that ask an idle end to speak come here: on their way to an endpoint.
    const MAY_BE_PROMPTED: bool = false;

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
        flow.count(tcp_flags, side, sight.length, datapath.jiffies());
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

/// A packet of a flow that the table has.
#[inline(always)]
fn continued<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    facts: Facts,
    flow: &Flow,
    side: Side,
) -> Verdict {
    datapath.tell_from_socket(key, flow);
    if flow.generation.get() != sight.word.generation() {
        let verdict = answer(datapath, key, sight, flow.origin | LIVE);
        if !verdict.allows() {
            // The entry stays: without it, whatever the responder still sends would be taken for
            // a flow of its own making, and the initiator's packets for the replies to it.
            flow.reason.set(Reason::Revoked as u8);
            flow.generation.set(Flow::NEVER);
            keep::<A, _>(datapath, flow, facts);
            let is_first = flow.closed.get() == 0;
            let parts = is_parting(key, sight, facts, flow, side);
            if parts {
                flow.count(facts.tcp_flags(), side, sight.length, datapath.jiffies());
            }
            if is_first {
                flow.closed.set(1);
                report(datapath, EventKind::Close, key, sight, flow);
            }
            if parts {
                return Verdict::by_rule(RuleId(flow.rule.get()));
            }
            // Each end of a connection that policy has cut hears of it, whatever policy says of others: the
            // far end first, which no socket of the endpoint's may be there to tell.
            let is_tcp = key.protocol == protocol::TCP;
            let sends = matches!(sight.direction, Direction::Egress);
            let revoked = Verdict::new(Reason::Revoked, verdict.rule())
                .rejecting(is_tcp || verdict.rejects())
                .parting(is_tcp && sends && is_first);
            return refuse(datapath, key, sight, facts, revoked);
        }
        // What was there before has not been reported yet.
        let was = flow.reason.get();
        let resumed = was == Reason::Revoked as u8 || was == Reason::Observed as u8;
        let rule = verdict.rule().0;
        let changed = flow.rule.get() != rule;
        flow.rule.set(rule);
        flow.reason.set(verdict.reason() as u8);
        let is_waiting = matches!(side, Side::Initiator) && awaits_answer(key, sight, flow);
        flow.generation.set(if is_waiting {
            Flow::NEVER
        } else {
            generation(sight, verdict)
        });
        if resumed {
            flow.closed.set(0);
            report(datapath, EventKind::Open, key, sight, flow);
        } else if changed {
            report(datapath, EventKind::Change, key, sight, flow);
        }
    }
    if answers(key, sight, flow, side) {
        tell_process(datapath, key, sight, flow);
    }
    let tcp_flags = facts.tcp_flags();
    flow.count(tcp_flags, side, sight.length, datapath.jiffies());
    if flow.closes(tcp_flags) {
        report(datapath, EventKind::Close, key, sight, flow);
    }
    Verdict::by_rule(RuleId(flow.rule.get()))
}

/// Keeps a revoked flow for longer, unless the packet is of who takes leave, or knows nothing of it. A function of
/// its own, to spare the stack of those that judge.
#[inline(never)]
fn keep<A, D: Datapath<A>>(datapath: &D, flow: &Flow, facts: Facts) {
    if facts.tcp_flags() & tcp::RST == 0 {
        flow.last_seen.set(datapath.jiffies());
    }
}

/// Whether a packet of a revoked flow is the reset by which the endpoint takes leave: it passes once,
/// or the far end would wait for a time-out.
#[inline(always)]
fn is_parting<A>(key: &FlowKey<A>, sight: &Sight, facts: Facts, flow: &Flow, side: Side) -> bool {
    let sends = matches!(sight.direction, Direction::Egress);
    // The second one finds the first one's mark.
    let seen = flow.tcp_flags[side as usize & 1].get();
    key.protocol == protocol::TCP
        && sends
        && facts.tcp_flags() & tcp::RST != 0
        && seen & tcp::RST == 0
        && sight.length <= RESET_LENGTH
}

/// A packet that starts a flow, or would; in place of `old`, if that had the same ends.
#[inline(always)]
fn opened<A: Family, D: Datapath<A>>(
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

/// Packets of the initiator after which an answer is not waited for any more: what follows is one that
/// only sends, and is to cost as little as any other.
const PATIENCE: u64 = 8;

/// Whether an interface's hook sees the first packet with a socket of the endpoint's only later, as the
/// answer, and that is a packet like any other. What goes to an endpoint carries no socket, or that of
/// its sender; of a TCP flow the answer is a SYN too.
#[inline(always)]
fn is_answered_unseen<A>(key: &FlowKey<A>, sight: &Sight, origin: u8) -> bool {
    sight.ifindex != 0 && key.protocol == protocol::UDP && origin & Flow::INITIATED_BY_PEER != 0
}

/// Whether the answer is still to come, so that the flow is judged with every packet.
#[inline(always)]
fn awaits_answer<A>(key: &FlowKey<A>, sight: &Sight, flow: &Flow) -> bool {
    is_answered_unseen(key, sight, flow.origin)
        && flow.packets[Side::Responder as usize].get() == 0
        && flow.packets[Side::Initiator as usize].get() < PATIENCE
}

/// Whether this packet is the first that carries a socket of the endpoint's.
#[inline(always)]
fn answers<A>(key: &FlowKey<A>, sight: &Sight, flow: &Flow, side: Side) -> bool {
    let has_sockets = key.protocol == protocol::TCP || key.protocol == protocol::UDP;
    sight.ifindex != 0
        && has_sockets
        && matches!(side, Side::Responder)
        && matches!(sight.direction, Direction::Egress)
        && flow.packets[Side::Responder as usize].get() == 0
}

/// A function of its own, to spare the stack of those that judge.
#[inline(never)]
fn tell_process<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
    flow: &Flow,
) {
    let time = datapath.now();
    datapath.report_process(|event| {
        event.fill(EventKind::Answer, key, &flow.state(), sight.ifindex, time);
    });
}

/// Whether an ICMP error speaks, `at` so many bytes, about a flow that is live and still permitted.
///
/// It must go to the sender of the packet that it quotes, and come from an address that the endpoint
/// may use: otherwise any permitted flow would let its endpoint send to anybody.
#[inline(never)]
fn is_related<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    at: u16,
    error: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    let mut quoted = Headers::<A>::EMPTY;
    if A::whole(packet, usize::from(at), &mut quoted, Extent::Quoted).is_err() {
        return false;
    }
    // The error travels against the packet that it quotes.
    let key = FlowKey::new(sight.endpoint.id, &quoted, sight.direction.opposite());
    let is_astray = match sight.direction {
        Direction::Egress => error.remote != key.remote || is_foreign(datapath, error, sight),
        Direction::Ingress => error.local != key.local,
    };
    if is_astray {
        return false;
    }
    let Some(flow) = datapath.flow(&key) else {
        return false;
    };
    flow.generation.get() == sight.word.generation()
        || is_permitted(datapath, &key, sight, flow.origin)
}

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
fn is_beside<A: Family, D: Datapath<A>>(datapath: &D, key: &FlowKey<A>, sight: &Sight) -> bool {
    sight.endpoint.has(Endpoint::ONLY_OWN)
        && (sight.made_here || !datapath.owns(sight.endpoint, &key.local))
}

/// Whether the endpoint's side of the key is an address that it may not send from.
#[inline(always)]
fn is_foreign<A: Family, D: Datapath<A>>(datapath: &D, key: &FlowKey<A>, sight: &Sight) -> bool {
    sight.endpoint.has(Endpoint::CHECK_SOURCE) && !is_own(datapath, sight, &key.local)
}

/// Whether an address is the endpoint's, or one that any may have on its link.
#[inline(always)]
pub(crate) fn is_own<A: Address, D: Datapath<A>>(datapath: &D, sight: &Sight, address: &A) -> bool {
    address.is_local_scope() || datapath.owns(sight.endpoint, address)
}

/// Beside a flow's origin: it has begun, with an address that may have been taken away since, and be another's.
const LIVE: u8 = 1 << 7;

/// What policy says of a flow with this origin.
#[inline(always)]
fn answer<A: Family, D: Datapath<A>>(
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
fn unknown<A, D: Datapath<A>>(datapath: &D, verdict: Verdict) -> Verdict {
    Verdict::from_bits(datapath.opaque(verdict.to_bits()))
}

/// Until when a verdict may be taken from the flow: never, where time alone may change it.
#[inline(always)]
fn generation(sight: &Sight, verdict: Verdict) -> u32 {
    if verdict.is_timed() {
        Flow::NEVER
    } else {
        sight.word.generation()
    }
}

/// How a flow starts whose first packet this is.
#[inline(always)]
fn origin<A>(key: &FlowKey<A>, sight: &Sight, facts: Facts) -> u8 {
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
fn first_state<A, D: Datapath<A>>(
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
        opened: datapath.now(),
        last_seen: datapath.jiffies(),
        packets: [1, 0],
        bytes: [u64::from(sight.length), 0],
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
