//! The columns, in their order: one list for the schema, for writing and for reading.
//!
//! Names are part of the format, as keys of the JSON are: agent/docs/parquet.md.

use std::{borrow::Cow, net::IpAddr};

use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as Physical},
    errors::Result,
    schema::types::Type,
};

use crate::flow::{
    clock::WallTime,
    record::{
        Direction, End, Icmp, Line, Loss, ProcessRef, Record, RuleRef, Tampering, Via, WorkloadRef,
    },
};

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Where it is in the JSON of a line, parted by dots.
    pub(super) path: &'static str,
    pub(super) get: Get,
}

/// What a column holds, and where it comes from. What a line does not have is null.
#[derive(Clone, Copy, Debug)]
pub(super) enum Get {
    Flag(fn(&Line) -> Option<bool>),
    /// 32 bits.
    Number(fn(&Line) -> Option<i32>),
    /// 64 bits.
    Count(fn(&Line) -> Option<i64>),
    Time(fn(&Line) -> Option<WallTime>),
    Text(Text),
    /// Text that is JSON itself.
    Json(Text),
}

pub(super) type Text = for<'l> fn(&'l Line) -> Option<Cow<'l, str>>;

pub(super) static COLUMNS: &[Column] = &[
    number("schema_version", "schema_version", |line| {
        Some(i32::from(match line {
            Line::Flow(it) => it.schema_version,
            Line::Loss(it) => it.schema_version,
            Line::Tampering(it) => it.schema_version,
        }))
    }),
    count("seq", "seq", |line| match line {
        Line::Flow(it) => Some(whole(it.seq)),
        Line::Loss(it) => it.seq.map(whole),
        Line::Tampering(it) => Some(whole(it.seq)),
    }),
    text("node", "node", |line| Some(Cow::Borrowed(node(line)))),
    text("cluster", "cluster", |line| {
        flow(line)?.cluster.as_deref().map(Cow::Borrowed)
    }),
    text("agent_version", "agent_version", |line| {
        Some(Cow::Borrowed(&flow(line)?.agent_version))
    }),
    text("kind", "kind", |line| {
        Some(Cow::Borrowed(match line {
            Line::Flow(it) => it.kind.name(),
            Line::Loss(_) => "loss",
            Line::Tampering(_) => "tampering",
        }))
    }),
    // Of what was tampered with it is all that is known.
    moment("time", "at", |line| Some(time(line))),
    text("flow_id", "flow_id", |line| {
        Some(Cow::Owned(flow(line)?.flow_id.to_string()))
    }),
    text("community_id", "community_id", |line| {
        flow(line)?.community_id.as_deref().map(Cow::Borrowed)
    }),
    moment("start_time", "start", |line| Some(flow(line)?.start)),
    moment("end_time", "end", |line| flow(line)?.end),
    text("src_ip", "src.ip", |line| address(src(line)?.ip)),
    number("src_port", "src.port", |line| {
        src(line)?.port.map(i32::from)
    }),
    text("src_namespace", "src.workload.namespace", |line| {
        not_empty(&workload(src(line)?)?.namespace)
    }),
    text("src_name", "src.workload.name", |line| {
        Some(Cow::Borrowed(&workload(src(line)?)?.name))
    }),
    text("src_kind", "src.workload.kind", |line| {
        Some(Cow::Borrowed(&workload(src(line)?)?.kind))
    }),
    text("src_owner", "src.workload.owner", |line| {
        workload(src(line)?)?.owner.as_deref().map(Cow::Borrowed)
    }),
    json("src_labels", "src.workload.labels", |line| {
        labels(workload(src(line)?)?)
    }),
    text("src_dns_name", "src.dns_name", |line| {
        src(line)?.dns_name.as_deref().map(Cow::Borrowed)
    }),
    text("dst_ip", "dst.ip", |line| address(dst(line)?.ip)),
    number("dst_port", "dst.port", |line| {
        dst(line)?.port.map(i32::from)
    }),
    text("dst_namespace", "dst.workload.namespace", |line| {
        not_empty(&workload(dst(line)?)?.namespace)
    }),
    text("dst_name", "dst.workload.name", |line| {
        Some(Cow::Borrowed(&workload(dst(line)?)?.name))
    }),
    text("dst_kind", "dst.workload.kind", |line| {
        Some(Cow::Borrowed(&workload(dst(line)?)?.kind))
    }),
    text("dst_owner", "dst.workload.owner", |line| {
        workload(dst(line)?)?.owner.as_deref().map(Cow::Borrowed)
    }),
    json("dst_labels", "dst.workload.labels", |line| {
        labels(workload(dst(line)?)?)
    }),
    text("dst_service", "dst.service", |line| {
        dst(line)?.service.as_deref().map(Cow::Borrowed)
    }),
    text("dst_dns_name", "dst.dns_name", |line| {
        dst(line)?.dns_name.as_deref().map(Cow::Borrowed)
    }),
    number("protocol", "protocol.number", |line| {
        Some(flow(line)?.protocol.number.into())
    }),
    text("protocol_name", "protocol.name", |line| {
        flow(line)?.protocol.name.as_deref().map(Cow::Borrowed)
    }),
    number("icmp_type", "icmp.type", |line| {
        Some(icmp(line)?.kind.into())
    }),
    number("icmp_code", "icmp.code", |line| {
        Some(icmp(line)?.code.into())
    }),
    text("direction", "direction", |line| {
        Some(Cow::Borrowed(match flow(line)?.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }))
    }),
    flag("initiator_known", "initiator_known", |line| {
        Some(flow(line)?.initiator_known)
    }),
    count("packets_forward", "forward.packets", |line| {
        Some(whole(flow(line)?.forward.packets))
    }),
    count("bytes_forward", "forward.bytes", |line| {
        Some(whole(flow(line)?.forward.bytes))
    }),
    number("tcp_flags_forward", "forward.tcp_flags", |line| {
        flow(line)?.forward.tcp_flags.map(i32::from)
    }),
    count("packets_reverse", "reverse.packets", |line| {
        Some(whole(flow(line)?.reverse.packets))
    }),
    count("bytes_reverse", "reverse.bytes", |line| {
        Some(whole(flow(line)?.reverse.bytes))
    }),
    number("tcp_flags_reverse", "reverse.tcp_flags", |line| {
        flow(line)?.reverse.tcp_flags.map(i32::from)
    }),
    count("rtt_us", "rtt_us", |line| flow(line)?.rtt_us.map(i64::from)),
    text("end_reason", "end_reason", |line| {
        Some(Cow::Borrowed(flow(line)?.end_reason?.name()))
    }),
    text("verdict", "verdict", |line| {
        Some(Cow::Borrowed(flow(line)?.verdict.name()))
    }),
    text("policy_kind", "policy.kind", |line| {
        Some(Cow::Borrowed(&rule(line)?.kind))
    }),
    text("policy_namespace", "policy.namespace", |line| {
        rule(line)?.namespace.as_deref().map(Cow::Borrowed)
    }),
    text("policy_name", "policy.name", |line| {
        Some(Cow::Borrowed(&rule(line)?.name))
    }),
    text("policy_rule", "policy.rule", |line| {
        Some(Cow::Borrowed(&rule(line)?.rule))
    }),
    count("policy_rule_id", "policy.rule_id", |line| {
        Some(rule(line)?.rule_id.into())
    }),
    text("policy_tier", "policy.tier", |line| {
        rule(line)?.tier.as_deref().map(Cow::Borrowed)
    }),
    text("policy_rule_name", "policy.rule_name", |line| {
        rule(line)?.rule_name.as_deref().map(Cow::Borrowed)
    }),
    text("policy_reason", "policy.reason", |line| {
        rule(line)?.reason.as_deref().map(Cow::Borrowed)
    }),
    text("policy_approved_by", "policy.approved_by", |line| {
        rule(line)?.approved_by.as_deref().map(Cow::Borrowed)
    }),
    text("policy_owner", "policy.owner", |line| {
        rule(line)?.owner.as_deref().map(Cow::Borrowed)
    }),
    count("policy_revision", "policy_revision", |line| {
        flow(line)?.policy_revision.map(whole)
    }),
    flag("default_deny", "default_deny", |line| {
        Some(flow(line)?.default_deny)
    }),
    text("reason", "reason", |line| {
        flow(line)?.reason.as_deref().map(Cow::Borrowed)
    }),
    text("drop_reason", "drop_reason", |line| {
        flow(line)?.drop_reason.as_deref().map(Cow::Borrowed)
    }),
    json("would_be", "would_be", |line| {
        let would_be = &flow(line)?.would_be;
        if would_be.is_empty() {
            return None;
        }
        serde_json::to_string(would_be).ok().map(Cow::Owned)
    }),
    count("ifindex", "ifindex", |line| {
        flow(line)?.ifindex.map(i64::from)
    }),
    count("generation", "generation", |line| {
        flow(line)?.generation.map(i64::from)
    }),
    text("endpoint", "endpoint", |line| {
        flow(line)?.endpoint.as_deref().map(Cow::Borrowed)
    }),
    count("process_pid", "process.pid", |line| {
        Some(process(line)?.pid.into())
    }),
    moment("process_start_time", "process.start_time", |line| {
        process(line)?.start_time
    }),
    text("process_comm", "process.comm", |line| {
        Some(Cow::Borrowed(&process(line)?.comm))
    }),
    text("process_exe", "process.exe", |line| {
        process(line)?.exe.as_deref().map(Cow::Borrowed)
    }),
    count("process_uid", "process.uid", |line| {
        Some(process(line)?.uid.into())
    }),
    count("process_cgroup_id", "process.cgroup_id", |line| {
        Some(whole(process(line)?.cgroup_id))
    }),
    text("process_cgroup", "process.cgroup", |line| {
        process(line)?.cgroup.as_deref().map(Cow::Borrowed)
    }),
    text("process_container_id", "process.container_id", |line| {
        process(line)?.container_id.as_deref().map(Cow::Borrowed)
    }),
    text("process_via", "process.via", |line| {
        Some(Cow::Borrowed(match process(line)?.via? {
            Via::Listener => "listener",
        }))
    }),
    count("sampling", "sampling", |line| {
        Some(flow(line)?.sampling?.get().into())
    }),
    text("loss_stage", "stage", |line| {
        Some(Cow::Borrowed(&loss(line)?.stage))
    }),
    text("loss_reason", "reason", |line| {
        Some(Cow::Borrowed(&loss(line)?.reason))
    }),
    count("loss_count", "count", |line| Some(whole(loss(line)?.count))),
    moment("loss_first", "first", |line| Some(loss(line)?.first)),
    moment("loss_last", "last", |line| Some(loss(line)?.last)),
    text("tampering_how", "how", |line| {
        Some(Cow::Borrowed(&tampering(line)?.how))
    }),
    text("tampering_what", "what", |line| {
        Some(Cow::Borrowed(&tampering(line)?.what))
    }),
    count("tampering_count", "count", |line| {
        Some(whole(tampering(line)?.count))
    }),
    flag("tampering_restored", "restored", |line| {
        Some(tampering(line)?.restored)
    }),
];

