//! Until when endpoints are observed, should nobody end it before.
//!
//! The programs compare it with the clock wherever they would spare an endpoint: an agent that dies, or hangs,
//! while it observes leaves nothing open for longer.

use std::{
    path::Path,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::datapath::{maps, words::Words};

/// Long enough for the slowest step between two renewals, in nanoseconds: a helper that does not answer is
/// waited for 4 s. What may take longer goes through [`Observation::throughout`].
const LASTS: u64 = 10_000_000_000;

/// How often it is put off while the kernel is at work.
const RENEWAL: Duration = Duration::from_secs(2);

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

    /// Puts off the end of these for as long as `work` takes, which has to end by itself: loading programs takes
    /// seconds on a slow machine, and lies with the kernel alone.
    pub(crate) fn throughout<T>(&self, endpoints: &[u16], work: impl FnOnce() -> T) -> T {
        let renew = || {
            for endpoint in endpoints {
                self.renew(*endpoint);
            }
        };
        renew();
        if endpoints.is_empty() {
            return work();
        }
        thread::scope(|scope| {
            let (working, ended) = sync_channel::<()>(1);
            let beside = thread::Builder::new().name("observation".to_owned());
            let spawned = beside.spawn_scoped(scope, move || {
                while ended.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                    renew();
                }
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "what is observed may end before it is taken up");
            }
            let done = work();
            drop(working);
            done
        })
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
