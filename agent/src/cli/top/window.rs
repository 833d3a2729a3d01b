//! What records of the last minute add up to, second by second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    cli::flows::decided,
    flow::record::{Kind, Record},
};

/// Seconds that records are added up over: flows that go on are told once in so many.
pub(super) const WINDOW: u64 = 60;

/// Names of one second; those beyond are added up under [`OTHERS`]. A name may be as long as a path.
const NAMES: usize = 512;

const OTHERS: &str = "(others)";

/// Of records, each counted in the second in which it came.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The oldest first.
    past: VecDeque<Second>,
    current: Second,
}

#[derive(Debug, Default)]
struct Second {
    number: u64,
    records: u64,
    endpoints: BTreeMap<String, Sums>,
    /// Packets that were dropped, by reason and rule.
    denied: BTreeMap<Denied, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// That have begun.
    pub(super) flows: u64,
    /// Of permitted packets, both ways.
    pub(super) bytes: u64,
}

/// What packets were dropped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Denied {
    pub(super) reason: String,
    /// Absent where no rule did.
    pub(super) rule: Option<String>,
}

impl Window {
    pub(super) fn add(&mut self, now: Duration, record: &Record) {
        let second = self.second(now.as_secs());
        second.records += 1;
        if record.kind == Kind::Deny {
            let key = Denied {
                reason: record.reason().unwrap_or(OTHERS).to_owned(),
                rule: record.policy.as_ref().map(|_| decided(record)),
            };
            let others = Denied {
                reason: OTHERS.to_owned(),
                rule: None,
            };
            let packets = record
                .forward
                .packets
                .saturating_add(record.reverse.packets);
            let sum = entry(&mut second.denied, key, others);
            *sum = sum.saturating_add(packets);
            return;
        }
        let name = record.endpoint.as_deref().unwrap_or(OTHERS).to_owned();
        let sums = entry(&mut second.endpoints, name, OTHERS.to_owned());
        sums.flows += u64::from(record.kind == Kind::Start);
        let bytes = record.forward.bytes.saturating_add(record.reverse.bytes);
        sums.bytes = sums.bytes.saturating_add(bytes);
    }

    /// That of this number. Two threads read the clock, and one may tell of a second that is over: then the current one.
    fn second(&mut self, number: u64) -> &mut Second {
        if self.current.number < number {
            let next = Second {
                number,
                ..Second::default()
            };
            let over = std::mem::replace(&mut self.current, next);
            self.past.push_back(over);
            self.forget(Duration::from_secs(number));
        }
        &mut self.current
    }

    /// What is older than the window.
    pub(super) fn forget(&mut self, now: Duration) {
        let now = now.as_secs();
        let is_old = |second: &Second| second.number + WINDOW <= now;
        while self.past.front().is_some_and(is_old) {
            self.past.pop_front();
        }
        if is_old(&self.current) {
            self.current = Second {
                number: now,
                ..Second::default()
            };
        }
    }

    fn seconds(&self) -> impl Iterator<Item = &Second> {
        self.past.iter().chain([&self.current])
    }

    pub(super) fn endpoints(&self) -> BTreeMap<&str, Sums> {
        let mut all: BTreeMap<&str, Sums> = BTreeMap::new();
        for (name, sums) in self.seconds().flat_map(|second| &second.endpoints) {
            let all = all.entry(name).or_default();
            all.flows += sums.flows;
            all.bytes = all.bytes.saturating_add(sums.bytes);
        }
        all
    }

    pub(super) fn denied(&self) -> BTreeMap<&Denied, u64> {
        let mut all: BTreeMap<&Denied, u64> = BTreeMap::new();
        for (key, packets) in self.seconds().flat_map(|second| &second.denied) {
            let all = all.entry(key).or_default();
            *all = all.saturating_add(*packets);
        }
        all
    }

    /// Records of each whole second of the window, the oldest first.
    pub(super) fn records(&self, now: Duration) -> Vec<u64> {
        let now = now.as_secs();
        let mut counts = BTreeMap::new();
        for second in self.seconds() {
            counts.insert(second.number, second.records);
        }
        let begin = now.saturating_sub(WINDOW - 1);
        (begin..=now)
            .map(|second| counts.get(&second).copied().unwrap_or(0))
            .collect()
    }
}

/// Of this name, or of all others where there are too many.
fn entry<K: Ord, V: Default>(all: &mut BTreeMap<K, V>, key: K, others: K) -> &mut V {
    let is_full = all.len() >= NAMES && !all.contains_key(&key);
    all.entry(if is_full { others } else { key }).or_default()
}