/// By which a line is put into an hour.
pub(super) fn time(line: &Line) -> WallTime {
    match line {
        Line::Flow(record) => record.end.unwrap_or(record.start),
        Line::Loss(record) => record.loss.last,
        Line::Tampering(record) => record.tampering.at,
    }
}

pub(super) fn node(line: &Line) -> &str {
    match line {
        Line::Flow(it) => &it.node,
        Line::Loss(it) => &it.node,
        Line::Tampering(it) => &it.node,
    }
}

/// # Errors
///
/// A mistake in the list.
pub(super) fn schema() -> Result<Type> {
    let fields = COLUMNS.iter().map(|column| column.field().map(Into::into));
    Type::group_type_builder("flow_records")
        .with_fields(fields.collect::<Result<_>>()?)
        .build()
}

impl Column {
    pub(super) fn field(&self) -> Result<Type> {
        let (physical, logical) = match self.get {
            Get::Flag(_) => (Physical::BOOLEAN, None),
            Get::Number(_) => (Physical::INT32, None),
            Get::Count(_) => (Physical::INT64, None),
            Get::Time(_) => (
                Physical::INT64,
                Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            ),
            // Readers differ in what they make of a column that is said to be JSON.
            Get::Text(_) | Get::Json(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        Type::primitive_type_builder(self.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
    }
}

const fn column(name: &'static str, path: &'static str, get: Get) -> Column {
    Column { name, path, get }
}

const fn flag(name: &'static str, path: &'static str, get: fn(&Line) -> Option<bool>) -> Column {
    column(name, path, Get::Flag(get))
}

const fn number(name: &'static str, path: &'static str, get: fn(&Line) -> Option<i32>) -> Column {
    column(name, path, Get::Number(get))
}

const fn count(name: &'static str, path: &'static str, get: fn(&Line) -> Option<i64>) -> Column {
    column(name, path, Get::Count(get))
}

const fn moment(
    name: &'static str,
    path: &'static str,
    get: fn(&Line) -> Option<WallTime>,
) -> Column {
    column(name, path, Get::Time(get))
}

const fn text(name: &'static str, path: &'static str, get: Text) -> Column {
    column(name, path, Get::Text(get))
}

const fn json(name: &'static str, path: &'static str, get: Text) -> Column {
    column(name, path, Get::Json(get))
}

/// Parquet has numbers with a sign; nothing here comes near the end of them.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn flow(line: &Line) -> Option<&Record> {
    line.flow()
}

fn src(line: &Line) -> Option<&End> {
    Some(&flow(line)?.src)
}

fn dst(line: &Line) -> Option<&End> {
    Some(&flow(line)?.dst)
}

fn workload(end: &End) -> Option<&WorkloadRef> {
    end.workload.as_deref()
}

fn rule(line: &Line) -> Option<&RuleRef> {
    flow(line)?.policy.as_deref()
}

fn icmp(line: &Line) -> Option<Icmp> {
    flow(line)?.icmp
}

fn process(line: &Line) -> Option<&ProcessRef> {
    flow(line)?.process.as_ref()
}

fn loss(line: &Line) -> Option<&Loss> {
    match line {
        Line::Loss(record) => Some(&record.loss),
        Line::Flow(_) | Line::Tampering(_) => None,
    }
}

fn tampering(line: &Line) -> Option<&Tampering> {
    match line {
        Line::Tampering(record) => Some(&record.tampering),
        Line::Flow(_) | Line::Loss(_) => None,
    }
}

fn address<'l>(ip: Option<IpAddr>) -> Option<Cow<'l, str>> {
    Some(Cow::Owned(ip?.to_string()))
}

fn not_empty(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn labels(workload: &WorkloadRef) -> Option<Cow<'_, str>> {
    if workload.labels.is_empty() {
        return None;
    }
    serde_json::to_string(&*workload.labels)
        .ok()
        .map(Cow::Owned)
}
