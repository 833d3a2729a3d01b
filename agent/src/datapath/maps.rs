//! The maps of the contract, typed.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use agent_common::{
    event::{DenialKey, Loss},
    flow::{FlowKey, FlowState},
    table::{Counter, Decision, Endpoint, OwnAddress, PolicyKey, PortKey, SocketKey},
    verdict::Reason,
};
use anyhow::Context as _;
use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, lpm_trie::Key as Prefix,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::datapath::{raw::Raw, words::Words};

/// Everything that is pinned, by the name that the programs know it by.
pub(crate) const NAMES: &[&str] = &[
    "INTERFACES",
    "WORDS",
    "IPCACHE_V4",
    "IPCACHE_V6",
    "IDENTITIES",
    "SOCKETS",
    "CGROUPS",
    "POLICY",
    "ANSWERS",
    "PORTS",
    "ADDRESSES",
    "FLOWS_V4",
    "FLOWS_V6",
    "FRAGMENTS",
    "HELD",
    "DENIALS",
    "COUNTERS",
    "EVENTS",
    "LOST",
    "CLOCK",
];

/// What the compiled policy is written to.
#[derive(Debug)]
pub(crate) struct PolicyMaps {
    pub(crate) ipcache: Ipcache,
    pub(crate) identities: Words,
    pub(crate) sockets: HashMap<MapData, Raw<SocketKey>, Raw<u32>>,
    pub(crate) policy: HashMap<MapData, Raw<PolicyKey>, Raw<u32>>,
    pub(crate) answers: Words,
    pub(crate) ports: LpmTrie<MapData, Raw<PortKey>, Raw<Decision>>,
    pub(crate) addresses: HashMap<MapData, Raw<OwnAddress>, Raw<u32>>,
    pub(crate) words: Words,
}

/// Both families of the ipcache as one table.
#[derive(Debug)]
pub(crate) struct Ipcache {
    v4: LpmTrie<MapData, [u8; 4], Raw<u32>>,
    v6: LpmTrie<MapData, [u8; 16], Raw<u32>>,
}

/// What the programs write and the agent reads.
pub(crate) struct FlowMaps {
    pub(crate) v4: HashMap<MapData, Raw<FlowKey<[u8; 4]>>, Raw<FlowState>>,
    pub(crate) v6: HashMap<MapData, Raw<FlowKey<[u8; 16]>>, Raw<FlowState>>,
    pub(crate) denials: HashMap<MapData, Raw<DenialKey>, Raw<Counter>>,
    pub(crate) counters: PerCpuArray<MapData, Raw<Counter>>,
    pub(crate) lost: PerCpuArray<MapData, Raw<u64>>,
    pub(crate) clock: Array<MapData, Raw<u64>>,
}

/// Interfaces that lead to endpoints.
pub(crate) type Interfaces = HashMap<MapData, Raw<u32>, Raw<Endpoint>>;

/// Cgroups that are endpoints.
pub(crate) type Cgroups = HashMap<MapData, Raw<u64>, Raw<u32>>;

/// Opens a pinned map; the agent and each loaded program have handles of their own.
pub(crate) fn open(folder: &Path, name: &str) -> anyhow::Result<MapData> {
    MapData::from_pin(folder.join(name)).with_context(|| format!("failed to open map `{name}`"))
}

macro_rules! typed {
    ($folder:expr, $name:literal, $kind:ident) => {
        Map::$kind(open($folder, $name)?)
            .try_into()
            .with_context(|| concat!("map `", $name, "` is not what this version expects"))?
    };
}

impl PolicyMaps {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            ipcache: Ipcache {
                v4: typed!(folder, "IPCACHE_V4", LpmTrie),
                v6: typed!(folder, "IPCACHE_V6", LpmTrie),
            },
            identities: Words::map(&open(folder, "IDENTITIES")?)?,
            sockets: typed!(folder, "SOCKETS", HashMap),
            policy: typed!(folder, "POLICY", HashMap),
            answers: Words::map(&open(folder, "ANSWERS")?)?,
            ports: typed!(folder, "PORTS", LpmTrie),
            addresses: typed!(folder, "ADDRESSES", HashMap),
            words: Words::map(&open(folder, "WORDS")?)?,
        })
    }
}

