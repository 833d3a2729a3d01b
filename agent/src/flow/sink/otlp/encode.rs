//! Lines of the stream as log records. `agent/docs/otlp.md` has the same as a table.
//!
//! Names are those of OpenTelemetry's semantic conventions where they say the same thing, and begin with `ringfence.` elsewhere.
//! Numbers are signed and of 64 bits, as OTLP has no others.

use std::{borrow::Cow, fmt, net::SocketAddr, num::NonZeroU32, sync::Arc};

use super::message::{
    ExportLogsRequest, KeyValue, LogRecord, Resource, ResourceLogs, Scope, ScopeLogs, Severity,
    Value,
};
use crate::flow::{
    clock::WallTime,
    record::{
        Direction, End, EndReason, Line, LossRecord, ProcessRef, Record, RuleRef, TamperRecord,
        Traffic, Verdict, Via, WorkloadRef,
    },
    views::View,
};

/// Of the agent itself, as service and as scope.
pub(super) const NAME: &str = "ringfence";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes of a record's attributes. With 256 records a request stays below the 4 MiB that gRPC takes by default, whatever
/// labels somebody gives to a pod: else one who may make pods could have all records of a node refused.
const ROOM: usize = 12 << 10;

/// All lines, one after another; those of one node together.
pub(super) fn request(lines: &[Cow<'_, Line>], now: WallTime) -> ExportLogsRequest {
    let mut resource_logs: Vec<ResourceLogs> = Vec::new();
    let mut last: Option<&Arc<str>> = None;
    for line in lines {
        let node = node(line);
        // It is another one where a privacy setting hides it from some lines.
        if last != Some(node) {
            resource_logs.push(of_node(node, lines.len()));
            last = Some(node);
        }
        let scope = resource_logs
            .last_mut()
            .and_then(|logs| logs.scope_logs.first_mut());
        if let Some(scope) = scope {
            scope.log_records.push(log_record(line, now));
        }
    }
    ExportLogsRequest { resource_logs }
}

fn node(line: &Line) -> &Arc<str> {
    match line {
        Line::Flow(record) => &record.node,
        Line::Loss(loss) => &loss.node,
        Line::Tampering(tampering) => &tampering.node,
    }
}

/// The agent of a node.
pub(super) fn resource(node: &str) -> Resource {
    let attributes = [
        ("service.name", NAME),
        ("service.version", VERSION),
        ("host.name", node),
        ("k8s.node.name", node),
    ];
    let attributes = attributes.map(|(key, value)| pair(key, Value::Text(value.to_owned())));
    Resource {
        attributes: attributes.into(),
    }
}

pub(super) fn scope() -> Scope {
    Scope {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
    }
}

fn of_node(node: &str, records: usize) -> ResourceLogs {
    ResourceLogs {
        resource: Some(resource(node)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: Vec::with_capacity(records),
        }],
    }
}

fn log_record(line: &Line, now: WallTime) -> LogRecord {
    let told = match line {
        Line::Flow(record) => flow(record),
        Line::Loss(record) => loss(record),
        Line::Tampering(record) => tampering(record),
    };
    let Told {
        event,
        severity,
        at,
        body,
        attributes,
    } = told;
    LogRecord {
        time_unix_nano: unix(at),
        severity_number: severity.into(),
        severity_text: severity.text().to_owned(),
        body: Some(Value::Text(body).into()),
        attributes: attributes.list,
        dropped_attributes_count: attributes.dropped,
        observed_time_unix_nano: unix(now),
        event_name: event.to_owned(),
    }
}

/// What a log record is made of.
struct Told {
    event: &'static str,
    severity: Severity,
    at: WallTime,
    body: String,
    attributes: Attributes,
}

// === flows ===

fn flow(record: &Record) -> Told {
    Told {
        event: "network.flow",
        severity: severity(record),
        at: record.end.unwrap_or(record.start),
        body: Summary(record).to_string(),
        attributes: flow_attributes(record),
    }
}

