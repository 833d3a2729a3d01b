//! What is remembered of one flow between its records.

use std::time::Duration;

use agent_common::{
    event::Event,
    flow::{Flow, FlowState, tcp},
    process::Process,
    table::Direction,
    verdict::{Action, Reason},
};

use crate::flow::{
    clock::{BootTime, Clock, WallTime},
    key::{FlowId, Key},
    record::{EndReason, Kind},
    report::{Count, FlowReport},
};

/// How long a flow that still talks goes without a record.
const UPDATE_PERIOD: Duration = Duration::from_mins(1);

/// An opening may be reported a moment after the table's own time stamp, because the kernel reads
/// its clock for each. Ports are not used again within this time.
const SAME_OPENING: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: FlowId,
    /// Nanoseconds of the boot clock.
    pub(super) opened: u64,
    /// Fixed with the entry, so that a clock that is set does not move it.
    start: WallTime,
    pub(super) origin: u8,
    pub(super) reason: u8,
    pub(super) rule: u32,
    pub(super) generation: u32,
    /// Whose socket it is at the endpoint's side, once that is known.
    pub(super) process: Process,
    ifindex: u32,
    tcp_flags: [u8; 2],
    /// As it was told last.
    rtt: u16,
    pub(super) reported: [Count; 2],
    pub(super) latest: [Count; 2],
    reported_at: BootTime,
    pub(super) phase: Phase,
    /// Found by a sweep, its opening was not reported.
    pub(super) found: bool,
    /// Number of the last sweep that listed it.
    pub(super) listed: u64,
    /// Sweeps in a row that found it closed, or did not find it, without its end being reported.
    pub(super) overdue: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Its end is reported; kept so that the entry that the kernel still has is not taken for new.
    Closed,
    /// As [`Phase::Closed`], but it may come to life until the kernel's entry is gone.
    Idle,
}

impl Entry {
    pub(super) fn of_event(key: &Key, event: &Event, clock: Clock) -> Self {
        Self {
            id: FlowId::new(key, event.opened),
            opened: event.opened,
            start: clock.wall(BootTime(event.opened)),
            origin: event.origin | initiator(event),
            reason: event.reason,
            rule: event.rule,
            generation: event.generation,
            process: event.process,
            ifindex: event.ifindex,
            tcp_flags: event.tcp_flags,
            rtt: event.rtt,
            reported: [Count::default(); 2],
            latest: Count::pair(event.packets, event.bytes),
            reported_at: BootTime(event.time),
            phase: Phase::Open,
            found: false,
            listed: 0,
            overdue: 0,
        }
    }

    pub(super) fn of_state(key: &Key, state: &FlowState, now: BootTime, clock: Clock) -> Self {
        Self {
            id: FlowId::new(key, state.opened),
            opened: state.opened,
            start: clock.wall(BootTime(state.opened)),
            origin: state.origin,
            reason: state.reason,
            rule: state.rule,
            generation: state.generation,
            process: Process::NOBODY,
            ifindex: 0,
            tcp_flags: state.tcp_flags,
            rtt: state.rtt,
            reported: [Count::default(); 2],
            latest: Count::pair(state.packets, state.bytes),
            reported_at: now,
            phase: Phase::Open,
            found: true,
            listed: 0,
            overdue: 0,
        }
    }

    /// Whether `opened` is the opening of this flow, and not of another with the same key.
    pub(super) fn is(&self, opened: u64) -> bool {
        self.opened.abs_diff(opened) < SAME_OPENING
    }

    pub(super) fn start(&self) -> WallTime {
        self.start
    }

    /// What an event says of the flow.
    pub(super) fn learn_event(&mut self, event: &Event) {
        self.origin |= event.origin;
        self.count(Count::pair(event.packets, event.bytes), event.tcp_flags);
        self.measured(event.rtt);
    }

    /// What a listing says of the flow.
    pub(super) fn learn_state(&mut self, state: &FlowState) {
        self.origin |= state.origin;
        self.count(Count::pair(state.packets, state.bytes), state.tcp_flags);
        self.measured(state.rtt);
        // A listing may be older than a change that has been reported.
        let is_newer = state.generation >= self.generation;
        let is_timed_no_more = self.generation == Flow::NEVER && self.rule == state.rule;
        if is_newer || is_timed_no_more {
            self.generation = state.generation;
            self.rule = state.rule;
            if is_permit(state.reason) {
                self.reason = state.reason;
            }
        }
    }

    fn measured(&mut self, rtt: u16) {
        if rtt != 0 {
            self.rtt = rtt;
        }
    }

    fn count(&mut self, counts: [Count; 2], tcp_flags: [u8; 2]) {
        for (latest, count) in self.latest.iter_mut().zip(counts) {
            *latest = latest.max(count);
        }
        for (seen, flags) in self.tcp_flags.iter_mut().zip(tcp_flags) {
            *seen |= flags;
        }
    }

    /// It talks, and has gone without a record for long enough.
    pub(super) fn is_update_due(&self, now: BootTime) -> bool {
        self.has_news() && now.since(self.reported_at) >= UPDATE_PERIOD
    }

    pub(super) fn has_news(&self) -> bool {
        self.latest != self.reported
    }

    /// A report of all that is new, which it thereby no longer is.
    pub(super) fn report(
        &mut self,
        key: &Key,
        kind: Kind,
        at: BootTime,
        end: Option<WallTime>,
        end_reason: Option<EndReason>,
    ) -> FlowReport {
        let [forward, reverse] = self.latest;
        let [reported_forward, reported_reverse] = self.reported;
        self.reported = self.latest;
        self.reported_at = at;
        FlowReport {
            kind,
            id: self.id,
            key: *key,
            direction: direction(self.origin),
            origin: self.origin,
            opened: BootTime(self.opened),
            at,
            start: self.start,
            end,
            delta: [
                forward.minus(reported_forward),
                reverse.minus(reported_reverse),
            ],
            tcp_flags: self.tcp_flags,
            rtt: self.rtt,
            end_reason,
            reason: self.reason,
            rule: self.rule,
            generation: self.generation,
            process: self.process,
            ifindex: self.ifindex,
        }
    }

    /// How a flow ended whose last counters and flags are known.
    pub(super) fn end_reason(&self) -> EndReason {
        let [initiator, responder] = self.tcp_flags;
        if (initiator | responder) & tcp::RST != 0 {
            EndReason::Rst
        } else if initiator & responder & tcp::FIN != 0 {
            EndReason::Fin
        } else {
            EndReason::Forced
        }
    }
}

pub(super) fn direction(origin: u8) -> Direction {
    if origin & Flow::INITIATED_BY_PEER == 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Events about packets name the direction, not all bits of the origin.
fn initiator(event: &Event) -> u8 {
    if event.direction == Direction::Ingress as u8 {
        Flow::INITIATED_BY_PEER
    } else {
        0
    }
}

pub(super) fn is_permit(reason: u8) -> bool {
    Reason::from_number(reason).is_some_and(|reason| reason.action() == Action::Allow)
}