impl FlowMaps {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            v4: typed!(folder, "FLOWS_V4", HashMap),
            v6: typed!(folder, "FLOWS_V6", HashMap),
            denials: typed!(folder, "DENIALS", LruHashMap),
            counters: typed!(folder, "COUNTERS", PerCpuArray),
            lost: typed!(folder, "LOST", PerCpuArray),
            clock: typed!(folder, "CLOCK", Array),
        })
    }

    /// Packets and bytes by reason, of one endpoint.
    pub(crate) fn counters_of(&self, endpoint: u16) -> anyhow::Result<BTreeMap<Reason, Counter>> {
        let mut counters = BTreeMap::new();
        for &reason in Reason::ALL {
            let index = u32::from(endpoint) * Reason::SLOTS + reason as u32;
            let mut sum = Counter {
                packets: 0,
                bytes: 0,
            };
            for Raw(counter) in self.counters.get(&index, 0)?.iter() {
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            if sum.packets > 0 {
                counters.insert(reason, sum);
            }
        }
        Ok(counters)
    }

    /// How often there was no room, since the maps were made.
    pub(crate) fn lost(&self, loss: Loss) -> anyhow::Result<u64> {
        let counts = self.lost.get(&(loss as u32), 0)?;
        Ok(counts.iter().map(|Raw(count)| count).sum())
    }
}

pub(crate) fn interfaces(folder: &Path) -> anyhow::Result<Interfaces> {
    Ok(typed!(folder, "INTERFACES", HashMap))
}

pub(crate) fn cgroups(folder: &Path) -> anyhow::Result<Cgroups> {
    Ok(typed!(folder, "CGROUPS", HashMap))
}

/// See [`agent_common::share::slot_of`].
pub(crate) fn held(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "HELD")?)
}

/// See [`agent_common::fragment`].
pub(crate) fn fragments(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "FRAGMENTS")?)
}

pub(crate) fn events(folder: &Path) -> anyhow::Result<RingBuf<MapData>> {
    Ok(typed!(folder, "EVENTS", RingBuf))
}

/// Room of a pinned map, as it was made.
pub(crate) fn capacity(folder: &Path, name: &str) -> anyhow::Result<usize> {
    Ok(usize::try_from(open(folder, name)?.info()?.max_entries())?)
}

impl Ipcache {
    /// The slot of the longest prefix that covers an address.
    pub(crate) fn slot_v4(&self, address: [u8; 4]) -> Option<u32> {
        let slot = self.v4.get(&Prefix::new(32, address), 0).ok();
        slot.map(|Raw(slot)| slot)
    }

    /// As [`Ipcache::slot_v4`].
    pub(crate) fn slot_v6(&self, address: [u8; 16]) -> Option<u32> {
        let slot = self.v6.get(&Prefix::new(128, address), 0).ok();
        slot.map(|Raw(slot)| slot)
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, slot: u32) -> anyhow::Result<()> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&v4_key(prefix), Raw(slot), 0)?,
            IpNet::V6(prefix) => self.v6.insert(&v6_key(prefix), Raw(slot), 0)?,
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> anyhow::Result<()> {
        match prefix {
            IpNet::V4(prefix) => self.v4.remove(&v4_key(prefix))?,
            IpNet::V6(prefix) => self.v6.remove(&v6_key(prefix))?,
        }
        Ok(())
    }

    /// Every prefix with its slot.
    pub(crate) fn read(&self) -> anyhow::Result<BTreeMap<IpNet, u32>> {
        let mut all = BTreeMap::new();
        for entry in &self.v4 {
            let (key, Raw(slot)) = entry?;
            let bits = u8::try_from(key.prefix_len())?;
            all.insert(IpNet::new(IpAddr::from(key.data()), bits)?, slot);
        }
        for entry in &self.v6 {
            let (key, Raw(slot)) = entry?;
            let bits = u8::try_from(key.prefix_len())?;
            all.insert(IpNet::new(IpAddr::from(key.data()), bits)?, slot);
        }
        Ok(all)
    }
}

fn v4_key(prefix: Ipv4Net) -> Prefix<[u8; 4]> {
    Prefix::new(u32::from(prefix.prefix_len()), prefix.network().octets())
}

fn v6_key(prefix: Ipv6Net) -> Prefix<[u8; 16]> {
    Prefix::new(u32::from(prefix.prefix_len()), prefix.network().octets())
}
