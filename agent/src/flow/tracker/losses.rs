//! What the tracker knows to be missing, summed up until the next sweep.

use std::borrow::Cow;

use crate::flow::{clock::WallTime, record::Loss, report::Report};

/// Where something was lost, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Cause {
    /// Flows and denials of before this agent: what of them has been reported is not known.
    Takeover = 0,
    /// Events that found no room in the kernel's ring buffer.
    RingBuffer = 1,
    /// Permitted packets whose flow the kernel's table did not take: it is full, or the endpoint holds
    /// what it may.
    FlowTable = 2,
    /// Flows beyond the tracker's own capacity.
    Capacity = 3,
    /// Events of a kind that this agent does not know.
    UnknownEvent = 4,
}

#[derive(Debug, Default)]
pub(super) struct Losses([Tally; 5]);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    first: WallTime,
    last: WallTime,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] = [
        Self::Takeover,
        Self::RingBuffer,
        Self::FlowTable,
        Self::Capacity,
        Self::UnknownEvent,
    ];

    /// Stage and reason, as records say them.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Takeover => ("takeover", "reported-before-unknown"),
            Self::RingBuffer => ("ring-buffer", "full"),
            Self::FlowTable => ("flow-table", "full"),
            Self::Capacity => ("tracker", "capacity"),
            Self::UnknownEvent => ("tracker", "unknown-event"),
        }
    }
}

impl Losses {
    pub(super) fn add(&mut self, cause: Cause, count: u64, first: WallTime, last: WallTime) {
        let Some(tally) = self.0.get_mut(cause as usize) else {
            return;
        };
        if count == 0 {
            return;
        }
        if tally.count == 0 {
            *tally = Tally { count, first, last };
        } else {
            tally.count += count;
            tally.first = tally.first.min(first);
            tally.last = tally.last.max(last);
        }
    }

    /// One report for each cause, and forgets them.
    pub(super) fn drain(&mut self, reports: &mut Vec<Report>) {
        for (cause, tally) in Cause::ALL.into_iter().zip(&mut self.0) {
            let Tally { count, first, last } = std::mem::take(tally);
            if count > 0 {
                let (stage, reason) = cause.names();
                let (stage, reason) = (Cow::Borrowed(stage), Cow::Borrowed(reason));
                reports.push(Report::Loss(Loss {
                    stage,
                    reason,
                    count,
                    first,
                    last,
                }));
            }
        }
    }
}
