//! The canonical flow record: bidirectional, initiator first, delta counters.
//!
//! Every export is an encoding of this one. What is not known stays absent; nothing is made up.
//! The order of fields is the order in the JSON, and part of the format.

#[cfg(test)]
pub(crate) mod hostile;
mod schema;
mod text;

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, num::NonZeroU32, sync::Arc};

use agent_common::verdict::Reason;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use self::{schema::schema, text::Fragment};
use super::{clock::WallTime, key::FlowId, views::View};

/// Raised when a field changes its meaning or goes away; a new field does not raise it.
pub(crate) const SCHEMA_VERSION: u16 = 1;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are flows, and all are behind an Arc"
)]
pub(crate) enum Line {
    Flow(Record),
    Loss(LossRecord),
    Tampering(TamperRecord),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema_version: u16,
    /// Counts the lines of one run of the agent; a gap is a loss after this point.
    pub(crate) seq: u64,
    pub(crate) node: Arc<str>,
    /// As the settings call it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cluster: Option<Arc<str>>,
    pub(crate) agent_version: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) flow_id: FlowId,
    /// As other tools name it, too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) community_id: Option<String>,
    pub(crate) start: WallTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) end: Option<WallTime>,
    /// The initiator.
    pub(crate) src: End,
    /// The responder.
    pub(crate) dst: End,
    pub(crate) protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) icmp: Option<Icmp>,
    pub(crate) direction: Direction,
    /// False where the agent came in the middle: who started the flow is a guess.
    pub(crate) initiator_known: bool,
    /// From the initiator, since the flow's last record.
    pub(crate) forward: Traffic,
    pub(crate) reverse: Traffic,
    /// Smoothed, in microseconds, as the endpoint's socket has measured it last; of TCP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rtt_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) end_reason: Option<EndReason>,
    pub(crate) verdict: Verdict,
    /// The rule that decided, where one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) policy: Option<Arc<RuleRef>>,
    /// Which version of the policy, as the Kubernetes API counts them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) policy_revision: Option<u64>,
    /// No rule permitted it and policy isolates the endpoint.
    pub(crate) default_deny: bool,
    /// Why it was permitted; absent from what was dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) drop_reason: Option<Cow<'static, str>>,
    /// What policies in audit, or staged ones, would have done otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) would_be: Vec<WouldBe>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) generation: Option<u32>,
    /// `NAMESPACE/NAME` of the endpoint that saw it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) endpoint: Option<Arc<str>>,
    /// Whose the socket at the endpoint's side is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) process: Option<ProcessRef>,
    /// One of so many permitted flows is written, and this is one of them; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) sampling: Option<NonZeroU32>,
}

/// Something is missing from the stream here, and this much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LossRecord {
    pub(crate) schema_version: u16,
    /// Absent where one sink lost it: then the other sinks have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) seq: Option<u64>,
    pub(crate) node: Arc<str>,
    pub(crate) kind: LossKind,
    #[serde(flatten)]
    pub(crate) loss: Loss,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loss {
    /// Where: `takeover`, `ring-buffer`, `flow-table`, `tracker`, `sink`, `client`.
    pub(crate) stage: Cow<'static, str>,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) count: u64,
    pub(crate) first: WallTime,
    pub(crate) last: WallTime,
}

/// Somebody has changed what the agent has in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TamperRecord {
    pub(crate) schema_version: u16,
    pub(crate) seq: u64,
    pub(crate) node: Arc<str>,
    pub(crate) kind: TamperKind,
    #[serde(flatten)]
    pub(crate) tampering: Tampering,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tampering {
    /// `detached`, `replaced`, `unpinned`, `written`.
    pub(crate) how: Cow<'static, str>,
    /// Such as `interface veth-api`, `map POLICY`.
    pub(crate) what: String,
    pub(crate) count: u64,
    /// When it was noticed.
    pub(crate) at: WallTime,
    /// Whether all is as before.
    pub(crate) restored: bool,
}

#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Start,
    Update,
    End,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LossKind {
    Loss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TamperKind {
    Tampering,
}

/// One side of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ip: Option<IpAddr>,
    /// Absent for ICMP, and where denials are summed up over source ports.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) workload: Option<Arc<WorkloadRef>>,
    /// `NAMESPACE/NAME` of the Service that is asked for there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) service: Option<Arc<str>>,
    /// What the endpoint had asked its resolver for when it was told this address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) dns_name: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkloadRef {
    /// Of a node, none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `Pod`, `Workload`, `Node`.
    pub(crate) kind: Cow<'static, str>,
    /// Who keeps a pod up, as `KIND/NAME`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) owner: Option<Arc<str>>,
    #[serde(skip_serializing_if = "is_empty", default)]
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    #[serde(skip)]
    pub(crate) json: Fragment,
}

