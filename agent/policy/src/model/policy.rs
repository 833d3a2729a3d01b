//! What policies say: `NetworkPolicy`, the policies of tiers, and what they are made of.

use std::{collections::BTreeSet, fmt, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Direction, ObjectName, Protocol, Source, When};

/// Any policy by its kind and name. Sorts in the order of attribution within a tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId {
    pub kind: PolicyKind,
    /// Of a `NetworkPolicy`; the others are of the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// An entry of the agent's configuration.
    Failsafe,
    NetworkPolicy,
    ClusterNetworkPolicy,
    RingfencePolicy,
}

/// `NetworkPolicy` of `networking.k8s.io/v1`, its defaults applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    pub name: ObjectName,
    pub subject: Selector,
    /// `None`: the policy does not speak about ingress. `Some(vec![])`: nothing may come in.
    pub ingress: Option<Vec<Rule>>,
    /// `None`: the policy does not speak about egress. `Some(vec![])`: nothing may go out.
    pub egress: Option<Vec<Rule>>,
    pub terms: Terms,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    pub peers: Peers,
    pub ports: Ports,
    pub source: Source,
}

/// A policy whose rules are ranked: `ClusterNetworkPolicy`, or the kind of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPolicy {
    pub id: PolicyId,
    pub tier: Tier,
    /// 0 to 1000, the lower the earlier; of equal ones, the name decides, then the kind.
    pub priority: u16,
    pub subjects: Subjects,
    pub ingress: Vec<TierRule>,
    pub egress: Vec<TierRule>,
    /// When the policy exists at all. Each of its rules exists when both say so.
    pub when: When,
    pub terms: Terms,
    pub source: Source,
}

/// The ranks of ranked policies, from the highest. Failsafe is above, `NetworkPolicy` is between
/// Admin and Baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Denies everything in both directions: each direction is one rule that says so.
    Quarantine,
    Admin,
    Baseline,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TierRule {
    pub name: Option<String>,
    pub action: TierAction,
    pub peers: Peers,
    pub ports: Ports,
    pub when: When,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TierAction {
    Accept,
    Deny,
    /// Leaves the tier.
    Pass,
}

/// Who a ranked policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subjects {
    Workloads {
        namespaces: Selector,
        workloads: Selector,
        /// Whether those on their node's network count, which they never do for the kinds of
        /// Kubernetes.
        host_network: bool,
    },
    /// Workloads that are these systemd units.
    Units(BTreeSet<String>),
    /// Workloads that are these cgroups, by path below the cgroup2 root.
    Cgroups(BTreeSet<String>),
    /// Nodes as a whole.
    Nodes(Selector),
}

/// What a policy says beside its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Terms {
    pub mode: Mode,
    pub denied: Denied,
    pub reason: Option<String>,
    pub approved_by: Option<String>,
    pub owner: Option<String>,
    /// Which of its versions it is, as whoever keeps it counts them: `metadata.generation`.
    #[serde(default)]
    pub revision: Option<u64>,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Decides nothing; what it would deny is reported.
    Audit,
    /// Decides nothing; what would change with it is reported.
    Staged,
}

/// What a denied peer gets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Denied {
    /// Silence.
    #[default]
    Drop,
    /// A refusal at once.
    Reject,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peers {
    /// Missing or empty `from`/`to`.
    Every,
    /// Any of these; nobody, if there is none. Shared by whoever works with the rule: there may be a
    /// hundred thousand.
    Listed(Arc<[Peer]>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    Workloads {
        namespaces: NamespaceScope,
        workloads: Selector,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// Every address of the nodes that match.
    Nodes(Selector),
    /// Every address of the subject's own node.
    OwnNode,
    /// Every address that a `NameTable` gives the name; in lower case, without a final dot. A
    /// leading `*.` stands for one or more labels.
    Domain(String),
    /// Those whose socket is at the other end, over the loopback of the node that both share. Never
    /// nodes.
    Local(Subjects),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NamespaceScope {
    /// No `namespaceSelector`: the namespace of the policy, spelled out.
    Named(String),
    Matching(Selector),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ports {
    /// Missing or empty `ports`: every port of every protocol, ICMP included.
    Every,
    /// Never empty.
    Listed(Vec<PortMatch>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortMatch {
    Transport {
        protocol: Protocol,
        port: PortSpec,
    },
    /// What the destination calls so, whatever the protocol.
    Named(String),
    Icmp {
        version: IcmpVersion,
        /// `None`: every type.
        kind: Option<u8>,
        /// `None`: every code. Never there without a type.
        code: Option<u8>,
    },
    /// All of a protocol, by the number that IANA assigned.
    Protocol(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IcmpVersion {
    V4,
    V6,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// What no policy can deny to a subject that shares its node's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failsafe {
    pub name: String,
    pub direction: Direction,
    /// Blocks only.
    pub peers: Peers,
    pub ports: Ports,
    pub source: Source,
}

// === impl PolicyId ===

impl PolicyId {
    pub fn network_policy(name: &ObjectName) -> Self {
        let ObjectName { namespace, name } = name;
        Self {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(namespace.clone()),
            name: name.clone(),
        }
    }

    pub fn cluster_wide(kind: PolicyKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }
}

/// `NAMESPACE/NAME`, or the name alone.
impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

// === impl PolicyKind ===

impl PolicyKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Failsafe => "Failsafe",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::RingfencePolicy => "RingfencePolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Peers ===

impl Peers {
    pub fn listed(peers: Vec<Peer>) -> Self {
        Self::Listed(peers.into())
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

// === impl TierPolicy ===

impl TierPolicy {
    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

// === impl IcmpVersion ===

impl IcmpVersion {
    /// The protocol number that IANA assigned.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }
}
