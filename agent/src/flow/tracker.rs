//! From events and sweeps to reports: the state of every flow between its records.
//!
//! A pure state machine: time comes in with each event and listing, and nothing here does IO.
//!
//! ```text
//!            Open ┌──────┐ Close, or closed in two listings     ┌────────┐
//!   start ───────►│ open ├─────────────── end ─────────────────►│ closed │──► removal when idle
//!                 │      │ silent beyond its limit   ┌──────┐   └────────┘
//!     found by ──►│      ├────────── end ───────────►│ idle │──► removal
//!     a sweep     └──┬───┘◄───── it speaks again ────└──────┘
//!                    └─ not in two listings ─ end (forced) ─► forgotten
//! ```
//!
//! Events and listings reach the tracker by different roads and may overtake each other. So
//! nothing is concluded from one listing alone that an event on its way could contradict.

mod denials;
mod entry;
mod losses;
#[cfg(test)]
mod tests;

use std::time::Duration;

use agent_common::{
    event::{Event, EventKind},
    flow::FlowState,
    verdict::Reason,
};

use indexmap::IndexMap;

pub(crate) use self::losses::Cause;
use self::{
    denials::Denials,
    entry::{Entry, Phase},
    losses::Losses,
};
use super::{
    clock::{BootTime, Clock},
    idle,
    key::Key,
    record::{EndReason, Kind},
    report::{Count, FlowReport, Lost, Removal, Report, SweepInput},
};

/// How long the event of an opening may be on its way before a listing takes the flow up.
const EVENT_DELAY: Duration = Duration::from_secs(5);

/// How many listings must agree where an event may be on its way.
const CERTAIN: u8 = 2;

#[derive(Debug)]
pub(crate) struct Tracker {
    /// When this agent began to read events.
    started: BootTime,
    capacity: usize,
    /// One behind the other: a hash table of these has room for two to four times as many as there are.
    flows: IndexMap<Key, Entry>,
    denials: Denials,
    losses: Losses,
    sweeps: u64,
    lost: Lost,
    last_sweep: BootTime,
}

/// How much the tracker may remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrackerCapacity {
    /// Of both families together.
    pub(crate) flows: usize,
}

/// What follows from a sweep. Reused from sweep to sweep, to spare the allocations.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) reports: Vec<Report>,
    pub(crate) removals: Vec<Removal>,
}

impl Tracker {
    pub(crate) fn new(started: BootTime, capacity: TrackerCapacity) -> Self {
        Self {
            started,
            capacity: capacity.flows,
            flows: IndexMap::new(),
            denials: Denials::default(),
            losses: Losses::default(),
            sweeps: 0,
            lost: Lost::default(),
            last_sweep: started,
        }
    }