/// Who made a socket, or bound or connected it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRef {
    /// As the machine's first namespace of processes counts.
    pub(crate) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) start_time: Option<WallTime>,
    /// What it calls itself, at most 15 bytes. It may be anything.
    pub(crate) comm: String,
    /// The file that it runs, as it sees it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) exe: Option<Arc<str>>,
    pub(crate) uid: u32,
    pub(crate) cgroup_id: u64,
    /// Below the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cgroup: Option<Arc<str>>,
    /// As its runtime calls it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) container_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) via: Option<Via>,
}

/// How it is known that a process has to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    /// It owns the socket that the flow came to; who serves it may be another.
    Listener,
}

/// A rule by what people call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleRef {
    /// Kind of the policy object, such as `NetworkPolicy`.
    pub(crate) kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Where in the policy, such as `ingress[0]`.
    pub(crate) rule: String,
    pub(crate) rule_id: u32,
    /// `Quarantine`, `Admin`, `Baseline`; absent where the policy is in none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tier: Option<Cow<'static, str>>,
    /// What its author calls the rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rule_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) approved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) owner: Option<String>,
    #[serde(skip)]
    pub(crate) json: Fragment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WouldBe {
    pub(crate) view: View,
    pub(crate) verdict: Verdict,
    /// The rule that would decide, where one would.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) policy: Option<Arc<RuleRef>>,
    pub(crate) reason: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Protocol {
    pub(crate) number: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) name: Option<Cow<'static, str>>,
}

/// Of the message that the initiator sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Icmp {
    #[serde(rename = "type")]
    pub(crate) kind: u8,
    pub(crate) code: u8,
}

/// As policy says it: seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) packets: u64,
    /// From the network header on.
    pub(crate) bytes: u64,
    /// All that were seen since the flow began; absent for other protocols.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tcp_flags: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndReason {
    Idle,
    /// Longer than a record may span. Not used yet: long flows have updates.
    Active,
    Fin,
    Rst,
    /// Policy no longer permits it.
    Revoked,
    /// Gone without a word: replaced by another flow, or its end was lost.
    Forced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Allow,
    Deny,
}

// === impl Line ===

impl Line {
    /// `None` if it is about no flow.
    pub(crate) fn flow(&self) -> Option<&Record> {
        match self {
            Self::Flow(record) => Some(record),
            Self::Loss(_) | Self::Tampering(_) => None,
        }
    }

    /// Appends it as a line of JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        text::line(self, out);
    }

    /// Reads one line of the stream.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(default)]
            schema_version: u16,
            #[serde(borrow)]
            kind: Cow<'a, str>,
        }
        let head: Head<'_> = serde_json::from_str(text)?;
        if head.schema_version > SCHEMA_VERSION {
            let seen = head.schema_version;
            return Err(serde::de::Error::custom(format!(
                "schema_version {seen} is newer than this program, which knows {SCHEMA_VERSION}"
            )));
        }
        match &*head.kind {
            "loss" => serde_json::from_str(text).map(Self::Loss),
            "tampering" => serde_json::from_str(text).map(Self::Tampering),
            _ => serde_json::from_str(text).map(Self::Flow),
        }
    }
}

// === impl Record ===

impl Record {
    /// Of both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.forward.bytes.saturating_add(self.reverse.bytes)
    }

    /// Of both ways.
    pub(crate) fn packets(&self) -> u64 {
        self.forward.packets.saturating_add(self.reverse.packets)
    }

    /// Both ends, the initiator first.
    pub(crate) fn ends(&self) -> [&End; 2] {
        [&self.src, &self.dst]
    }

    pub(crate) fn workloads(&self) -> impl Iterator<Item = &WorkloadRef> {
        self.ends()
            .into_iter()
            .filter_map(|end| end.workload.as_deref())
    }

    /// Of its ends, empty for a node, and of the Service that is asked for.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let service = self.dst.service.as_deref();
        let service = service.and_then(|it| it.split_once('/'));
        let ends = self.workloads().map(|end| &*end.namespace);
        ends.chain(service.map(|(namespace, _)| namespace))
    }

    pub(crate) fn is_of_namespace(&self, namespaces: &[String]) -> bool {
        let mut all = self.namespaces();
        all.any(|namespace| namespaces.iter().any(|it| it == namespace))
    }

    /// Whether one of its ends has an address of these.
    pub(crate) fn is_within(&self, networks: &[IpNet]) -> bool {
        let ips = self.ends().into_iter().filter_map(|end| end.ip);
        let mut pairs = ips.flat_map(|ip| networks.iter().map(move |network| (network, ip)));
        pairs.any(|(network, ip)| network.contains(&ip))
    }

    /// Whether one of its ends has all of these labels.
    pub(crate) fn has_labels<'a, L>(&self, labels: impl Fn() -> L) -> bool
    where
        L: Iterator<Item = (&'a String, &'a String)>,
    {
        self.workloads()
            .any(|end| labels().all(|(key, value)| end.labels.get(key) == Some(value)))
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.drop_reason.as_deref().or(self.reason.as_deref())
    }
}

