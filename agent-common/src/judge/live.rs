//! A packet of a flow that the table has.

use super::{
    Datapath, Facts, Sight, measure,
    policy::{LIVE, answer, generation},
    refuse, report,
};
use crate::{
    event::EventKind,
    flow::{Flow, FlowKey, Side, tcp},
    parse::Family,
    protocol,
    table::Direction,
    verdict::{Reason, RuleId, Verdict},
};

/// Bytes of a packet with both its headers at their longest and nothing behind them.
const RESET_LENGTH: u32 = 120;

/// A packet of a flow that the table has.
#[inline(always)]
pub(super) fn continued<A: Family, D: Datapath<A>>(
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
    // Here, where little follows: on old kernels the verifier goes through all that does once for each outcome.
    if D::MEASURES {
        measure(datapath, key, flow);
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

/// Packets of the initiator after which an answer is not waited for any more: what follows is one that
/// only sends, and is to cost as little as any other.
pub(super) const PATIENCE: u64 = 8;

/// Whether an interface's hook sees the first packet with a socket of the endpoint's only later, as the
/// answer, and that is a packet like any other. What goes to an endpoint carries no socket, or that of
/// its sender; of a TCP flow the answer is a SYN too.
#[inline(always)]
pub(super) fn is_answered_unseen<A>(key: &FlowKey<A>, sight: &Sight, origin: u8) -> bool {
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
