//! Until when endpoints are observed, should nobody end it before.
//!
//! The programs compare it with the clock wherever they would spare an endpoint: an agent that dies, or hangs,
//! while it observes leaves nothing open for longer.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::datapath::{maps, words::Words};

/// Long enough for the slowest step between two renewals, in nanoseconds: a helper that does not answer is
/// waited for 4 s, and loading the programs of a cgroup takes a second on a slow machine.
const LASTS: u64 = 10_000_000_000;

/// Nobody's moment has come.
const OVER: u64 = 0;

#[derive(Debug)]
pub(crate) struct Observation(Words);

impl Observation {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        maps::observed_until(folder).map(Self)
    }

    /// An endpoint is observed from now on.
    pub(crate) fn begin(&self, endpoint: u16) {
        self.set(endpoint, boot_nanos().saturating_add(LASTS));
    }

    /// Puts off the end, unless it has come.
    pub(crate) fn renew(&self, endpoint: u16) {
        if !self.is_over(endpoint) {
            self.begin(endpoint);
        }
    }

    /// What is denied is dropped from now on, whatever the endpoint's flags say.
    pub(crate) fn end(&self, endpoint: u16) {
        self.set(endpoint, OVER);
    }

    pub(crate) fn is_over(&self, endpoint: u16) -> bool {
        let Self(until) = self;
        let slot = u32::from(endpoint);
        slot >= until.len() || until.load(slot) <= boot_nanos()
    }

    /// Nothing, where the table is shorter than others of an earlier start: for the programs too it is over there.
    fn set(&self, endpoint: u16, moment: u64) {
        let Self(until) = self;
        let slot = u32::from(endpoint);
        if slot < until.len() {
            until.store(slot, moment);
        }
    }
}

fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = now.tv_sec.unsigned_abs();
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec.unsigned_abs())
}
