//! Denied packets: the first of a kind is an event, the others are only counted by the kernel.

use std::{collections::HashMap, time::Duration};

use agent_common::{
    event::{DenialKey, Event},
    table::{Counter, Direction},
};

use super::losses::{Cause, Losses};
use crate::flow::{
    clock::{BootTime, Clock},
    report::{Count, DenialReport, Report},
};

/// How often the counted ones are summed up.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Denials {
    kinds: HashMap<DenialKey, Kind>,
    capacity: usize,
    last_summary: Option<BootTime>,
}

#[derive(Debug)]
struct Kind {
    reported: Count,
    /// Up to when it has been reported.
    since: BootTime,
    listed: bool,
    /// Summaries in a row that did not list it.
    missed: u8,
}

impl Denials {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            kinds: HashMap::new(),
            capacity,
            last_summary: None,
        }
    }

    /// The first packet of its kind was reported: the kernel's counter stands at 1, even if it was
    /// higher before, because its entry was evicted.
    pub(super) fn event(&mut self, event: &Event, losses: &mut Losses, clock: Clock) {
        let key = DenialKey {
            endpoint: event.endpoint,
            port: if event.direction == Direction::Ingress as u8 {
                event.local_port
            } else {
                event.remote_port
            },
            protocol: event.protocol,
            direction: event.direction,
            reason: event.reason,
            family: event.family,
            rule: event.rule,
            remote: event.remote,
        };
        let since = BootTime(event.time);
        let [reported, _] = Count::pair(event.packets, event.bytes);
        let kind = Kind {
            reported,
            since,
            listed: false,
            missed: 0,
        };
        self.insert(key, kind, losses, clock);
    }

    /// Sums up what was denied since the last time, every [`PERIOD`].
    pub(super) fn sweep(
        &mut self,
        listing: &[(DenialKey, Counter)],
        now: BootTime,
        clock: Clock,
        losses: &mut Losses,
        reports: &mut Vec<Report>,
    ) {
        if self
            .last_summary
            .is_some_and(|last| now.since(last) < PERIOD)
        {
            return;
        }
        let takeover = self.last_summary.replace(now).is_none();
        for (key, counter) in listing {
            let seen = Count {
                packets: counter.packets,
                bytes: counter.bytes,
            };
            let Some(kind) = self.kinds.get_mut(key) else {
                // Its event may be on its way, and would be counted twice: wait for one period.
                let reported = if takeover { seen } else { Count::default() };
                if takeover {
                    losses.add(Cause::Takeover, 1, clock.wall(now), clock.wall(now));
                }
                let kind = Kind {
                    reported,
                    since: now,
                    listed: true,
                    missed: 0,
                };
                self.insert(*key, kind, losses, clock);
                continue;
            };
            kind.listed = true;
            if seen.packets < kind.reported.packets {
                // Evicted and counted anew, and the event that would have said so was lost.
                kind.reported = Count::default();
            }
            let delta = seen.minus(kind.reported);
            if !delta.is_zero() {
                let (start, end) = (clock.wall(kind.since), clock.wall(now));
                reports.push(Report::Denials(DenialReport {
                    key: *key,
                    start,
                    end,
                    delta,
                }));
                kind.reported = seen;
            }
            kind.since = now;
        }
        self.kinds.retain(|_, kind| {
            kind.missed = if kind.listed { 0 } else { kind.missed + 1 };
            kind.listed = false;
            kind.missed < 2
        });
    }

    fn insert(&mut self, key: DenialKey, kind: Kind, losses: &mut Losses, clock: Clock) {
        if self.kinds.len() >= self.capacity && !self.kinds.contains_key(&key) {
            let at = clock.wall(kind.since);
            losses.add(Cause::Capacity, 1, at, at);
        } else {
            self.kinds.insert(key, kind);
        }
    }
}
