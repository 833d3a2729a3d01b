//! What an agent says of itself.

mod kubernetes;

use std::collections::BTreeMap;

use agent_policy::model::{Failsafe, IcmpVersion, Peer, Peers, PortMatch, PortSpec, Ports};
use serde::{Deserialize, Serialize};

pub(crate) use self::kubernetes::{KubernetesStatus, WatchStatus};
use crate::{
    flow::{clock::WallTime, names::NameStatus, stage::StageCounts},
    hubble::HubbleStatus,
};

/// The daemon provides it, the control socket hands it out, `ringfence status` renders it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) agent_version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_s: u64,
    pub(crate) node: String,
    /// Of the policy that is in force.
    pub(crate) generation: u32,
    pub(crate) enforcing: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) last_load: Option<Load>,
    /// Absent if the API is not asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) kubernetes: Option<KubernetesStatus>,
    /// How many are in force, by kind.
    #[serde(default)]
    pub(crate) policies: BTreeMap<String, usize>,
    /// When some answer changes by itself, as RFC 3339; absent if none ever does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) next_change: Option<String>,
    /// What no policy can deny to this node and to what shares its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) failsafe: Vec<FailsafeStatus>,
    pub(crate) endpoints: Vec<EndpointStatus>,
    /// Interfaces that are workloads' by the settings, while nobody knows whose; absent if the settings name
    /// none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) unknown_interfaces: Option<UnknownLinks>,
    pub(crate) tables: Vec<TableFill>,
    pub(crate) events: EventCounts,
    /// Whether records name processes.
    #[serde(default)]
    pub(crate) processes: ProcessStatus,
    /// Dropped packets by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Permitted packets for whose flows the table had no room: their replies had to be permitted
    /// by a rule of their own.
    #[serde(default)]
    pub(crate) unremembered: u64,
    /// Answers to denied packets.
    #[serde(default)]
    pub(crate) rejections: RejectionSums,
    /// Records of flows of which policies in audit, or staged ones, say something else, by what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) would_be: BTreeMap<String, u64>,
    /// What others did to programs, links and tables, by kind; kinds that were not seen are left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) tampered: BTreeMap<String, u64>,
    pub(crate) records: RecordCounts,
    /// What resolvers have said.
    #[serde(default)]
    pub(crate) names: NameStatus,
    /// Absent without Hubble's API.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) hubble: Option<HubbleStatus>,
    /// What the agent may do.
    #[serde(default)]
    pub(crate) privileges: PrivilegeStatus,
    pub(crate) features: Vec<Feature>,
}

/// The last time that policy was read, whether or not it came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) at: WallTime,
    /// If not, what was in force before still is.
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) errors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointStatus {
    /// `NAMESPACE/NAME`, or `node/NAME`.
    pub(crate) name: String,
    /// As the endpoint was declared, such as `interface veth-api`.
    pub(crate) spec: String,
    pub(crate) state: EndpointState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) hook: Option<Hook>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cgroup_id: Option<u64>,
    /// Policies that select it.
    pub(crate) policies: usize,
    /// Its dropped packets by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) drops: BTreeMap<String, u64>,
    /// Its part of [`Status::unremembered`].
    #[serde(default)]
    pub(crate) unremembered: u64,
    /// What of its traffic no policy is asked about, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) unjudged: Vec<String>,
    /// Its part of [`Status::rejections`].
    #[serde(default)]
    pub(crate) rejections: RejectionSums,
    /// What is amiss, or what is waited for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnknownLinks {
    /// `strict` or `compatible`.
    pub(crate) mode: String,
    pub(crate) interfaces: Vec<UnknownLink>,
    /// Their dropped packets by reason, all interfaces together; those of packets that no one endpoint is to
    /// answer for are among them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) drops: BTreeMap<String, u64>,
    /// Their packets that have passed.
    #[serde(default)]
    pub(crate) observed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnknownLink {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) state: UnknownState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) hook: Option<Hook>,
    /// Why it is left alone, or what is amiss.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnknownState {
    /// Everything is dropped.
    Denied,
    /// Everything passes, and is counted.
    Observed,
    /// It is the node's.
    LeftAlone,
    Failed,
}

