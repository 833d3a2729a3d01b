//! The world as policies see it: validated objects, nothing resolved yet.
//!
//! Parsers make these values, the compiler and the reference evaluator read them. There is no
//! matching logic here on purpose: the two evaluators share the facts, never the reasoning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

/// Where a value was written, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Source {
    /// As given on the command line, or below the folder given there.
    pub file: Arc<str>,
    /// 1-based.
    pub line: u32,
}

/// `NAMESPACE/NAME` of a pod, a workload or a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

pub type Labels = BTreeMap<String, String>;

/// Everything the policies of a cluster, or of a plain host, speak about.
///
/// Invariants, kept by the loader: every namespace that an object names is in `namespaces` and
/// carries `kubernetes.io/metadata.name`; `addresses` maps each address to the one workload that
/// owns it (host-network pods and workloads by cgroup own none: as a peer they are their node).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub namespaces: BTreeMap<String, Labels>,
    pub workloads: BTreeMap<ObjectName, Workload>,
    pub nodes: BTreeMap<String, Node>,
    pub services: BTreeMap<ObjectName, Service>,
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    pub addresses: BTreeMap<IpAddr, ObjectName>,
}

/// Anything with labels and addresses that policies select, as subject and as peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: ObjectName,
    pub kind: WorkloadKind,
    pub labels: Labels,
    pub addresses: BTreeSet<IpAddr>,
    pub ports: Vec<NamedPort>,
    /// The node it runs on, where that is known.
    pub node: Option<String>,
    /// Shares its node's addresses: never a subject of `NetworkPolicy`, and as a peer it is its node.
    pub host_network: bool,
    /// The point of enforcement; only on the node where it runs.
    pub endpoint: Option<EndpointSpec>,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WorkloadKind {
    Pod,
    Workload,
}

/// How an endpoint is found on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointSpec {
    /// The host side of its interface.
    Interface(String),
    /// A network namespace by path; the host side of its interface is found from it.
    Netns(String),
    /// A cgroup by its path below the cgroup2 root.
    Cgroup(String),
    SystemdUnit(String),
}

/// A port that a workload gave a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub labels: Labels,
    pub addresses: BTreeSet<IpAddr>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    pub selector: Option<Labels>,
    pub cluster_ips: BTreeSet<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub port: u16,
    pub target: PortName,
}

/// A port by number or by the name that the destination gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortName {
    Number(u16),
    Name(String),
}

/// `NetworkPolicy` of `networking.k8s.io/v1`, its defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub name: ObjectName,
    pub subject: Selector,
    /// `None`: the policy does not speak about ingress. `Some(vec![])`: nothing may come in.
    pub ingress: Option<Vec<Rule>>,
    /// `None`: the policy does not speak about egress. `Some(vec![])`: nothing may go out.
    pub egress: Option<Vec<Rule>>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub peers: Peers,
    pub ports: Ports,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Missing or empty `from`/`to`.
    Every,
    /// Never empty.
    Listed(Vec<Peer>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    Workloads {
        namespaces: NamespaceScope,
        workloads: Selector,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// No `namespaceSelector`: the namespace of the policy, spelled out.
    Named(String),
    Matching(Selector),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Missing or empty `ports`: every port of every protocol, ICMP included.
    Every,
    /// Never empty.
    Listed(Vec<PortMatch>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    pub protocol: Protocol,
    pub port: PortSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSpec {
    Every,
    /// Both ends included, `first <= last`, `first >= 1`.
    Range {
        first: u16,
        last: u16,
    },
    /// Resolved on the destination, per workload, protocol included.
    Name(String),
}

/// A label selector; all requirements must hold, none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// `matchLabels` is `In` with one value.
    In {
        key: String,
        values: BTreeSet<String>,
    },
    /// Also matches where the key is absent.
    NotIn {
        key: String,
        values: BTreeSet<String>,
    },
    Exists {
        key: String,
    },
    /// Also known as: the key is absent.
    DoesNotExist {
        key: String,
    },
}

/// The transport protocols that Kubernetes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

// === impl Workload ===

impl Workload {
    /// Whether an address leads to this workload alone.
    ///
    /// A host-network pod and a workload known by its cgroup share their node's addresses.
    pub fn owns_its_addresses(&self) -> bool {
        !self.host_network
            && !matches!(
                self.endpoint,
                Some(EndpointSpec::Cgroup(_) | EndpointSpec::SystemdUnit(_))
            )
    }
}

// === impl EndpointSpec ===

impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Netns(path) => write!(f, "netns {path}"),
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::SystemdUnit(unit) => write!(f, "unit {unit}"),
        }
    }
}

// === impl NetworkPolicy ===

impl NetworkPolicy {
    /// The rules of a direction, or `None` where the policy does not isolate it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The protocol number that IANA assigned.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
