//! The numbers of `status`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use agent_common::verdict::{Action, Reason};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::label::{Labels, Text};
use crate::{
    control::{
        server::StatusSource,
        status::{
            EndpointState, EventCounts, KubernetesStatus, RecordCounts, RejectionSums, Status,
            TableFill, UnknownState,
        },
    },
    datapath::tamper,
    flow::{names::NameStatus, record::Kind, stage::StageCounts, views::OpinionCounts},
    hubble::HubbleStatus,
};

/// Asked at each scrape.
pub(super) struct Numbers(pub(super) Arc<dyn StatusSource>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

/// One after another, as they are scraped.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge_of(name, help, None, value)
    }

    fn gauge_of(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// One for each value of a label.
    fn gauges<'v>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        label: &'static str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (text, value) in values {
            let labels = Labels([(label, Text::new(text))]);
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// One for each value of a label.
    fn counters<'v>(
        &mut self,
        (name, help): (&str, &str),
        label: &'static str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (text, value) in values {
            write_counter(&mut metric, &Labels([(label, Text::new(text))]), value)?;
        }
        Ok(())
    }
}

pub(super) fn write_counter<const N: usize>(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels<N>,
    value: u64,
) -> fmt::Result {
    let mut metric = metric.encode_family(labels)?;
    metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status();
        let mut out = Writer(encoder);
        agent(&status, &mut out)?;
        packets(&status, &mut out)?;
        records(&status.records, &status.events, &mut out)?;
        names(&status.names, &mut out)?;
        if let Some(hubble) = &status.hubble {
            clients(hubble, &mut out)?;
        }
        status
            .kubernetes
            .as_ref()
            .map_or(Ok(()), |kubernetes| api(kubernetes, &mut out))
    }
}

fn agent(status: &Status, out: &mut Writer<'_>) -> fmt::Result {
    out.gauges(
        ("build", "The agent's version; always 1", None),
        "version",
        [(status.agent_version.as_str(), 1)].into_iter(),
    )?;
    let help = "Whether all that is to be held is held, and enforces";
    out.gauge("enforcing", help, status.enforcing.into())?;
    let help = "Of the policy that is in force";
    out.gauge("generation", help, status.generation.into())?;
    let help = "How long the agent has been running";
    out.gauge_of("uptime", help, Some(&Unit::Seconds), status.uptime_s)?;
    let load = status.last_load.as_ref();
    let help = "What is wrong with the policy that was read last; then the one before is in force";
    out.gauge(
        "load_errors",
        help,
        load.map_or(0, |load| count(load.errors.len())),
    )?;
    out.gauges(
        ("policies", "Policies in force", None),
        "kind",
        status
            .policies
            .iter()
            .map(|(kind, number)| (kind.as_str(), count(*number))),
    )?;
    let all = [
        EndpointState::Attached,
        EndpointState::Waiting,
        EndpointState::Failed,
    ];
    let endpoints = all.map(|state| {
        let endpoints = status.endpoints.iter();
        (
            state.name(),
            number(endpoints.filter(|it| it.state == state)),
        )
    });
    out.gauges(
        ("endpoints", "Endpoints of this node", None),
        "state",
        endpoints.into_iter(),
    )?;
    if let Some(unknown) = &status.unknown_interfaces {
        let all = [
            UnknownState::Denied,
            UnknownState::Observed,
            UnknownState::LeftAlone,
            UnknownState::Failed,
        ];
        let interfaces = all.map(|state| {
            let interfaces = unknown.interfaces.iter();
            (
                state.name(),
                number(interfaces.filter(|it| it.state == state)),
            )
        });
        let what = (
            "unknown_interfaces",
            "Interfaces of which nobody knows whose they are",
            None,
        );
        out.gauges(what, "state", interfaces.into_iter())?;
    }
    let fill = |value: fn(&TableFill) -> u64| {
        let tables = status.tables.iter();
        tables.map(move |table| (table.name.as_str(), value(table)))
    };
    let used = ("table_entries", "Entries of the kernel's tables", None);
    out.gauges(used, "table", fill(|table| table.used))?;
    let room = (
        "table_capacity",
        "Entries that the kernel's tables have room for",
        None,
    );
    out.gauges(room, "table", fill(|table| table.capacity))?;
    let help = "What others did to programs, links and tables in the kernel";
    let how = tamper::Kind::ALL.iter().map(|kind| kind.name());
    out.counters(("tampering", help), "how", of_all(how, &status.tampered))?;
    let restarts = status.privileges.helper.map_or(0, |helper| helper.restarts);
    let help = "How often a helper has taken the place of one that ended";
    out.counter("helper_restarts", help, restarts)
}

