//! The world as policies see it: validated objects, nothing resolved yet.
//!
//! Parsers make these values, the compiler and the reference evaluator read them. There is no
//! matching logic here on purpose: the two evaluators share the facts, never the reasoning.

mod inventory;
mod objects;
mod policy;
mod time;
mod world;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{
    inventory::{
        Backend, EndpointSpec, NamedPort, Node, PortName, Protocol, Service, ServicePort, Workload,
        WorkloadKind,
    },
    objects::Objects,
    policy::{
        Denied, Failsafe, IcmpVersion, Mode, NamespaceScope, NetworkPolicy, Peer, Peers, PolicyId,
        PolicyKind, PortMatch, PortSpec, Ports, Requirement, Rule, Selector, Subjects, Terms, Tier,
        TierAction, TierPolicy, TierRule,
    },
    time::{Schedule, Time, TimeError, Weekday, When, Window},
    world::{Change, World},
};

/// Where a value was written, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// As given on the command line, or below the folder given there.
    pub file: Arc<str>,
    /// 1-based.
    pub line: u32,
}

/// `NAMESPACE/NAME` of a pod, a workload or a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// Whose traffic is judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectName {
    Workload(ObjectName),
    /// A node as a whole: what uses one of its own addresses.
    Node(String),
}

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

// === impl ObjectName ===

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl SubjectName ===

impl SubjectName {
    pub fn workload(&self) -> Option<&ObjectName> {
        match self {
            Self::Workload(name) => Some(name),
            Self::Node(_) => None,
        }
    }
}

impl From<ObjectName> for SubjectName {
    fn from(name: ObjectName) -> Self {
        Self::Workload(name)
    }
}

/// As people type it: `NAMESPACE/NAME`, or `node/NAME`.
impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name) => name.fmt(f),
            Self::Node(name) => write!(f, "node/{name}"),
        }
    }
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

// === impl Direction ===

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}