/// What was turned away, or would be if policies in audit, or staged ones, decided, is a warning.
fn severity(record: &Record) -> Severity {
    let denies = |verdict| verdict == Verdict::Deny;
    if denies(record.verdict) || record.would_be.iter().any(|it| denies(it.verdict)) {
        Severity::Warn
    } else {
        Severity::Info
    }
}

/// A line for people.
struct Summary<'r>(&'r Record);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record) = self;
        let (src, dst) = (Side(&record.src), Side(&record.dst));
        let why = record.drop_reason.as_deref().or(record.reason.as_deref());
        let why = why.unwrap_or(record.kind.name());
        let verdict = record.verdict.name();
        write!(f, "{verdict} {} {src} > {dst} ({why})", record.protocol)
    }
}

struct Side<'r>(&'r End);

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(end) = self;
        match (end.ip, end.port) {
            (Some(ip), Some(port)) => write!(f, "{}", SocketAddr::new(ip, port))?,
            (Some(ip), None) => write!(f, "{ip}")?,
            (None, Some(port)) => write!(f, "?:{port}")?,
            (None, None) => write!(f, "?")?,
        }
        match &end.workload {
            Some(workload) => write!(f, " {workload}"),
            None => Ok(()),
        }
    }
}

/// What matters most comes first: where there is no room for all, the last ones are left out.
fn flow_attributes(record: &Record) -> Attributes {
    let mut out = Attributes::new();
    out.int("ringfence.schema_version", record.schema_version);
    out.number("ringfence.seq", record.seq);
    out.text("ringfence.flow.kind", record.kind.name());
    out.text("ringfence.flow.id", record.flow_id.to_string());
    out.text("ringfence.flow.start", record.start.to_string());
    out.some_text("ringfence.flow.end", record.end.map(|end| end.to_string()));
    let direction = match record.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    out.text("ringfence.direction", direction);
    out.text("ringfence.verdict", record.verdict.name());
    out.some_text("ringfence.reason", record.reason.as_deref());
    out.some_text("ringfence.drop_reason", record.drop_reason.as_deref());
    out.bool("ringfence.default_deny", record.default_deny);
    out.bool("ringfence.initiator_known", record.initiator_known);
    let reason = record.end_reason.map(EndReason::name);
    out.some_text("ringfence.flow.end_reason", reason);
    addresses(record, &mut out);
    out.some_text(
        "ringfence.flow.community_id",
        record.community_id.as_deref(),
    );
    traffic("forward", &record.forward, &mut out);
    traffic("reverse", &record.reverse, &mut out);
    out.some_int("ringfence.rtt_us", record.rtt_us);
    let sampling = record.sampling.map(NonZeroU32::get);
    out.some_int("ringfence.sampling", sampling);
    out.some_int("ringfence.ifindex", record.ifindex);
    out.some_int("ringfence.generation", record.generation);
    if let Some(revision) = record.policy_revision {
        out.number("ringfence.policy.revision".to_owned(), revision);
    }
    out.some_text("ringfence.endpoint", record.endpoint.as_deref());
    out.some_text("k8s.cluster.name", record.cluster.as_deref());
    if let Some(rule) = &record.policy {
        policy("ringfence.policy", rule, &mut out);
    }
    would_be(record, &mut out);
    if let Some(it) = &record.process {
        process(it, &mut out);
    }
    let ends = [("source", &record.src), ("destination", &record.dst)];
    let named = ends.map(|(side, end)| Some((side, end.workload.as_deref()?)));
    for (side, workload) in named.into_iter().flatten() {
        name(side, workload, &mut out);
    }
    if let Some(rule) = &record.policy {
        terms(rule, &mut out);
    }
    // Others than the operator choose how many there are.
    for (side, workload) in named.into_iter().flatten() {
        labels(side, workload, &mut out);
    }
    out
}