// === impl WorkloadRef ===

fn is_empty(labels: &Arc<BTreeMap<String, String>>) -> bool {
    labels.is_empty()
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "node/{}", self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Via ===

impl Via {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
        }
    }
}

// === impl RuleRef ===

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} {}", self.name, self.rule)
    }
}

// === impl ProcessRef ===

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.comm, self.pid)
    }
}

// === impl Protocol ===

impl Protocol {
    /// Of a packet about which there is a reason, as a number: ARP is none of IP, and has 0.
    pub(crate) fn of(number: u8, reason: u8) -> Self {
        if number == 0 && reason == Reason::SpoofedNeighbour as u8 {
            return Self {
                number,
                name: Some(Cow::Borrowed("arp")),
            };
        }
        Self::new(number)
    }

    pub(crate) fn new(number: u8) -> Self {
        let name = match number {
            1 => Some("icmp"),
            6 => Some("tcp"),
            17 => Some("udp"),
            58 => Some("icmpv6"),
            132 => Some("sctp"),
            _ => None,
        };
        Self {
            number,
            name: name.map(Cow::Borrowed),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(&name.to_uppercase()),
            None => write!(f, "{}", self.number),
        }
    }
}

// === impl Kind ===

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::Update, Self::End, Self::Deny];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Update => "update",
            Self::End => "end",
            Self::Deny => "deny",
        }
    }
}

// === impl Direction ===

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

// === impl EndReason ===

impl EndReason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Revoked => "revoked",
            Self::Forced => "forced",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

// === impl LossRecord ===

impl LossRecord {
    pub(crate) fn new(node: Arc<str>, seq: Option<u64>, loss: Loss) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            seq,
            node,
            kind: LossKind::Loss,
            loss,
        }
    }
}

// === impl TamperRecord ===

impl TamperRecord {
    pub(crate) fn new(node: Arc<str>, seq: u64, tampering: Tampering) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            seq,
            node,
            kind: TamperKind::Tampering,
            tampering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/flow-record.md");

    /// The blocks of JSON on the page, without the white space that only people need.
    fn examples() -> Vec<String> {
        PAGE.split("```json\n")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once("```")?.0))
            .map(|block| block.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn the_page_shows_records_as_they_are_written() {
        let examples = examples();
        assert_eq!(examples.len(), 3);
        for example in examples {
            let line = Line::parse(&example).unwrap();
            assert_eq!(serde_json::to_string(&line).unwrap(), example);
        }
    }

    fn text(line: &Line) -> String {
        let mut text = Vec::new();
        line.write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_is_written_as_its_fields_say() {
        for example in examples() {
            assert_eq!(
                text(&Line::parse(&example).unwrap()),
                example.clone() + "\n"
            );
            // Without each of the keys that may be absent, and with them in a copy that is changed.
            let whole: serde_json::Map<_, _> = serde_json::from_str(&example).unwrap();
            for key in whole.keys() {
                let mut less = whole.clone();
                less.remove(key);
                for part in [
                    "ip",
                    "port",
                    "workload",
                    "service",
                    "name",
                    "start_time",
                    "exe",
                    "cgroup",
                    "container_id",
                    "dns_name",
                    "owner",
                    "via",
                ] {
                    for (_, value) in &mut less {
                        if let Some(object) = value.as_object_mut() {
                            object.remove(part);
                        }
                    }
                    let Ok(line) = Line::parse(&serde_json::to_string(&less).unwrap()) else {
                        continue;
                    };
                    let expected = serde_json::to_string(&line).unwrap() + "\n";
                    assert_eq!(text(&line), expected);
                    assert_eq!(text(&line.clone()), expected, "once more");
                }
            }
        }
    }

    #[test]
    fn the_page_describes_every_key() {
        for example in examples() {
            let value: serde_json::Value = serde_json::from_str(&example).unwrap();
            for key in value.as_object().unwrap().keys() {
                assert!(PAGE.contains(&format!("`{key}`")), "{key}");
            }
        }
        for reason in agent_common::verdict::Reason::ALL {
            let name = reason.name();
            let only_counted = name == "flow-table-full";
            assert!(
                only_counted || PAGE.contains(&format!("`{name}`")),
                "{name}"
            );
        }
    }
}
