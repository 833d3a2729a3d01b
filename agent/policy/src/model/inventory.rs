//! Who lives where: workloads, nodes and Services.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Labels, ObjectName, Source};

/// Anything with labels and addresses that policies select, as subject and as peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub name: ObjectName,
    pub kind: WorkloadKind,
    /// Shared by those that have the same: replicas, of which there are many.
    pub labels: Arc<Labels>,
    pub addresses: BTreeSet<IpAddr>,
    pub ports: Vec<NamedPort>,
    /// Who keeps it up, as `KIND/NAME`: of a pod. It has no part in what policy means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<Arc<str>>,
    /// The node it runs on, where that is known.
    pub node: Option<String>,
    /// Shares its node's addresses: never a subject of the kinds of Kubernetes, and as a peer it is
    /// its node.
    pub host_network: bool,
    /// Takes what a Service sends it. A pod that says it is not ready does not.
    pub ready: bool,
    /// The point of enforcement; only on the node where it runs.
    pub endpoint: Option<EndpointSpec>,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkloadKind {
    Pod,
    Workload,
}

/// How an endpoint is found on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub labels: Arc<Labels>,
    pub addresses: BTreeSet<IpAddr>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: ObjectName,
    /// `None`: the backends are made by hand.
    pub selector: Option<Labels>,
    /// Where it is reached by `port`: its cluster, external and load-balancer addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Of these, those that the cluster gave it: nobody else has them, while whoever may write a Service may claim any other.
    #[serde(default)]
    pub cluster: BTreeSet<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// Pods serve although they are not ready.
    pub publish_not_ready: bool,
    /// It has one of the labels [`Service::OTHER_PROXY`].
    #[serde(default)]
    pub other_proxy: bool,
    /// What serves beside those that the selector matches, made by hand; as far as that is known.
    pub by_hand: BTreeSet<Backend>,
    /// What served last, of the ports that nothing serves now. Empty where that is not known.
    pub last: BTreeSet<Backend>,
    pub source: Source,
}

impl Service {
    /// With one of these labels it is for another proxy than that of Kubernetes, which leaves it alone.
    pub const OTHER_PROXY: [&str; 2] = [
        "service.kubernetes.io/service-proxy-name",
        "service.kubernetes.io/headless",
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub port: u16,
    pub target: PortName,
    /// Where it is reached on every node's own addresses.
    pub node_port: Option<u16>,
}

/// An address and port that serves a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// The port of the Service.
    pub service_port: u16,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
}

/// A port by number or by the name that the destination gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortName {
    Number(u16),
    Name(String),
}

/// The transport protocols that Kubernetes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
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

// === impl Backend ===

impl Backend {
    /// Whether it serves this port of its Service.
    pub fn serves(&self, port: &ServicePort) -> bool {
        self.service_port == port.port && self.protocol == port.protocol
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
