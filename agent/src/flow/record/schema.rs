//! JSON Schema (draft 2020-12) of a line of the stream, for those who check and generate by it.
//!
//! It says what this version writes, and lets keys pass that it does not know: new ones may come. Lists of words are
//! closed (`enum`) where the record has an enumeration, and open (`examples`) where it has text.

#[cfg(test)]
mod tests;

use agent_common::verdict::{Action, Reason};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Direction, EndReason, Kind, LossKind, SCHEMA_VERSION, TamperKind, Verdict, Via};
use crate::flow::views::View;

/// What may come without a new version, in few words; the page has all.
const DESCRIPTION: &str = "One line of the stream of flow records, as ringfence writes it to JSON lines. What is not known is \
     absent, never null. Keys that are not described here may come without a new schema_version, and so may \
     values where only examples are given: skip what you do not know.";

pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ringfence flow record",
        "description": DESCRIPTION,
        "type": "object",
        "oneOf": [reference("flow"), reference("loss"), reference("tampering")],
        "$defs": {
            "flow": flow(),
            "loss": loss(),
            "tampering": tampering(),
            "end": end(),
            "workload": workload(),
            "traffic": traffic(),
            "rule": rule(),
            "wouldBe": would_be(),
            "process": process(),
            "time": {
                "description": "UTC with nanoseconds (RFC 3339).",
                "type": "string",
                "format": "date-time",
                "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$",
            },
        },
    })
}

fn flow() -> Value {
    object(
        "A connection or exchange, seen from one endpoint of the node: both directions, the initiator first.",
        &[
            "schema_version",
            "seq",
            "node",
            "agent_version",
            "kind",
            "flow_id",
            "start",
            "src",
            "dst",
            "protocol",
            "direction",
            "initiator_known",
            "forward",
            "reverse",
            "verdict",
            "default_deny",
        ],
        &json!({
            "schema_version": version(),
            "seq": seq(),
            "node": text("Name of the node."),
            "cluster": text("As the settings call it."),
            "agent_version": text("Of the agent that wrote it."),
            "kind": closed::<Kind>("What happened. Of loss and tampering, see there."),
            "flow_id": {
                "description": "The same in each record of a flow.",
                "type": "string",
                "pattern": "^[0-9a-f]{16}$",
            },
            "community_id": {
                "description": "Community ID, version 1 with the seed 0.",
                "type": "string",
                "pattern": "^1:[A-Za-z0-9+/]{27}=$",
            },
            "start": reference("time"),
            "end": reference("time"),
            "src": reference("end"),
            "dst": reference("end"),
            "protocol": {
                "type": "object",
                "required": ["number"],
                "properties": {
                    "number": number("Of IANA; 0 for forged ARP.", u8::MAX.into()),
                    "name": open("Absent where it has none.", &["icmp", "tcp", "udp", "icmpv6", "sctp", "arp"]),
                },
            },
            "icmp": {
                "description": "Of what the initiator sent.",
                "type": "object",
                "required": ["type", "code"],
                "properties": {
                    "type": number("", u8::MAX.into()),
                    "code": number("", u8::MAX.into()),
                },
            },
            "direction": closed::<Direction>("Of the initiator, seen from the endpoint."),
            "initiator_known": {"description": "False: who began is a guess.", "type": "boolean"},
            "forward": reference("traffic"),
            "reverse": reference("traffic"),
            "rtt_us": number("Round-trip time in microseconds, smoothed, as the endpoint's socket has measured it last; of TCP.", u32::MAX.into()),
            "end_reason": closed::<EndReason>("Of the kind end."),
            "verdict": closed::<Verdict>("What was done."),
            "policy": reference("rule"),
            "policy_revision": number("Version of the policy that decided, as the Kubernetes API counts them.", u64::MAX),
            "default_deny": {
                "description": "Policy isolates the endpoint, and no rule permits it.",
                "type": "boolean",
            },
            "reason": open("Why it was permitted.", &reasons(Action::Allow)),
            "drop_reason": open("Why it was dropped.", &reasons(Action::Deny)),
            "would_be": {
                "description": "What policies in audit, or staged ones, would have done otherwise.",
                "type": "array",
                "minItems": 1,
                "items": reference("wouldBe"),
            },
            "ifindex": number("Interface that its first packet was seen at.", u32::MAX.into()),
            "generation": number("State of the endpoint's policy that it was judged by.", u32::MAX.into()),
            "endpoint": text("NAMESPACE/NAME of the workload that saw it, or node/NAME."),
            "process": reference("process"),
            "sampling": {
                "description": "This record stands for so many.",
                "type": "integer",
                "minimum": 1,
                "maximum": u32::MAX,
            },
        }),
    )
}

fn loss() -> Value {
    object(
        "Something is missing from the stream here, and this much.",
        &[
            "schema_version",
            "node",
            "kind",
            "stage",
            "reason",
            "count",
            "first",
            "last",
        ],
        &json!({
            "schema_version": version(),
            "seq": seq(),
            "node": text("Name of the node."),
            "kind": {"const": LossKind::Loss},
            "stage": open("Where.", &["takeover", "ring-buffer", "flow-table", "tracker", "sink", "client"]),
            "reason": open("Why.", &[
                "full", "capacity", "unknown-event", "reported-before-unknown", "queue-full", "write-failed", "refused",
                "too-long", "too-slow",
            ]),
            "count": number("Of what the stage holds.", u64::MAX),
            "first": reference("time"),
            "last": reference("time"),
        }),
    )
}

