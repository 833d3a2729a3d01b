//! What has been told, and what it adds up to now.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::window::{WINDOW, Window};
use crate::{
    control::status::{EndpointState, EventCounts, Status},
    flow::{
        record::{Line, LossRecord},
        stage::StageCounts,
    },
};

/// Between two samples of counters: a rate is of the last minute, and need not be to the second.
const SAMPLING: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct State {
    window: Window,
    /// The last that was heard.
    status: Option<Status>,
    /// When the first one was.
    first: Option<Duration>,
    away: Option<Away>,
    /// Of one agent, the oldest first.
    samples: VecDeque<Sample>,
    unseen: u64,
    misunderstood: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Away {
    since: Duration,
    why: String,
}

/// Counters at a time.
#[derive(Debug, Default)]
struct Sample {
    at: Duration,
    endpoints: BTreeMap<String, u64>,
    drops: BTreeMap<String, u64>,
    losses: BTreeMap<String, u64>,
}

/// By what endpoints are put in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Bytes,
    Flows,
    Drops,
    Name,
}

/// What there is to draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    pub(super) agent: String,
    pub(super) node: String,
    pub(super) generation: u32,
    pub(super) enforcing: bool,
    pub(super) uptime: Duration,
    /// For how long it has been away, and why.
    pub(super) away: Option<(Duration, String)>,
    pub(super) endpoints: Vec<EndpointRow>,
    /// Of each reason, then of its rules.
    pub(super) denied: Vec<DeniedRow>,
    /// Of each second of the last minute, the oldest first.
    pub(super) records: Vec<u64>,
    pub(super) losses: Vec<LossRow>,
}

/// Rates are for a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EndpointRow {
    pub(super) name: String,
    /// Absent if it is gone.
    pub(super) state: Option<EndpointState>,
    pub(super) flows: f64,
    pub(super) bytes: f64,
    pub(super) drops: f64,
    /// Since its counters began.
    pub(super) dropped: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DeniedRow {
    pub(super) what: String,
    /// One of the rules that had this reason.
    pub(super) is_rule: bool,
    pub(super) rate: f64,
    /// Since counters began; of rules it is not known.
    pub(super) total: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct LossRow {
    pub(super) stage: String,
    pub(super) seen: Option<u64>,
    pub(super) lost: u64,
    pub(super) rate: f64,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Bytes => Self::Flows,
            Self::Flows => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::Bytes,
        }
    }

    fn order(self, one: &EndpointRow, other: &EndpointRow) -> Ordering {
        let most = match self {
            Self::Bytes => other.bytes.total_cmp(&one.bytes),
            Self::Flows => other.flows.total_cmp(&one.flows),
            Self::Drops => other.drops.total_cmp(&one.drops),
            Self::Name => Ordering::Equal,
        };
        most.then_with(|| one.name.cmp(&other.name))
    }
}

