//! What the compiler makes: the tables of the kernel, as values.
//!
//! The same [`decide`] that runs in the kernel answers over these maps, so that every question
//! asked on files gets the answer that the packet path would give.

mod everywhere;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::{
    decide::{Question as PacketQuestion, Tables, decide},
    table::{self, Decision, Endpoint, NO_TABLE, PolicyKey, PortKey, Versioned, WORLD, Word},
    verdict::{Action, RuleId, Verdict},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::everywhere::Everywhere;
use crate::model::{Direction, ObjectName, Source};

/// The compiled state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Identities of peers. A prefix stands here only if the prefix around it says otherwise.
    pub prefixes: BTreeMap<IpNet, u32>,
    /// (policy set, direction, identity) → port table, where it is not that of [`WORLD`].
    pub policy: BTreeMap<PolicyKey, u32>,
    /// Immutable: a number never leads to other content.
    pub port_tables: BTreeMap<u32, PortTable>,
    pub subjects: BTreeMap<ObjectName, Subject>,
    pub rules: BTreeMap<u32, RuleOrigin>,
}

/// A workload that policies judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub set: u32,
    /// Flags of [`Endpoint`].
    pub flags: u16,
    pub addresses: BTreeSet<IpAddr>,
    /// The policies that select it, in order.
    pub policies: Vec<ObjectName>,
}

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

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOrigin {
    pub policy: ObjectName,
    pub direction: Direction,
    pub index: u32,
    pub source: Source,
}

impl Compiled {
    /// The verdict for a new flow of `subject`; `None` if it is not a subject here.
    pub fn decide(
        &self,
        subject: &ObjectName,
        direction: Direction,
        peer: IpAddr,
        protocol: u8,
        port: u16,
        made_here: bool,
    ) -> Option<Verdict> {
        let Subject {
            set,
            flags,
            addresses,
            ..
        } = self.subjects.get(subject)?;
        let endpoint = Endpoint {
            id: 1,
            flags: *flags,
        };
        let word = Word::new(*set, 1);
        let direction = match direction {
            Direction::Ingress => table::Direction::Ingress,
            Direction::Egress => table::Direction::Egress,
        };
        // Which of its addresses the subject uses matters only where the peer is that address.
        let is_own = addresses.contains(&peer);
        Some(match peer {
            IpAddr::V4(peer) => {
                let peer = peer.octets();
                let local = if is_own { peer } else { peer.map(|byte| !byte) };
                decide(
                    self,
                    &PacketQuestion {
                        endpoint,
                        word,
                        direction,
                        local,
                        peer,
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
                    self,
                    &PacketQuestion {
                        endpoint,
                        word,
                        direction,
                        local,
                        peer,
                        protocol,
                        port,
                        made_here,
                    },
                )
            }
        })
    }

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
        let Some(PortTable(entries)) = self.port_tables.get(&number) else {
            return Decision::NO_MATCH;
        };
        entries
            .iter()
            .filter(|entry| entry.covers(key.protocol, port))
            .max_by_key(|entry| entry.bits)
            .map_or(Decision::NO_MATCH, |entry| entry.decision)
    }
}

impl Tables<[u8; 4]> for Compiled {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        Versioned::settled(self.identity_of(IpAddr::from(*address)))
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_for(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_for(*key)
    }
}

impl Tables<[u8; 16]> for Compiled {
    fn identity(&self, address: &[u8; 16]) -> Versioned {
        Versioned::settled(self.identity_of(IpAddr::from(*address)))
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_for(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_for(*key)
    }
}

impl PortTable {
    /// Every port of every protocol, because no policy isolates the direction.
    pub fn not_isolated() -> Self {
        Self(vec![PortEntry {
            bits: PortKey::TABLE_BITS,
            protocol: 0,
            port: 0,
            decision: Decision::new(Action::Allow, RuleId::NONE),
        }])
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

/// The address as a prefix of its own.
pub fn host_prefix(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::from(address)),
    }
}
