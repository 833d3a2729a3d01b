//! What the compiler makes: the tables of the kernel, as values.
//!
//! The same [`decide`] that runs in the kernel answers over these maps, so that every question
//! asked on files gets the answer that the packet path would give.

mod everywhere;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use self::everywhere::Everywhere;
use agent_common::{
    decide::{Question as PacketQuestion, Tables, decide},
    table::{
        self, Decision, Endpoint, NO_SOCKET, NO_TABLE, PolicyKey, PortKey, SocketKey, Versioned,
        WORLD, Word,
    },
    verdict::Verdict,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::{
    model::{Direction, ObjectName, PolicyId, Source, SubjectName, Terms, Time},
    question::{Origin, Question, RuleId, View},
};

/// The compiled state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Identities of peers. A prefix stands here only if the prefix around it says otherwise.
    pub prefixes: BTreeMap<IpNet, u32>,
    /// Who workloads are to one another over loopback: (whose socket, the identity of the address) →
    /// identity, where it is not that of the address. Only those that share the node's addresses.
    pub sockets: BTreeMap<Socket, u32>,
    /// (policy set, direction, identity) → port table, where it is not that of [`WORLD`].
    pub policy: BTreeMap<PolicyKey, u32>,
    /// Immutable: a number never leads to other content.
    pub port_tables: BTreeMap<u32, PortTable>,
    pub subjects: BTreeMap<SubjectName, Subject>,
    pub rules: BTreeMap<u32, RuleOrigin>,
    /// When some answer changes by itself: the tables know the next one, but not those after it.
    pub next_change: Option<Time>,
}

/// A workload at an address that it shares with its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    pub workload: ObjectName,
    /// The identity of the address, without [`THIS_NODE`](table::THIS_NODE).
    pub identity: u32,
}

/// Whom policies judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The policy set that decides.
    pub set: u32,
    /// The set with the policies in audit too, if there are any.
    pub audit: Option<u32>,
    /// The set with the staged policies too, if there are any.
    pub staged: Option<u32>,
    /// Flags of [`Endpoint`].
    pub flags: u16,
    pub addresses: BTreeSet<IpAddr>,
    /// The policies that select it, in order of rank.
    pub policies: Vec<PolicyId>,
}

/// What time it is, and how the kernel tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    pub now: Time,
    /// When the boot clock stood at zero. Kept until the wall clock is set: what the tables hold
    /// hangs on it.
    pub boot: Time,
}

/// Tables at a moment.
#[derive(Clone, Copy, Debug)]
pub struct At<'c> {
    pub compiled: &'c Compiled,
    /// Nanoseconds of the boot clock.
    pub boot_nanos: u64,
    /// Whose socket stands for any number but [`NO_SOCKET`].
    socket: Option<&'c ObjectName>,
}

/// The number of the one socket that a question can be about.
const THE_SOCKET: u32 = 1;

/// Disjoint ranges of ports, as prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortTable(pub Vec<PortEntry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortEntry {
    /// Bits of a [`PortKey`] that count.
    pub bits: u32,
    pub protocol: u8,
    pub port: u16,
    pub decision: Decision,
}

/// Where a rule was written, and what was said with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOrigin {
    pub id: RuleId,
    pub rank: Rank,
    /// What its author calls it.
    pub name: Option<String>,
    pub terms: Terms,
    pub source: Source,
}

/// What decides before what: failsafe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rank {
    Failsafe,
    Quarantine,
    Admin,
    NetworkPolicy,
    Baseline,
}

impl Compiled {
    /// The identity of the longest prefix that covers `address`.
    pub fn identity_of(&self, address: IpAddr) -> u32 {
        let widest = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        (0..=widest)
            .rev()
            .filter_map(|bits| IpNet::new(address, bits).ok())
            .find_map(|prefix| self.prefixes.get(&prefix.trunc()).copied())
            .unwrap_or(WORLD)
    }

    fn table_for(&self, key: &PolicyKey) -> Versioned {
        Versioned::settled(self.policy.get(key).copied().unwrap_or(NO_TABLE))
    }

    fn decision_for(&self, key: PortKey) -> Decision {
        let number = u32::from_be_bytes(key.table);
        let port = u16::from_be_bytes(key.port);
        self.port_tables
            .get(&number)
            .map_or(Decision::NO_MATCH, |table| {
                table.decision(key.protocol, port)
            })
    }
}

impl Subject {
    /// The policy sets of all views.
    pub fn sets(&self) -> impl Iterator<Item = u32> {
        [Some(self.set), self.audit, self.staged]
            .into_iter()
            .flatten()
    }

    /// The policy set of a view; without policies of its own, a view is the live one.
    pub fn set_of(&self, view: View) -> u32 {
        match view {
            View::Live => self.set,
            View::Audit => self.audit.unwrap_or(self.set),
            View::Staged => self.staged.unwrap_or(self.set),
        }
    }
}