/// What senders of denied packets were told by a packet: a TCP reset or an ICMP error; and who was asked to send one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RejectionSums {
    pub(crate) sent: u64,
    /// Not sent, because there were more than may be.
    pub(crate) suppressed: u64,
    /// How often idle ends of connections that are no longer permitted were asked to speak, so that they are told.
    #[serde(default)]
    pub(crate) prompted: u64,
}

/// An entry of the settings that ranks above all policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailsafeStatus {
    pub(crate) name: String,
    /// `ingress` or `egress`.
    pub(crate) direction: String,
    /// Networks; absent if any peer will do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peers: Option<Vec<String>>,
    /// Such as `TCP/22` and `UDP/67-68`; absent if any port of any protocol will do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ports: Option<Vec<String>>,
}

/// The better, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndpointState {
    Attached,
    /// Its interface, namespace or cgroup does not exist yet.
    Waiting,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hook {
    Tcx,
    Clsact,
    Cgroup,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableFill {
    pub(crate) name: String,
    pub(crate) used: u64,
    pub(crate) capacity: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventCounts {
    pub(crate) seen: u64,
    pub(crate) lost: u64,
}

/// Whether it is noted whose sockets are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessStatus {
    pub(crate) noted: bool,
    /// Sockets that had no room for it, since the tables were made.
    pub(crate) lost: u64,
    /// What records do not say, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) messages: Vec<String>,
}

/// What an agent has kept of its privileges, and who does what it may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivilegeStatus {
    /// Such as `CAP_BPF`.
    pub(crate) capabilities: Vec<String>,
    /// Who enters network namespaces; absent if nobody does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) helper: Option<HelperStatus>,
    /// What is missing, or why there is more than usual.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) messages: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HelperStatus {
    /// Its process; absent until the next one has taken the place of one that has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pid: Option<u32>,
    /// How often one has taken the place of another.
    pub(crate) restarts: u64,
    /// No other will come before the agent is restarted.
    pub(crate) ended: bool,
}

/// Of the stream of records, and of each sink it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordCounts {
    pub(crate) stream: StageCounts,
    /// By target, such as a path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) sinks: BTreeMap<String, StageCounts>,
}

/// Something that a kernel may lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Feature {
    pub(crate) name: String,
    pub(crate) available: bool,
    /// What its lack means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) note: Option<String>,
}

// === impl FailsafeStatus ===

impl FailsafeStatus {
    pub(crate) fn of(failsafe: &Failsafe) -> Self {
        let Failsafe {
            name,
            direction,
            peers,
            ports,
            source: _,
        } = failsafe;
        Self {
            name: name.clone(),
            direction: direction.to_string(),
            peers: match peers {
                Peers::Every => None,
                Peers::Listed(peers) => Some(peers.iter().map(peer).collect()),
            },
            ports: match ports {
                Ports::Every => None,
                Ports::Listed(ports) => Some(ports.iter().map(port).collect()),
            },
        }
    }
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        // Failsafe entries have nothing else.
        other => format!("{other:?}"),
    }
}

fn port(port: &PortMatch) -> String {
    match port {
        PortMatch::Transport { protocol, port } => match port {
            PortSpec::Every => protocol.to_string(),
            PortSpec::Range { first, last } if first == last => format!("{protocol}/{first}"),
            PortSpec::Range { first, last } => format!("{protocol}/{first}-{last}"),
            PortSpec::Name(name) => format!("{protocol}/{name}"),
        },
        PortMatch::Named(name) => name.clone(),
        PortMatch::Icmp {
            version,
            kind,
            code,
        } => {
            let version = match version {
                IcmpVersion::V4 => "ICMP",
                IcmpVersion::V6 => "ICMPv6",
            };
            match (kind, code) {
                (None, _) => version.to_owned(),
                (Some(kind), None) => format!("{version}/{kind}"),
                (Some(kind), Some(code)) => format!("{version}/{kind}/{code}"),
            }
        }
        PortMatch::Protocol(number) => format!("protocol {number}"),
    }
}

// === impl EndpointState ===

impl EndpointState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

// === impl UnknownState ===

impl UnknownState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Observed => "observed",
            Self::LeftAlone => "left alone",
            Self::Failed => "failed",
        }
    }
}

// === impl Hook ===

impl Hook {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Cgroup => "cgroup",
        }
    }
}
