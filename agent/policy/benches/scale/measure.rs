//! Medians of time and memory.

use std::{hint::black_box, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::allocator;

/// How often each figure is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds(pub(crate) usize);

/// Medians, each for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Milliseconds of this thread's processor time.
    pub(crate) processor: f64,
    /// Milliseconds of the clock on the wall.
    pub(crate) wall: f64,
    /// Bytes at most, beyond those in use before.
    pub(crate) peak: usize,
    /// Bytes of the outcome.
    pub(crate) kept: usize,
}

/// A change, or its undoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    There,
    Back,
}

impl Step {
    pub(crate) fn is_forth(self) -> bool {
        self == Self::There
    }
}

impl Rounds {
    /// The outcome is dropped after the clock has stopped.
    pub(crate) fn of<T>(self, mut work: impl FnMut() -> T) -> Sample {
        let once = |_| {
            let (sample, outcome) = once(&mut work);
            drop(black_box(outcome));
            sample
        };
        median(&(0..self.0).map(once).collect::<Vec<_>>())
    }

    /// Measures only the way there.
    pub(crate) fn there_and_back(self, mut work: impl FnMut(Step)) -> Sample {
        let once = |_| {
            let (sample, ()) = once(|| work(Step::There));
            work(Step::Back);
            sample
        };
        median(&(0..self.0).map(once).collect::<Vec<_>>())
    }
}

fn once<T>(work: impl FnOnce() -> T) -> (Sample, T) {
    allocator::restart();
    let bytes = allocator::live();
    let (wall, processor) = (time_of(ClockId::Monotonic), time_of(ClockId::ThreadCPUTime));
    let outcome = work();
    let (processor, wall) = (
        time_of(ClockId::ThreadCPUTime) - processor,
        time_of(ClockId::Monotonic) - wall,
    );
    let sample = Sample {
        processor: milliseconds(processor),
        wall: milliseconds(wall),
        peak: allocator::peak().saturating_sub(bytes),
        kept: allocator::live().saturating_sub(bytes),
    };
    (sample, outcome)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(samples: &[Sample]) -> Sample {
    let time = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let bytes = |of: fn(&Sample) -> usize| {
        let mut values: Vec<usize> = samples.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Sample {
        processor: time(|sample| sample.processor),
        wall: time(|sample| sample.wall),
        peak: bytes(|sample| sample.peak),
        kept: bytes(|sample| sample.kept),
    }
}
