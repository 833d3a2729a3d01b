//! Open Cybersecurity Schema Framework: <https://schema.ocsf.io>, class Network Activity.

use super::{Object, is_audit, own_words};
use crate::flow::{
    clock::WallTime,
    record::{
        Direction, End, EndReason, Kind, Line, LossRecord, ProcessRef, Record, TamperRecord,
        Verdict,
    },
};

/// Of the schema whose fields these are: with 2.0 numbers change.
const VERSION: &str = "1.6.0";

const NETWORK: u32 = 4;
const NETWORK_ACTIVITY: u32 = 4001;
/// For what no class is for.
const BASE_EVENT: u32 = 0;
const OTHER: u32 = 99;

const INFORMATIONAL: u32 = 1;
const LOW: u32 = 2;
const HIGH: u32 = 4;

/// As text.
pub(super) fn object(line: &Line) -> Vec<u8> {
    match line {
        Line::Flow(record) => flow(record),
        Line::Loss(record) => loss(record),
        Line::Tampering(record) => tampering(record),
    }
    .done()
}

/// What every event has.
struct Head<'r> {
    class: (u32, u32),
    profiles: &'static [&'static str],
    activity: u32,
    severity: u32,
    time: WallTime,
    node: &'r str,
    sequence: Option<u64>,
}

impl Head<'_> {
    fn begin(&self) -> Object {
        let (category, class) = self.class;
        let product = Object::default()
            .with("name", "ringfence")
            .with("vendor_name", "ringfence")
            .with("version", env!("CARGO_PKG_VERSION"));
        let metadata = Object::default()
            .with("version", VERSION)
            .with_object("product", product)
            .with("sequence", self.sequence)
            .with("profiles", self.profiles);
        // Of no type that the schema has a number for.
        let device = Object::default()
            .with("hostname", self.node)
            .with("type_id", 0);
        Object::default()
            .with("category_uid", category)
            .with("class_uid", class)
            .with("activity_id", self.activity)
            .with("type_uid", class * 100 + self.activity)
            .with("severity_id", self.severity)
            .with("time", milliseconds(self.time))
            .with_object("metadata", metadata)
            .with_object("device", device)
    }
}

fn flow(record: &Record) -> Object {
    let head = Head {
        class: (NETWORK, NETWORK_ACTIVITY),
        profiles: &["host", "security_control"],
        activity: activity(record),
        severity: match record.verdict {
            Verdict::Allow => INFORMATIONAL,
            Verdict::Deny => LOW,
        },
        time: record.end.unwrap_or(record.start),
        node: &record.node,
        sequence: Some(record.seq),
    };
    // Of the security_control profile: Allowed, Denied; Allowed, Blocked; and, if policy would have done otherwise,
    // Observed and Detected.
    let (action, disposition) = match record.verdict {
        _ if is_audit(record) => (3, 15),
        Verdict::Allow => (1, 1),
        Verdict::Deny => (2, 2),
    };
    let traffic = Object::default()
        .with("bytes_out", record.forward.bytes)
        .with("bytes_in", record.reverse.bytes)
        .with("packets_out", record.forward.packets)
        .with("packets_in", record.reverse.packets)
        .with("bytes", record.bytes())
        .with("packets", record.packets());
    head.begin()
        .with("start_time", milliseconds(record.start))
        .with("end_time", record.end.map(milliseconds))
        .with("action_id", action)
        .with("disposition_id", disposition)
        .with("is_src_dst_assignment_known", record.initiator_known)
        .with_object("connection_info", connection(record))
        .with_object("src_endpoint", endpoint(&record.src))
        .with_object("dst_endpoint", endpoint(&record.dst))
        .with_object("traffic", traffic)
        .with_object("policy", policy(record))
        .with_object("firewall_rule", rule(record))
        .with_object(
            "actor",
            record.process.as_ref().map(actor).unwrap_or_default(),
        )
        .with_object(
            "unmapped",
            own_words(record).with("cluster", &record.cluster),
        )
}