impl Clock {
    /// Nanoseconds of the boot clock at a moment; 0 for one before it began.
    pub fn boot_nanos(&self, time: Time) -> u64 {
        let seconds = time.unix().saturating_sub(self.boot.unix());
        u64::try_from(seconds)
            .unwrap_or_default()
            .saturating_mul(1_000_000_000)
    }
}

impl<'c> At<'c> {
    pub fn new(compiled: &'c Compiled, boot_nanos: u64) -> Self {
        Self {
            compiled,
            boot_nanos,
            socket: None,
        }
    }

    fn identity_of_socket(&self, identity: u32) -> Versioned {
        let of = |workload: &ObjectName| {
            let workload = workload.clone();
            let sockets = &self.compiled.sockets;
            sockets.get(&Socket { workload, identity }).copied()
        };
        Versioned::settled(self.socket.and_then(of).unwrap_or(identity))
    }

    /// The verdict for the flow that a question is about, of a subject of these tables. The question's
    /// own subject and time are not looked at.
    pub fn decide(&self, subject: &Subject, question: &Question) -> Verdict {
        let Question {
            subject: _,
            direction,
            peer,
            ref socket,
            protocol,
            port,
            origin,
            view,
            at: _,
        } = *question;
        let tables = At {
            socket: socket.as_ref(),
            ..*self
        };
        let socket = socket.as_ref().map_or(NO_SOCKET, |_| THE_SOCKET);
        let made_here = origin == Origin::ThisNode;
        let endpoint = Endpoint {
            id: 1,
            flags: subject.flags,
        };
        let word = Word::new(subject.set_of(view), 1);
        let direction = match direction {
            Direction::Ingress => table::Direction::Ingress,
            Direction::Egress => table::Direction::Egress,
        };
        // Which of its addresses the subject uses matters only where the peer is that address.
        let is_own = peer.is_loopback() || subject.addresses.contains(&peer);
        match peer {
            IpAddr::V4(peer) => {
                let peer = peer.octets();
                let local = if is_own { peer } else { peer.map(|byte| !byte) };
                decide(
                    &tables,
                    &PacketQuestion {
                        endpoint,
                        word,
                        direction,
                        local,
                        peer,
                        socket,
                        protocol,
                        port,
                        made_here,
                    },
                )
            }
            IpAddr::V6(peer) => {
                let peer = peer.octets();
                let local = if is_own { peer } else { peer.map(|byte| !byte) };
                decide(
                    &tables,
                    &PacketQuestion {
                        endpoint,
                        word,
                        direction,
                        local,
                        peer,
                        socket,
                        protocol,
                        port,
                        made_here,
                    },
                )
            }
        }
    }
}

impl Tables<[u8; 4]> for At<'_> {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        Versioned::settled(self.compiled.identity_of(IpAddr::from(*address)))
    }

    fn socket(&self, key: &SocketKey) -> Versioned {
        self.identity_of_socket(key.identity)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.compiled.table_for(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.compiled.decision_for(*key)
    }

    fn now(&self) -> u64 {
        self.boot_nanos
    }
}

impl Tables<[u8; 16]> for At<'_> {
    fn identity(&self, address: &[u8; 16]) -> Versioned {
        Versioned::settled(self.compiled.identity_of(IpAddr::from(*address)))
    }

    fn socket(&self, key: &SocketKey) -> Versioned {
        self.identity_of_socket(key.identity)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.compiled.table_for(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.compiled.decision_for(*key)
    }

    fn now(&self) -> u64 {
        self.boot_nanos
    }
}

impl PortTable {
    /// The decision of the longest prefix that covers a port; [`Decision::NO_MATCH`] if none does.
    pub fn decision(&self, protocol: u8, port: u16) -> Decision {
        self.0
            .iter()
            .filter(|entry| entry.covers(protocol, port))
            .max_by_key(|entry| entry.bits)
            .map_or(Decision::NO_MATCH, |entry| entry.decision)
    }
}

impl PortEntry {
    /// The key of this entry in table `number`.
    pub fn key(&self, number: u32) -> PortKey {
        PortKey::new(number, self.protocol, self.port)
    }

    fn covers(&self, protocol: u8, port: u16) -> bool {
        if self.bits == PortKey::TABLE_BITS {
            return true;
        }
        let free = PortKey::PORT_BITS.saturating_sub(self.bits).min(16);
        self.protocol == protocol && u32::from(self.port) >> free == u32::from(port) >> free
    }
}

// === impl Rank ===

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Failsafe => "Failsafe",
            Self::Quarantine => "Quarantine",
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        })
    }
}

/// The address as a prefix of its own.
pub fn host_prefix(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::from(address)),
    }
}