fn addresses(record: &Record, out: &mut Attributes) {
    let text = |end: &End| end.ip.map(|ip| ip.to_string());
    out.some_text("source.address", text(&record.src));
    out.some_int("source.port", record.src.port);
    out.some_text("ringfence.source.dns_name", record.src.dns_name.as_deref());
    out.some_text("destination.address", text(&record.dst));
    out.some_int("destination.port", record.dst.port);
    out.some_text(
        "ringfence.destination.dns_name",
        record.dst.dns_name.as_deref(),
    );
    out.some_text(
        "ringfence.destination.service",
        record.dst.service.as_deref(),
    );
    let family = record.src.ip.or(record.dst.ip);
    let family = family.map(|ip| if ip.is_ipv4() { "ipv4" } else { "ipv6" });
    out.some_text("network.type", family);
    out.some_text("network.transport", record.protocol.name.as_deref());
    out.int("ringfence.protocol.number", record.protocol.number);
    if let Some(icmp) = record.icmp {
        out.int("ringfence.icmp.type", icmp.kind);
        out.int("ringfence.icmp.code", icmp.code);
    }
}

fn traffic(way: &str, traffic: &Traffic, out: &mut Attributes) {
    out.number(format!("ringfence.{way}.packets"), traffic.packets);
    out.number(format!("ringfence.{way}.bytes"), traffic.bytes);
    out.some_int(format!("ringfence.{way}.tcp_flags"), traffic.tcp_flags);
}

/// Which rule it is.
fn policy(prefix: &str, rule: &RuleRef, out: &mut Attributes) {
    out.text(format!("{prefix}.kind"), &*rule.kind);
    out.some_text(format!("{prefix}.namespace"), rule.namespace.as_deref());
    out.text(format!("{prefix}.name"), &*rule.name);
    out.text(format!("{prefix}.rule"), &*rule.rule);
    out.int(format!("{prefix}.rule_id"), rule.rule_id);
    out.some_text(format!("{prefix}.tier"), rule.tier.as_deref());
    out.some_text(format!("{prefix}.rule_name"), rule.rule_name.as_deref());
}

/// What its author says about it.
fn terms(rule: &RuleRef, out: &mut Attributes) {
    out.some_text("ringfence.policy.reason", rule.reason.as_deref());
    out.some_text("ringfence.policy.approved_by", rule.approved_by.as_deref());
    out.some_text("ringfence.policy.owner", rule.owner.as_deref());
}

fn would_be(record: &Record, out: &mut Attributes) {
    for would_be in &record.would_be {
        let view = match would_be.view {
            View::Audit => "audit",
            View::Staged => "staged",
        };
        let prefix = format!("ringfence.would_be.{view}");
        out.text(format!("{prefix}.verdict"), would_be.verdict.name());
        out.text(format!("{prefix}.reason"), &*would_be.reason);
        if let Some(rule) = &would_be.policy {
            policy(&format!("{prefix}.policy"), rule, out);
        }
    }
}

fn process(process: &ProcessRef, out: &mut Attributes) {
    out.int("process.pid", process.pid);
    let start = process.start_time.map(|start| start.to_string());
    out.some_text("process.creation.time", start);
    out.int("process.real_user.id", process.uid);
    // As a line of /proc/PID/cgroup.
    let cgroup = process.cgroup.as_deref().map(|path| format!("0::{path}"));
    out.some_text("process.linux.cgroup", cgroup);
    out.number("ringfence.process.cgroup_id", process.cgroup_id);
    out.text("ringfence.process.comm", &*process.comm);
    out.some_text("process.executable.path", process.exe.as_deref());
    out.some_text("container.id", process.container_id.as_deref());
    let via = process.via.map(|Via::Listener| "listener");
    out.some_text("ringfence.process.via", via);
}

fn name(side: &str, workload: &WorkloadRef, out: &mut Attributes) {
    out.text(format!("ringfence.{side}.kind"), &*workload.kind);
    out.some_text(format!("ringfence.{side}.owner"), workload.owner.as_deref());
    let (name, namespace) = (&*workload.name, Some(&*workload.namespace));
    let namespace = namespace.filter(|it| !it.is_empty());
    match &*workload.kind {
        "Pod" => {
            out.text(format!("{side}.k8s.pod.name"), name);
            out.some_text(format!("{side}.k8s.namespace.name"), namespace);
        }
        "Node" => out.text(format!("{side}.k8s.node.name"), name),
        _ => {
            out.text(format!("ringfence.{side}.name"), name);
            out.some_text(format!("ringfence.{side}.namespace"), namespace);
        }
    }
}