fn tampering() -> Value {
    object(
        "Somebody has changed what the agent has in the kernel.",
        &[
            "schema_version",
            "seq",
            "node",
            "kind",
            "how",
            "what",
            "count",
            "at",
            "restored",
        ],
        &json!({
            "schema_version": version(),
            "seq": seq(),
            "node": text("Name of the node."),
            "kind": {"const": TamperKind::Tampering},
            "how": open("What was found.", &["detached", "replaced", "unpinned", "written"]),
            "what": text("Interface, cgroup or map."),
            "count": number("How much was put right.", u64::MAX),
            "at": reference("time"),
            "restored": {"description": "Whether all is as before.", "type": "boolean"},
        }),
    )
}

fn end() -> Value {
    object(
        "Initiator or responder.",
        &[],
        &json!({
            "ip": {
                "type": "string",
                "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
            },
            "port": number("Absent for ICMP, and the initiator's in summed-up denials.", u16::MAX.into()),
            "workload": reference("workload"),
            "service": text("NAMESPACE/NAME of the Service that is asked for there."),
            "dns_name": text("What the endpoint had asked its resolver for when it was told this address."),
        }),
    )
}

fn workload() -> Value {
    object(
        "Whose the address is, by the policy in force.",
        &["name", "kind"],
        &json!({
            "namespace": text("Absent of a node."),
            "name": text(""),
            "kind": open("", &["Pod", "Workload", "Node"]),
            "owner": text("Who keeps a pod up, as KIND/NAME."),
            "labels": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "string"},
            },
        }),
    )
}

fn traffic() -> Value {
    object(
        "Since the flow's last record: sum them up.",
        &["packets", "bytes"],
        &json!({
            "packets": number("", u64::MAX),
            "bytes": number("From the network header on.", u64::MAX),
            "tcp_flags": number("All since the flow began, or-ed, as in the TCP header.", u8::MAX.into()),
        }),
    )
}

fn rule() -> Value {
    object(
        "A rule of a policy.",
        &["kind", "name", "rule", "rule_id"],
        &json!({
            "kind": open("", &["NetworkPolicy", "ClusterNetworkPolicy", "RingfencePolicy", "Failsafe"]),
            "namespace": text("Absent of kinds that are of the whole cluster."),
            "name": text(""),
            "rule": text("Direction and place, as in ingress[0]."),
            "rule_id": number("", u32::MAX.into()),
            "tier": open("", &["Quarantine", "Admin", "Baseline"]),
            "rule_name": text("What the rule is called in the policy."),
            "reason": text("As written with the policy."),
            "approved_by": text("As written with the policy."),
            "owner": text("As written with the policy."),
        }),
    )
}

fn would_be() -> Value {
    let all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    object(
        "What would have been done by another view of policy.",
        &["view", "verdict", "reason"],
        &json!({
            "view": closed::<View>(""),
            "verdict": closed::<Verdict>(""),
            "policy": reference("rule"),
            "reason": open("", &all),
        }),
    )
}

fn process() -> Value {
    object(
        "Who made the socket at the endpoint's side, or bound or connected it since.",
        &["pid", "comm", "uid", "cgroup_id"],
        &json!({
            "pid": number("As the machine's first namespace of processes counts.", u32::MAX.into()),
            "start_time": reference("time"),
            "comm": text("What it calls itself. It may be anything."),
            "exe": text("The file that it runs, as it sees it."),
            "uid": number("As the machine's first namespace of users counts.", u32::MAX.into()),
            "cgroup_id": number("Of a cgroup of version 2.", u64::MAX),
            "cgroup": text("Its path."),
            "container_id": text("As its runtime calls it."),
            "via": closed::<Via>("The flow came to this socket; who serves it may be another."),
        }),
    )
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn object(description: &str, required: &[&str], properties: &Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "required": required,
        "properties": properties,
    })
}

fn version() -> Value {
    json!({
        "description": "Rises when a key changes its meaning or goes.",
        "const": SCHEMA_VERSION,
    })
}

fn seq() -> Value {
    json!({
        "description": "Counts the lines of one run of the agent; a gap is a loss.",
        "type": "integer",
        "minimum": 1,
        "maximum": u64::MAX,
    })
}

fn text(description: &str) -> Value {
    described(description, json!({"type": "string"}))
}

fn number(description: &str, most: u64) -> Value {
    let number = json!({"type": "integer", "minimum": 0, "maximum": most});
    described(description, number)
}

/// Other words need a new version.
fn closed<T: ValueEnum + Serialize>(description: &str) -> Value {
    described(description, json!({"enum": T::value_variants()}))
}

/// Other words may come.
fn open(description: &str, examples: &[&str]) -> Value {
    described(description, json!({"type": "string", "examples": examples}))
}

fn described(description: &str, mut schema: Value) -> Value {
    if let (false, Value::Object(schema)) = (description.is_empty(), &mut schema) {
        schema.insert("description".to_owned(), description.into());
    }
    schema
}

fn reasons(action: Action) -> Vec<&'static str> {
    let reasons = Reason::ALL.iter();
    let fitting = reasons.filter(|reason| reason.action() == action);
    fitting.map(|reason| reason.name()).collect()
}