impl State {
    pub(super) fn heard(&mut self, now: Duration, status: Status) {
        let is_other = |before: &Status| before.pid != status.pid;
        if self.status.as_ref().is_some_and(is_other) {
            // Its counters begin anew, some of them.
            self.samples.clear();
        }
        let oldest = now.saturating_sub(Duration::from_secs(WINDOW));
        // One is as old as the window, or older.
        while self.samples.get(1).is_some_and(|next| next.at <= oldest) {
            self.samples.pop_front();
        }
        let is_due = |last: &Sample| now >= last.at + SAMPLING;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back(Sample::of(now, &status));
        }
        self.first.get_or_insert(now);
        self.away = None;
        self.status = Some(status);
    }

    pub(super) fn away(&mut self, now: Duration, why: &anyhow::Error) {
        let why = format!("{why:#}");
        let since = self.away.take().map_or(now, |away| away.since);
        self.away = Some(Away { since, why });
    }

    pub(super) fn add(&mut self, now: Duration, line: &Line) {
        match line {
            Line::Flow(record) => self.window.add(now, record),
            Line::Loss(record) => self.lost(record),
            Line::Tampering(_) => {}
        }
    }

    /// What others lost is in the status.
    fn lost(&mut self, record: &LossRecord) {
        if record.loss.stage == "client" {
            self.unseen = self.unseen.saturating_add(record.loss.count);
        }
    }

    pub(super) fn misunderstood(&mut self) {
        self.misunderstood = self.misunderstood.saturating_add(1);
    }

    pub(super) fn snapshot(&mut self, now: Duration, sort: Sort) -> Snapshot {
        self.window.forget(now);
        let Some(status) = &self.status else {
            return Snapshot::default();
        };
        let mut endpoints = self.endpoints(now, status);
        endpoints.sort_by(|one, other| sort.order(one, other));
        Snapshot {
            agent: status.agent_version.clone(),
            node: status.node.clone(),
            generation: status.generation,
            enforcing: status.enforcing,
            uptime: Duration::from_secs(status.uptime_s),
            away: self
                .away
                .as_ref()
                .map(|away| (now.saturating_sub(away.since), away.why.clone())),
            endpoints,
            denied: self.denied(now, status),
            records: self.window.records(now),
            losses: self.losses(now, status),
        }
    }

    /// How long records have been added up for, in seconds.
    fn span(&self, now: Duration) -> f64 {
        let since = now.saturating_sub(self.first.unwrap_or(now));
        let most = Duration::from_secs(WINDOW);
        since.clamp(Duration::from_secs(1), most).as_secs_f64()
    }

    fn endpoints(&self, now: Duration, status: &Status) -> Vec<EndpointRow> {
        let mut rows: BTreeMap<&str, EndpointRow> = BTreeMap::new();
        for endpoint in &status.endpoints {
            let row = rows.entry(&endpoint.name).or_default();
            let dropped: u64 = endpoint.drops.values().sum();
            row.dropped = row.dropped.saturating_add(dropped);
            // Several of one name are as well as the worst of them.
            row.state = row.state.max(Some(endpoint.state));
        }
        let span = self.span(now);
        for (name, sums) in self.window.endpoints() {
            let row = rows.entry(name).or_default();
            row.flows = number(sums.flows) / span;
            row.bytes = number(sums.bytes) / span;
        }
        let named = rows.into_iter().map(|(name, row)| EndpointRow {
            name: name.to_owned(),
            drops: self.rate(now, row.dropped, |sample| sample.endpoints.get(name)),
            ..row
        });
        named.collect()
    }

    fn denied(&self, now: Duration, status: &Status) -> Vec<DeniedRow> {
        let span = self.span(now);
        let mut rules: BTreeMap<&str, Vec<DeniedRow>> = BTreeMap::new();
        for (denied, packets) in self.window.denied() {
            let rows = rules.entry(&denied.reason).or_default();
            if let Some(rule) = &denied.rule {
                rows.push(DeniedRow {
                    what: rule.clone(),
                    is_rule: true,
                    rate: number(packets) / span,
                    total: None,
                });
            }
        }
        let reasons = status.drops.iter().filter(|(_, total)| **total > 0);
        let mut reasons: Vec<DeniedRow> = reasons
            .map(|(reason, total)| DeniedRow {
                what: reason.clone(),
                is_rule: false,
                rate: self.rate(now, *total, |sample| sample.drops.get(reason)),
                total: Some(*total),
            })
            .collect();
        let order = |one: &DeniedRow, other: &DeniedRow| {
            let rate = other.rate.total_cmp(&one.rate);
            rate.then_with(|| other.total.cmp(&one.total))
        };
        reasons.sort_by(order);
        let mut rows = Vec::new();
        for reason in reasons {
            let mut rules = rules.remove(&*reason.what).unwrap_or_default();
            rules.sort_by(order);
            rows.push(reason);
            rows.append(&mut rules);
        }
        rows
    }

    fn losses(&self, now: Duration, status: &Status) -> Vec<LossRow> {
        let mut rows: Vec<LossRow> = losses(status)
            .map(|(stage, seen, lost)| LossRow {
                rate: self.rate(now, lost, |sample| sample.losses.get(&stage)),
                stage,
                seen,
                lost,
            })
            .collect();
        for (stage, lost) in [
            ("this view, too slow", self.unseen),
            ("this view, not understood", self.misunderstood),
        ] {
            if lost > 0 {
                let (stage, seen, rate) = (stage.to_owned(), None, 0.0);
                rows.push(LossRow {
                    stage,
                    seen,
                    lost,
                    rate,
                });
            }
        }
        rows
    }

    /// Of a counter that stands at `total` now.
    fn rate<'a>(
        &'a self,
        now: Duration,
        total: u64,
        counter: impl Fn(&'a Sample) -> Option<&'a u64>,
    ) -> f64 {
        let Some(oldest) = self.samples.front() else {
            return 0.0;
        };
        let before = counter(oldest).copied().unwrap_or(0);
        let span = now.saturating_sub(oldest.at).max(Duration::from_secs(1));
        number(total.saturating_sub(before)) / span.as_secs_f64()
    }
}

impl Sample {
    fn of(at: Duration, status: &Status) -> Self {
        let mut endpoints: BTreeMap<String, u64> = BTreeMap::new();
        for endpoint in &status.endpoints {
            let dropped = endpoints.entry(endpoint.name.clone()).or_default();
            *dropped = dropped.saturating_add(endpoint.drops.values().sum());
        }
        Self {
            at,
            endpoints,
            drops: status.drops.clone(),
            losses: losses(status)
                .map(|(stage, _, lost)| (stage, lost))
                .collect(),
        }
    }
}

/// Where something may be lost: of how many, and how many.
fn losses(status: &Status) -> impl Iterator<Item = (String, Option<u64>, u64)> {
    let EventCounts { seen, lost } = status.events;
    let table = status.unremembered;
    let stage = |name: String, counts: &StageCounts| (name, Some(counts.seen), counts.lost);
    let sinks = status.records.sinks.iter();
    [
        ("events".to_owned(), Some(seen), lost),
        ("flow table full".to_owned(), None, table),
        ("process names".to_owned(), None, status.processes.lost),
        stage("records".to_owned(), &status.records.stream),
    ]
    .into_iter()
    .chain(sinks.map(move |(name, counts)| stage(format!("to {name}"), counts)))
}

/// Good to one part in 10^15, which is good enough to look at.
#[expect(clippy::cast_precision_loss, reason = "a rate that people look at")]
fn number(count: u64) -> f64 {
    count as f64
}