fn labels(side: &str, workload: &WorkloadRef, out: &mut Attributes) {
    let prefix = match &*workload.kind {
        "Pod" => format!("{side}.k8s.pod.label"),
        "Node" => format!("{side}.k8s.node.label"),
        _ => format!("ringfence.{side}.label"),
    };
    for (label, value) in &*workload.labels {
        out.text(format!("{prefix}.{label}"), value);
    }
}

// === what is about no flow ===

fn loss(record: &LossRecord) -> Told {
    let LossRecord {
        schema_version,
        seq,
        node: _,
        kind: _,
        loss,
    } = record;
    let mut out = Attributes::new();
    out.int("ringfence.schema_version", *schema_version);
    if let Some(seq) = seq {
        out.number("ringfence.seq", *seq);
    }
    out.text("ringfence.loss.stage", &*loss.stage);
    out.text("ringfence.loss.reason", &*loss.reason);
    out.number("ringfence.loss.count", loss.count);
    out.text("ringfence.loss.first", loss.first.to_string());
    out.text("ringfence.loss.last", loss.last.to_string());
    Told {
        event: "ringfence.loss",
        severity: Severity::Warn,
        at: loss.last,
        body: format!("{} lost: {} {}", loss.count, loss.stage, loss.reason),
        attributes: out,
    }
}

fn tampering(record: &TamperRecord) -> Told {
    let TamperRecord {
        schema_version,
        seq,
        node: _,
        kind: _,
        tampering,
    } = record;
    let mut out = Attributes::new();
    out.int("ringfence.schema_version", *schema_version);
    out.number("ringfence.seq", *seq);
    out.text("ringfence.tampering.how", &*tampering.how);
    out.text("ringfence.tampering.what", &*tampering.what);
    out.number("ringfence.tampering.count", tampering.count);
    out.bool("ringfence.tampering.restored", tampering.restored);
    Told {
        event: "ringfence.tampering",
        severity: Severity::Error,
        at: tampering.at,
        body: format!("{} {}", tampering.what, tampering.how),
        attributes: out,
    }
}

// === impl Attributes ===

/// As many as there is room for.
struct Attributes {
    list: Vec<KeyValue>,
    room: usize,
    dropped: u32,
}

impl Attributes {
    fn new() -> Self {
        Self {
            list: Vec::with_capacity(48),
            room: ROOM,
            dropped: 0,
        }
    }

    fn push(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        let size = match &value {
            Value::Text(text) => text.len(),
            Value::Bool(_) | Value::Int(_) => 8,
        };
        // Tags and lengths have some bytes, too.
        match self.room.checked_sub(key.len() + size + 16) {
            Some(room) => {
                self.room = room;
                self.list.push(pair(key, value));
            }
            None => self.dropped += 1,
        }
    }

    fn text(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.push(key, Value::Text(value.into()));
    }

    fn some_text(&mut self, key: impl Into<String>, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn int(&mut self, key: impl Into<String>, value: impl Into<i64>) {
        self.push(key, Value::Int(value.into()));
    }

    fn some_int(&mut self, key: impl Into<String>, value: Option<impl Into<i64>>) {
        if let Some(value) = value {
            self.int(key, value);
        }
    }

    /// What no signed number holds is as much as one holds.
    fn number(&mut self, key: impl Into<String>, value: u64) {
        self.int(key, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn bool(&mut self, key: impl Into<String>, value: bool) {
        self.push(key, Value::Bool(value));
    }
}

// === impl Severity ===

impl Severity {
    fn text(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

pub(super) fn pair(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value.into()),
    }
}

/// What was before 1970 did not happen.
pub(super) fn unix(time: WallTime) -> u64 {
    u64::try_from(time.0).unwrap_or_default()
}
