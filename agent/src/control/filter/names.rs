//! What filters are typed and sent as. Each is text in both, and says what it should have been.

use std::{fmt, net::IpAddr, str::FromStr};

use agent_common::verdict::Reason;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::flow::record::{Protocol, RuleRef, WorkloadRef};

/// `NAMESPACE/NAME`, or `node/NAME` of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct WorkloadName {
    namespace: String,
    name: String,
}

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ServiceName(String);

/// `NAMESPACE/NAME`; or `NAME`, in any namespace or in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PolicyName {
    namespace: Option<String>,
    name: String,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Label {
    pub(super) key: String,
    pub(super) value: String,
}

/// A name, or `*.` and what those below it end with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct DnsPattern(String);

/// By its name or its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ProtocolNumber(pub(super) u8);

/// One that records may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ReasonName(Reason);

/// Forged ARP is recorded under a number that is no protocol's.
const ARP: &str = "arp";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFilter {
    #[error("{0:?} is not a workload: expected NAMESPACE/NAME")]
    Workload(String),
    #[error("{0:?} is not a Service: expected NAMESPACE/NAME")]
    Service(String),
    #[error("{0:?} is not a policy: expected NAMESPACE/NAME or NAME")]
    Policy(String),
    #[error("{0:?} is not a name: expected one as in api.example.com, or *.example.com")]
    DnsName(String),
    #[error("{0:?} is not a label: expected KEY=VALUE")]
    Label(String),
    #[error(
        "{0:?} is neither an address nor a network: expected one as in 10.0.0.7, fd00::7, 10.0.0.0/8 or fd00::/8"
    )]
    Network(String),
    #[error("{seen:?} has bits of hosts: expected {network}, or {address}")]
    Hosts {
        seen: String,
        network: IpNet,
        address: IpAddr,
    },
    #[error(
        "{0:?} is not a protocol: expected tcp, udp, icmp, icmpv6, sctp, arp or a number up to 255"
    )]
    Protocol(String),
    #[error("{seen:?} is not a reason: expected one of {}", known())]
    Reason { seen: String },
}

fn known() -> String {
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.join(", ")
}

/// An address is a network of its own.
pub(super) fn network(text: &str) -> Result<IpNet, InvalidFilter> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let wrong = |_| InvalidFilter::Network(text.to_owned());
    let network: IpNet = text.parse().map_err(wrong)?;
    if network.trunc() == network {
        return Ok(network);
    }
    Err(InvalidFilter::Hosts {
        seen: text.to_owned(),
        network: network.trunc(),
        address: network.addr(),
    })
}

/// Both of them, and neither empty.
fn in_namespace(text: &str) -> Option<(&str, &str)> {
    text.split_once('/')
        .filter(|(namespace, name)| !namespace.is_empty() && is_name(name))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

// === impl WorkloadName ===

impl WorkloadName {
    pub(super) fn is_of(&self, workload: &WorkloadRef) -> bool {
        // As tables have a node.
        let is_node = workload.namespace.is_empty() && self.namespace == "node";
        workload.name == self.name && (is_node || workload.namespace == self.namespace)
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) =
            in_namespace(text).ok_or_else(|| InvalidFilter::Workload(text.to_owned()))?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl ServiceName ===

impl ServiceName {
    pub(super) fn is(&self, name: &str) -> bool {
        self.0 == name
    }
}

impl FromStr for ServiceName {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match in_namespace(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(InvalidFilter::Service(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl PolicyName ===

impl PolicyName {
    pub(super) fn is_of(&self, rule: &RuleRef) -> bool {
        rule.name == self.name && (self.namespace.is_none() || rule.namespace == self.namespace)
    }
}

impl FromStr for PolicyName {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match in_namespace(text) {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None if is_name(text) => (None, text),
            None => return Err(InvalidFilter::Policy(text.to_owned())),
        };
        Ok(Self {
            namespace,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

// === impl DnsPattern ===

impl DnsPattern {
    pub(super) fn is(&self, name: &str) -> bool {
        let Self(pattern) = self;
        match pattern.strip_prefix('*') {
            // With its dot.
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => name == pattern,
        }
    }
}

impl FromStr for DnsPattern {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pattern = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = pattern.strip_prefix("*.").unwrap_or(&pattern);
        if name.is_empty() || name.starts_with('.') || name.contains('*') {
            return Err(InvalidFilter::DnsName(text.to_owned()));
        }
        Ok(Self(pattern))
    }
}

impl fmt::Display for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pattern) = self;
        f.write_str(pattern)
    }
}

// === impl Label ===

impl Label {
    pub(super) fn pair(&self) -> (&String, &String) {
        (&self.key, &self.value)
    }
}

impl FromStr for Label {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(InvalidFilter::Label(text.to_owned())),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

// === impl ProtocolNumber ===

impl FromStr for ProtocolNumber {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        if name == ARP {
            return Ok(Self(0));
        }
        let has_name = |number: &u8| Protocol::new(*number).name.is_some_and(|it| it == name);
        let number = (0..=u8::MAX).find(has_name).or_else(|| text.parse().ok());
        let number = number.ok_or_else(|| InvalidFilter::Protocol(text.to_owned()))?;
        Ok(Self(number))
    }
}

impl fmt::Display for ProtocolNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, Protocol::new(self.0).name) {
            (0, _) => f.write_str(ARP),
            (_, Some(name)) => f.write_str(&name),
            (number, None) => write!(f, "{number}"),
        }
    }
}

// === impl ReasonName ===

impl ReasonName {
    pub(super) fn is(self, reason: &str) -> bool {
        self.0.name() == reason
    }
}

impl FromStr for ReasonName {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reasons = Reason::ALL.iter();
        let reason = reasons.find(|reason| reason.name() == text);
        reason
            .map(|reason| Self(*reason))
            .ok_or_else(|| InvalidFilter::Reason {
                seen: text.to_owned(),
            })
    }
}

impl fmt::Display for ReasonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// As text on the wire.
macro_rules! as_text {
    ($( $name:ident )*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidFilter;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    )*};
}

as_text! { DnsPattern WorkloadName ServiceName PolicyName Label ProtocolNumber ReasonName }
