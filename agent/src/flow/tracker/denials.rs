//! Denied packets: those that the kernel has told by events are reported at once, the others it counts.

use std::{collections::HashMap, time::Duration};

use agent_common::{denial::Denied, event::DenialKey};

use super::losses::{Cause, Losses};
use crate::flow::{
    clock::{BootTime, Clock},
    report::{Count, DenialReport, Report},
};

/// How often the counted ones are summed up.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// What has been reported of the kernel's entries, as of the last summary.
#[derive(Debug, Default)]
pub(super) struct Denials {
    reported: HashMap<DenialKey, Reported>,
    last_summary: Option<BootTime>,
}

#[derive(Debug)]
struct Reported {
    /// Of the entry: one that was made anew counts from nothing.
    since: u64,
    count: Count,
}

impl Denials {
    /// Sums up what was denied since the last time, every [`PERIOD`].
    pub(super) fn sweep(
        &mut self,
        listing: &[(DenialKey, Denied)],
        [started, now]: [BootTime; 2],
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
        let last = self.last_summary.replace(now);
        let before = std::mem::take(&mut self.reported);
        for (key, denied) in listing {
            let Denied {
                packets,
                bytes,
                since,
            } = *denied;
            let count = Count { packets, bytes };
            self.reported.insert(*key, Reported { since, count });
            if last.is_none() && BootTime(since) < started {
                // How much an agent before this one has reported is not known.
                losses.add(Cause::Takeover, 1, clock.wall(now), clock.wall(now));
                continue;
            }
            let same = before.get(key).filter(|reported| reported.since == since);
            let reported = same.map_or_else(Count::default, |reported| reported.count);
            let from = last.unwrap_or(started).max(BootTime(since));
            let delta = count.minus(reported);
            if !delta.is_zero() {
                reports.push(Report::Denials(DenialReport {
                    key: *key,
                    since: BootTime(since),
                    start: clock.wall(from),
                    end: clock.wall(now),
                    delta,
                }));
            }
        }
    }
}