fn packets(status: &Status, out: &mut Writer<'_>) -> fmt::Result {
    let help = "Packets dropped, as the kernel counts them";
    let denials = Reason::ALL
        .iter()
        .filter(|reason| reason.action() == Action::Deny);
    let reasons = denials.map(|reason| reason.name());
    out.counters(
        ("dropped_packets", help),
        "reason",
        of_all(reasons, &status.drops),
    )?;
    let help = "Permitted packets for whose flows there was no room: their replies need a rule";
    out.counter("unremembered_packets", help, status.unremembered)?;
    let RejectionSums {
        sent,
        suppressed,
        prompted,
    } = status.rejections;
    let answers = [
        ("sent", sent),
        ("suppressed", suppressed),
        ("prompted", prompted),
    ];
    let help = "Answers to denied packets";
    out.counters(("rejections", help), "result", answers.into_iter())?;
    let help = "Records of flows of which policies in audit, or staged ones, say something else";
    let what = of_all(OpinionCounts::names(), &status.would_be);
    out.counters(("would_be", help), "what", what)
}

fn records(records: &RecordCounts, events: &EventCounts, out: &mut Writer<'_>) -> fmt::Result {
    out.counter("events", "Events read from the kernel", events.seen)?;
    let help = "Events for which the kernel had no room";
    out.counter("events_lost", help, events.lost)?;
    let sinks = || records.sinks.iter();
    let of = |value: fn(&StageCounts) -> u64| {
        sinks().map(move |(sink, counts)| (sink.as_str(), value(counts)))
    };
    let help = "Records that were offered to a sink";
    out.counters(("sink_seen", help), "sink", of(|counts| counts.seen))?;
    let help = "Records that a sink has passed on";
    out.counters(
        ("sink_exported", help),
        "sink",
        of(|counts| counts.exported),
    )?;
    let help = "Records that the settings of a sink leave out";
    out.counters(
        ("sink_left_out", help),
        "sink",
        of(|counts| counts.left_out),
    )?;
    let mut metric = out.0.encode_descriptor(
        "sink_lost",
        "Records that a sink had to drop",
        None,
        MetricType::Counter,
    )?;
    for (sink, counts) in sinks() {
        let kinds = Kind::ALL.iter().map(|kind| kind.name());
        for (kind, lost) in of_all(kinds, &counts.lost_by_kind) {
            let labels = Labels([("sink", Text::new(sink)), ("kind", Text::new(kind))]);
            write_counter(&mut metric, &labels, lost)?;
        }
    }
    Ok(())
}

fn names(names: &NameStatus, out: &mut Writer<'_>) -> fmt::Result {
    let NameStatus {
        addresses,
        questions,
        answers,
        malformed,
        unasked,
        untrusted,
        parts,
        crowded,
        lost,
    } = *names;
    let help = "Addresses of which is known what they are called";
    out.gauge("dns_addresses", help, addresses)?;
    let messages = [
        ("question", questions),
        ("answer", answers),
        ("malformed", malformed),
        ("unasked", unasked),
        ("untrusted", untrusted),
        ("part", parts),
        ("crowded", crowded),
        ("lost", lost),
    ];
    let help = "What endpoints and resolvers said to each other, by what came of it";
    out.counters(("dns_messages", help), "result", messages.into_iter())
}

fn clients(hubble: &HubbleStatus, out: &mut Writer<'_>) -> fmt::Result {
    let HubbleStatus {
        streams,
        refused,
        told,
        missed,
    } = *hubble;
    let help = "Streams of flows that clients of Hubble's API have open";
    out.gauge("hubble_streams", help, streams)?;
    let help = "Streams for which there was no place";
    out.counter("hubble_refused", help, refused)?;
    let help = "Flows that clients were told, all together";
    out.counter("hubble_told", help, told)?;
    let help = "Lines that clients were too late for, all together";
    out.counter("hubble_missed", help, missed)
}

fn api(kubernetes: &KubernetesStatus, out: &mut Writer<'_>) -> fmt::Result {
    let help = "Whether all of the Kubernetes API that counts has been heard of";
    out.gauge("kubernetes_complete", help, kubernetes.complete.into())?;
    let help = "Objects of the Kubernetes API of which the last version is not in force";
    out.gauge("kubernetes_errors", help, count(kubernetes.errors.len()))?;
    let watches = || kubernetes.watches.iter();
    out.gauges(
        (
            "kubernetes_objects",
            "Objects of the Kubernetes API that are known",
            None,
        ),
        "kind",
        watches().map(|watch| (watch.kind.as_str(), count(watch.objects))),
    )?;
    out.gauges(
        (
            "kubernetes_silence",
            "How long ago the Kubernetes API was heard of a kind; absent if it never was",
            Some(&Unit::Seconds),
        ),
        "kind",
        watches().filter_map(|watch| Some((watch.kind.as_str(), watch.heard_s?))),
    )
}

/// Also of those names of which there was nothing yet: what looks at the growth of a counter sees nothing of a series that
/// begins with its first loss.
fn of_all(
    names: impl Iterator<Item = &'static str>,
    counted: &BTreeMap<String, u64>,
) -> impl Iterator<Item = (&str, u64)> {
    let mut all: BTreeMap<&str, u64> = names.map(|name| (name, 0)).collect();
    all.extend(counted.iter().map(|(name, count)| (name.as_str(), *count)));
    all.into_iter()
}

fn number<T>(all: impl Iterator<Item = T>) -> u64 {
    count(all.count())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