/// Open, Close, Reset, Refuse, Traffic.
fn activity(record: &Record) -> u32 {
    match record.kind {
        Kind::Start => 1,
        Kind::End if record.end_reason == Some(EndReason::Rst) => 3,
        Kind::End => 2,
        Kind::Deny => 5,
        Kind::Update => 6,
    }
}

fn connection(record: &Record) -> Object {
    // Inbound, Outbound.
    let direction = match record.direction {
        Direction::Ingress => 1,
        Direction::Egress => 2,
    };
    let version = record.src.ip.or(record.dst.ip);
    let version = version.map(|ip| if ip.is_ipv4() { 4 } else { 6 });
    Object::default()
        .with("uid", record.flow_id)
        .with("community_uid", &record.community_id)
        .with("direction_id", direction)
        .with("protocol_num", record.protocol.number)
        .with("protocol_name", &record.protocol.name)
        .with("protocol_ver_id", version)
        .with("tcp_flags", record.forward.tcp_flags)
}

fn endpoint(end: &End) -> Object {
    let workload = end.workload.as_deref();
    let namespace = workload.map(|it| &it.namespace).filter(|it| !it.is_empty());
    // Something must name it, also where the sink is not to be told.
    let unknown = (end.ip.is_none() && workload.is_none()).then_some("unknown");
    Object::default()
        .with("ip", end.ip)
        .with("port", end.port)
        .with("name", workload.map(|it| &*it.name).or(unknown))
        .with("hostname", &end.dns_name)
        .with("svc_name", &end.service)
        // Other: the schema has no number for it.
        .with("type_id", workload.map(|_| OTHER))
        .with("type", workload.map(|it| &it.kind))
        .with("zone", namespace)
}

fn policy(record: &Record) -> Object {
    let Some(rule) = &record.policy else {
        return Object::default();
    };
    let uid = match &rule.namespace {
        Some(namespace) => format!("{namespace}/{}", rule.name),
        None => rule.name.clone(),
    };
    Object::default()
        .with("name", &rule.name)
        .with("uid", uid)
        .with("desc", &rule.reason)
        .with(
            "version",
            record.policy_revision.map(|number| number.to_string()),
        )
}

fn rule(record: &Record) -> Object {
    let Some(rule) = &record.policy else {
        return Object::default();
    };
    Object::default()
        .with("uid", rule.rule_id.to_string())
        .with("name", rule.rule_name.as_ref().unwrap_or(&rule.rule))
        .with("category", rule.tier.as_ref())
        .with("type", &rule.kind)
}

fn actor(process: &ProcessRef) -> Object {
    let user = Object::default().with("uid", process.uid.to_string());
    let process = Object::default()
        .with("pid", process.pid)
        .with("name", &process.comm)
        .with("path", &process.exe)
        .with("created_time", process.start_time.map(milliseconds))
        .with_object("user", user);
    Object::default().with_object("process", process)
}

fn loss(record: &LossRecord) -> Object {
    let loss = &record.loss;
    let head = Head {
        class: (0, BASE_EVENT),
        profiles: &["host"],
        activity: OTHER,
        severity: LOW,
        time: loss.last,
        node: &record.node,
        sequence: record.seq,
    };
    let message = format!("{} lost at {}: {}", loss.count, loss.stage, loss.reason);
    head.begin()
        .with("activity_name", "Records Lost")
        .with("start_time", milliseconds(loss.first))
        .with("end_time", milliseconds(loss.last))
        .with("count", loss.count)
        .with("message", message)
        .with_object("unmapped", Object::default().with("loss", loss))
}

fn tampering(record: &TamperRecord) -> Object {
    let tampering = &record.tampering;
    let head = Head {
        class: (0, BASE_EVENT),
        profiles: &["host"],
        activity: OTHER,
        severity: HIGH,
        time: tampering.at,
        node: &record.node,
        sequence: Some(record.seq),
    };
    let message = format!("{} {} by others", tampering.what, tampering.how);
    head.begin()
        .with("activity_name", "Tampering")
        .with("count", tampering.count)
        .with("message", message)
        .with_object("unmapped", Object::default().with("tampering", tampering))
}

fn milliseconds(time: WallTime) -> i64 {
    time.0.div_euclid(1_000_000)
}