    /// Flows that are remembered, ended ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn event(&mut self, event: &Event, clock: Clock, reports: &mut Vec<Report>) {
        let key = Key::of_event(event);
        let at = clock.wall(BootTime(event.time));
        match EventKind::from_number(event.kind) {
            Some(EventKind::Open) => self.opened(key, event, clock, reports),
            Some(EventKind::Close) => self.closed(key, event, clock, reports),
            Some(EventKind::Change) => self.changed(&key, event, clock, reports),
            Some(EventKind::Deny) => {
                let mut entry = Entry::of_event(&key, event, clock);
                let report = entry.report(&key, Kind::Deny, BootTime(event.time), Some(at), None);
                reports.push(Report::Flow(report));
            }
            Some(EventKind::Answer) => {
                if let Some(entry) = self
                    .flows
                    .get_mut(&key)
                    .filter(|entry| entry.is(event.opened))
                {
                    entry.process = event.process;
                }
            }
            None => self.losses.add(Cause::UnknownEvent, 1, at, at),
        }
    }

    fn opened(&mut self, key: Key, event: &Event, clock: Clock, reports: &mut Vec<Report>) {
        let at = BootTime(event.time);
        if let Some(old) = self.flows.get_mut(&key)
            && old.phase == Phase::Open
        {
            if old.found && old.is(event.opened) {
                // A sweep was faster than the event. Nobody else has reported this opening.
                old.found = false;
                old.reported = [Count::default(); 2];
                old.process = event.process;
                reports.push(Report::Flow(old.report(&key, Kind::Start, at, None, None)));
                return;
            }
            reports.push(Report::Flow(forced(old, &key, at, clock)));
        }
        let mut entry = Entry::of_event(&key, event, clock);
        let same = self.flows.get(&key).filter(|old| old.is(event.opened));
        if let Some(old) = same
            && !entry.process.is_known()
        {
            // It was cut and is permitted again: the packet that shows it may be the peer's.
            entry.process = old.process;
        }
        reports.push(Report::Flow(entry.report(
            &key,
            Kind::Start,
            at,
            None,
            None,
        )));
        self.remember(key, entry);
    }

    fn closed(&mut self, key: Key, event: &Event, clock: Clock, reports: &mut Vec<Report>) {
        let at = BootTime(event.time);
        if let Some(entry) = self.flows.get_mut(&key) {
            if entry.is(event.opened) {
                if entry.phase == Phase::Open {
                    entry.learn_event(event);
                    reports.push(Report::Flow(ended(entry, &key, event, clock)));
                }
                return;
            }
            if event.opened < entry.opened {
                // Of a flow whose end was reported when this one replaced it.
                return;
            }
            if entry.phase == Phase::Open {
                reports.push(Report::Flow(forced(entry, &key, at, clock)));
            }
        }
        // The opening was lost, or was reported by an agent before this one.
        let mut entry = Entry::of_event(&key, event, clock);
        if event.opened < self.started.0 {
            entry.reported = entry.latest;
            self.losses
                .add(Cause::Takeover, 1, entry.start(), clock.wall(at));
        }
        reports.push(Report::Flow(ended(&mut entry, &key, event, clock)));
        self.remember(key, entry);
    }

    /// What was counted so far belongs to the rule of before.
    fn changed(&mut self, key: &Key, event: &Event, clock: Clock, reports: &mut Vec<Report>) {
        let Some(entry) = self.flows.get_mut(key) else {
            // The next sweep takes it up, with the rule that holds then.
            return;
        };
        if !entry.is(event.opened) || entry.phase != Phase::Open {
            return;
        }
        entry.learn_event(event);
        if entry.has_news() {
            let at = BootTime(event.time);
            let report = entry.report(key, Kind::Update, at, Some(clock.wall(at)), None);
            reports.push(Report::Flow(report));
        }
        entry.rule = event.rule;
        entry.generation = event.generation;
        entry.reason = event.reason;
    }

    pub(crate) fn sweep(&mut self, input: &SweepInput, clock: Clock, outcome: &mut Outcome) {
        self.sweeps += 1;
        let now = input.listed_at;
        let (since, until) = (clock.wall(self.last_sweep), clock.wall(now));
        for (cause, lost, before) in [
            (Cause::RingBuffer, input.lost.events, self.lost.events),
            (Cause::FlowTable, input.lost.flows, self.lost.flows),
        ] {
            self.losses
                .add(cause, lost.saturating_sub(before), since, until);
        }
        self.lost = input.lost;
        for (key, state) in &input.flows_v4 {
            self.listed(Key::V4(*key), state, input, clock, outcome);
        }
        for (key, state) in &input.flows_v6 {
            self.listed(Key::V6(*key), state, input, clock, outcome);
        }
        self.missing(now, clock, &mut outcome.reports);
        self.denials.sweep(
            &input.denials,
            [self.started, now],
            clock,
            &mut self.losses,
            &mut outcome.reports,
        );
        self.losses.drain(&mut outcome.reports);
        self.last_sweep = now;
    }

    /// One entry of the kernel's table.
    fn listed(
        &mut self,
        key: Key,
        state: &FlowState,
        input: &SweepInput,
        clock: Clock,
        outcome: &mut Outcome,
    ) {
        let now = input.listed_at;
        let silence = idle::silence(state, input.jiffies, input.hz);
        let is_idle = silence >= idle::limit(key.protocol(), state);
        let removal = Removal {
            key,
            opened: state.opened,
            last_seen: state.last_seen,
        };

        if state.reason == Reason::Observed as u8 {
            // Of before the endpoint was attached, and silent since: its first packet begins it here.
            if is_idle {
                outcome.removals.push(removal);
            }
            return;
        }
        let Some(entry) = self.flows.get_mut(&key) else {
            self.found(key, state, now, clock);
            if is_idle && !self.flows.contains_key(&key) {
                // No room to track it; its kernel entry must not stay for ever.
                outcome.removals.push(removal);
            }
            return;
        };
        entry.listed = self.sweeps;
        if !entry.is(state.opened) {
            if state.opened > entry.opened && is_due(state, now) {
                if entry.phase == Phase::Open {
                    outcome
                        .reports
                        .push(Report::Flow(forced(entry, &key, now, clock)));
                }
                self.found(key, state, now, clock);
            }
            // Otherwise the listing is older than an event, or the event is on its way.
            return;
        }

        let latest = entry.latest;
        entry.learn_state(state);
        match entry.phase {
            Phase::Closed => {
                if is_idle {
                    outcome.removals.push(removal);
                } else if entry.is_update_due(now) {
                    // An RST that the other end ignores must not hide what follows it.
                    let report = entry.report(&key, Kind::Update, now, Some(clock.wall(now)), None);
                    outcome.reports.push(Report::Flow(report));
                }
                return;
            }
            Phase::Idle if entry.latest == latest => {
                outcome.removals.push(removal);
                return;
            }
            Phase::Idle => entry.phase = Phase::Open,
            Phase::Open => {}
        }

        if state.closed != 0 {
            entry.overdue += 1;
            if entry.overdue >= CERTAIN {
                let (end, reason) = (clock.wall(now.minus(silence)), entry.end_reason());
                let report = entry.report(&key, Kind::End, now, Some(end), Some(reason));
                outcome.reports.push(Report::Flow(report));
                entry.phase = Phase::Closed;
            }
            return;
        }
        entry.overdue = 0;
        if is_idle {
            let (end, reason) = (clock.wall(now.minus(silence)), EndReason::Idle);
            let report = entry.report(&key, Kind::End, now, Some(end), Some(reason));
            outcome.reports.push(Report::Flow(report));
            outcome.removals.push(removal);
            entry.phase = Phase::Idle;
        } else if entry.is_update_due(now) {
            let report = entry.report(&key, Kind::Update, now, Some(clock.wall(now)), None);
            outcome.reports.push(Report::Flow(report));
        }
    }

    /// A flow that the kernel has and no event told of.
    fn found(&mut self, key: Key, state: &FlowState, now: BootTime, clock: Clock) {
        if !is_due(state, now) {
            return;
        }
        let mut entry = Entry::of_state(&key, state, now, clock);
        entry.listed = self.sweeps;
        if state.opened < self.started.0 {
            entry.reported = entry.latest;
            if state.closed != 0 {
                entry.phase = Phase::Closed;
            }
            self.losses
                .add(Cause::Takeover, 1, entry.start(), clock.wall(now));
        }
        self.remember(key, entry);
    }

    /// Flows that the listing does not have.
    fn missing(&mut self, now: BootTime, clock: Clock, reports: &mut Vec<Report>) {
        let sweep = self.sweeps;
        self.flows.retain(|key, entry| {
            if entry.listed == sweep || entry.opened >= now.0 {
                return true;
            }
            entry.overdue += 1;
            if entry.overdue < CERTAIN {
                return true;
            }
            if entry.phase == Phase::Open {
                reports.push(Report::Flow(forced(entry, key, now, clock)));
            }
            false
        });
        if self.flows.len() < self.flows.capacity() / 4 {
            // After a flood. As many as there are may come again without growing.
            self.flows.shrink_to(self.flows.len() * 2);
        }
    }

    fn remember(&mut self, key: Key, entry: Entry) {
        if self.flows.len() >= self.capacity && !self.flows.contains_key(&key) {
            self.losses
                .add(Cause::Capacity, 1, entry.start(), entry.start());
        } else {
            self.flows.insert(key, entry);
        }
    }
}

/// Whether an unknown flow is old enough that its opening's event is lost, not late.
fn is_due(state: &FlowState, now: BootTime) -> bool {
    now.since(BootTime(state.opened)) >= EVENT_DELAY
}

/// The end of a flow that went without a word.
fn forced(entry: &mut Entry, key: &Key, now: BootTime, clock: Clock) -> FlowReport {
    entry.phase = Phase::Closed;
    entry.report(
        key,
        Kind::End,
        now,
        Some(clock.wall(now)),
        Some(EndReason::Forced),
    )
}

/// The end of a flow as its closing event tells it.
fn ended(entry: &mut Entry, key: &Key, event: &Event, clock: Clock) -> FlowReport {
    entry.phase = Phase::Closed;
    entry.overdue = 0;
    let reason = if event.reason == Reason::Revoked as u8 {
        EndReason::Revoked
    } else {
        entry.end_reason()
    };
    let at = BootTime(event.time);
    entry.report(key, Kind::End, at, Some(clock.wall(at)), Some(reason))
}
