//! Elastic Common Schema: <https://www.elastic.co/docs/reference/ecs>.

use super::{Object, is_audit, own_words};
use crate::flow::record::{
    Direction, End, Kind, Line, LossRecord, ProcessRef, Record, TamperRecord, Traffic, Verdict,
};

/// Of the schema whose fields these are.
const VERSION: &str = "8.17.0";

/// As text.
pub(super) fn object(line: &Line) -> Vec<u8> {
    match line {
        Line::Flow(record) => flow(record),
        Line::Loss(record) => loss(record),
        Line::Tampering(record) => tampering(record),
    }
    .done()
}

fn flow(record: &Record) -> Object {
    let [source, destination] = [
        end(&record.src, record.forward),
        end(&record.dst, record.reverse),
    ];
    Object::default()
        .with("@timestamp", record.end.unwrap_or(record.start))
        .with_object("ecs", version())
        .with_object("event", event(record))
        .with_object("host", Object::default().with("name", &record.node))
        .with_object("observer", observer(record))
        .with_object("network", network(record))
        .with_object("source", source)
        .with_object("destination", destination)
        .with_object("rule", rule(record))
        .with_object(
            "process",
            record.process.as_ref().map(process).unwrap_or_default(),
        )
        .with_object("container", container(record))
        .with_object("orchestrator", orchestrator(record))
        .with_object("user", user(record))
        .with_object("ringfence", own_words(record))
}

fn version() -> Object {
    Object::default().with("version", VERSION)
}

fn event(record: &Record) -> Object {
    let stage = match record.kind {
        Kind::Start => Some("start"),
        Kind::End => Some("end"),
        Kind::Update => Some("info"),
        Kind::Deny => None,
    };
    let outcome = match record.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    };
    let types: Vec<&str> = ["connection"]
        .into_iter()
        .chain(stage)
        .chain([outcome])
        .collect();
    let action = match record.kind {
        _ if is_audit(record) => "policy_audit",
        Kind::Start => "flow_start",
        Kind::Update => "flow_update",
        Kind::End => "flow_end",
        Kind::Deny => "flow_deny",
    };
    let reason = record.drop_reason.as_ref().or(record.reason.as_ref());
    let duration = record
        .end
        .map(|end| end.0.saturating_sub(record.start.0).max(0));
    about("event", action, record.seq.into())
        .with("category", ["network"])
        .with("type", types)
        .with("start", record.start)
        .with("end", record.end)
        .with("duration", duration)
        .with("reason", reason)
}

fn about(kind: &str, action: &str, sequence: Option<u64>) -> Object {
    Object::default()
        .with("kind", kind)
        .with("module", "ringfence")
        .with("dataset", "ringfence.flow")
        .with("action", action)
        .with("sequence", sequence)
}

fn observer(record: &Record) -> Object {
    let interface = Object::default().with("id", record.ifindex.map(|index| index.to_string()));
    let interface = Object::default().with_object("interface", interface);
    let side = match record.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    Object::default()
        .with("vendor", "ringfence")
        .with("product", "ringfence")
        .with("type", "firewall")
        .with("version", &record.agent_version)
        .with("hostname", &record.node)
        .with_object(side, interface)
}

fn network(record: &Record) -> Object {
    let family = record.src.ip.or(record.dst.ip);
    let family = family.map(|ip| if ip.is_ipv4() { "ipv4" } else { "ipv6" });
    let transport = record.protocol.name.as_deref().map(|name| match name {
        "icmpv6" => "ipv6-icmp",
        other => other,
    });
    Object::default()
        .with("transport", transport)
        .with("iana_number", record.protocol.number.to_string())
        .with("type", family)
        .with("direction", record.direction)
        .with("bytes", record.bytes())
        .with("packets", record.packets())
        .with("community_id", &record.community_id)
}

/// With what it has sent.
fn end(end: &End, sent: Traffic) -> Object {
    let workload = end.workload.as_ref().map(ToString::to_string);
    let address = workload.or(end.ip.map(|ip| ip.to_string()));
    Object::default()
        .with("ip", end.ip)
        .with("port", end.port)
        .with("address", address)
        .with("domain", &end.dns_name)
        .with("bytes", sent.bytes)
        .with("packets", sent.packets)
}

fn rule(record: &Record) -> Object {
    let Some(rule) = &record.policy else {
        return Object::default();
    };
    let policy = match &rule.namespace {
        Some(namespace) => format!("{namespace}/{}", rule.name),
        None => rule.name.clone(),
    };
    Object::default()
        .with("id", rule.rule_id.to_string())
        .with("name", rule.rule_name.as_ref().unwrap_or(&rule.rule))
        .with("ruleset", policy)
        .with("category", &rule.kind)
        .with("description", &rule.reason)
        .with("author", rule.owner.as_ref().map(|owner| [owner]))
        .with(
            "version",
            record.policy_revision.map(|number| number.to_string()),
        )
}

fn process(process: &ProcessRef) -> Object {
    Object::default()
        .with("pid", process.pid)
        .with("name", &process.comm)
        .with("executable", &process.exe)
        .with("start", process.start_time)
}

fn orchestrator(record: &Record) -> Object {
    let cluster = Object::default().with("name", &record.cluster);
    Object::default().with_object("cluster", cluster)
}

fn container(record: &Record) -> Object {
    let process = record.process.as_ref();
    Object::default().with(
        "id",
        process.and_then(|process| process.container_id.as_ref()),
    )
}

fn user(record: &Record) -> Object {
    let process = record.process.as_ref();
    Object::default().with("id", process.map(|process| process.uid.to_string()))
}

fn loss(record: &LossRecord) -> Object {
    let loss = &record.loss;
    let event = about("pipeline_error", "records_lost", record.seq)
        .with("reason", &loss.reason)
        .with("start", loss.first)
        .with("end", loss.last);
    Object::default()
        .with("@timestamp", loss.last)
        .with_object("ecs", version())
        .with_object("event", event)
        .with_object("host", Object::default().with("name", &record.node))
        .with_object("ringfence", Object::default().with("loss", loss))
}

fn tampering(record: &TamperRecord) -> Object {
    let event = about("alert", "tampering", Some(record.seq))
        .with("category", ["configuration"])
        .with("type", ["change"]);
    Object::default()
        .with("@timestamp", record.tampering.at)
        .with_object("ecs", version())
        .with_object("event", event)
        .with_object("host", Object::default().with("name", &record.node))
        .with_object(
            "ringfence",
            Object::default().with("tampering", &record.tampering),
        )
}
