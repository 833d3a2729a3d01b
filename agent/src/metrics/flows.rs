//! Flow records by what decided them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    label::{Labels, Text},
    status::write_counter,
};
use crate::flow::{
    record::{Direction, Loss, Record},
    tracker::Cause,
};

/// So many combinations of labels are told apart; the policies of further ones are [`OTHER`].
const MOST: usize = 2000;
const OTHER: &str = "other";

/// Counts since the agent began.
#[derive(Debug, Default)]
pub(crate) struct FlowCounts {
    records: Mutex<HashMap<Labels<5>, Sums>>,
    /// What was missing before there was a record, by stage and reason: a few of each.
    lost: Mutex<BTreeMap<Labels<2>, u64>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    packets: u64,
    bytes: u64,
}

impl FlowCounts {
    pub(crate) fn add(&self, record: &Record) {
        let known = labels(record, &policy(record));
        let mut counts = self.lock();
        let is_room = counts.len() < MOST || counts.contains_key(&known);
        let known = if is_room {
            known
        } else {
            labels(record, OTHER)
        };
        let sums = counts.entry(known).or_default();
        sums.records += 1;
        sums.packets += record.forward.packets + record.reverse.packets;
        sums.bytes += record.forward.bytes + record.reverse.bytes;
    }

    pub(crate) fn add_loss(&self, loss: &Loss) {
        let labels = of_loss((&loss.stage, &loss.reason));
        let mut all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(labels).or_default() += loss.count;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Labels<5>, Sums>> {
        // Each change is an addition: nothing is left half done by a panic.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_loss((stage, reason): (&str, &str)) -> Labels<2> {
    Labels([("stage", Text::new(stage)), ("reason", Text::new(reason))])
}

fn labels(record: &Record, policy: &str) -> Labels<5> {
    let reason = record.drop_reason.as_deref().or(record.reason.as_deref());
    let direction = match record.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    Labels([
        ("kind", Text::new(record.kind.name())),
        ("verdict", Text::new(record.verdict.name())),
        ("direction", Text::new(direction)),
        ("reason", Text::new(reason.unwrap_or_default())),
        ("policy", Text::new(policy)),
    ])
}

/// Empty where no policy decided.
fn policy(record: &Record) -> String {
    let Some(rule) = &record.policy else {
        return String::new();
    };
    match &rule.namespace {
        Some(namespace) => format!("{}/{namespace}/{}", rule.kind, rule.name),
        None => format!("{}/{}", rule.kind, rule.name),
    }
}

impl Collector for FlowCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self
            .lock()
            .iter()
            .map(|(labels, sums)| (labels.clone(), *sums))
            .collect();
        counts.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut write = |name, help, value: fn(&Sums) -> u64| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            let mut counts = counts.iter();
            counts.try_for_each(|(labels, sums)| write_counter(&mut metric, labels, value(sums)))
        };
        write("flow_records", "Flow records made", |sums| sums.records)?;
        let help = "Packets that flow records tell of, in both directions";
        write("flow_packets", help, |sums| sums.packets)?;
        let help = "Bytes that flow records tell of, in both directions, with network headers";
        write("flow_bytes", help, |sums| sums.bytes)?;
        let help =
            "What is missing from flow records, as records of losses say it, by where and why";
        let mut metric = encoder.encode_descriptor("lost", help, None, MetricType::Counter)?;
        let mut lost: BTreeMap<_, _> = Cause::ALL
            .iter()
            .map(|cause| (of_loss(cause.names()), 0))
            .collect();
        let counted = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.extend(
            counted
                .iter()
                .map(|(labels, count)| (labels.clone(), *count)),
        );
        let mut lost = lost.iter();
        lost.try_for_each(|(labels, count)| write_counter(&mut metric, labels, *count))
    }
}
