//! The maps of the contract, typed.

use std::{collections::BTreeMap, io, net::IpAddr, os::fd::AsFd as _, path::Path};

use agent_common::{
    abi::Abi,
    denial::Denied,
    event::{DenialKey, Loss},
    flow::{FlowKey, FlowState},
    rejection::{self, RejectionCounts},
    table::{
        Counter, Decision, Direction, Endpoint, Lead, OwnAddress, PolicyKey, PortKey, SocketKey,
        Word,
    },
    verdict::Reason,
};
use anyhow::Context as _;
use aya::maps::{
    Array, HashMap, IterableMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf,
    lpm_trie::Key as Prefix,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::datapath::{
    bpffs::BpfDir,
    pin,
    raw::Raw,
    syscall::{self, Batch},
    words::{OwnWords, Words},
};

/// Everything that is pinned, by the name that the programs know it by.
pub(crate) const NAMES: &[&str] = &[
    "INTERFACES",
    "LEADS",
    "OBSERVED_UNTIL",
    "WORDS",
    "HOSTS_V4",
    "HOSTS_V6",
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
    "DENIED_ONCE",
    "COUNTERS",
    "REJECTIONS",
    "EVENTS",
    "LOST",
    "DNS",
    "SPOKEN",
    "CLOCK",
    "PROCESSES",
    "SOCKET_FLOWS_V4",
    "SOCKET_FLOWS_V6",
];

/// What the compiled policy is written to.
#[derive(Debug)]
pub(crate) struct PolicyMaps {
    pub(crate) ipcache: Ipcache,
    pub(crate) identities: OwnWords,
    pub(crate) sockets: HashMap<MapData, Raw<SocketKey>, Raw<u32>>,
    pub(crate) policy: HashMap<MapData, Raw<PolicyKey>, Raw<u32>>,
    pub(crate) answers: OwnWords,
    pub(crate) ports: LpmTrie<MapData, Raw<PortKey>, Raw<Decision>>,
    pub(crate) addresses: HashMap<MapData, Raw<OwnAddress>, Raw<u32>>,
    pub(crate) words: OwnWords,
}

/// What is needed to answer a question.
#[derive(Debug)]
pub(crate) struct LookUps {
    pub(crate) ipcache: Ipcache,
    pub(crate) identities: Words,
    pub(crate) policy: HashMap<MapData, Raw<PolicyKey>, Raw<u32>>,
    pub(crate) answers: Words,
    pub(crate) ports: LpmTrie<MapData, Raw<PortKey>, Raw<Decision>>,
}

/// Both families of the ipcache as one table, whole addresses and shorter prefixes.
#[derive(Debug)]
pub(crate) struct Ipcache {
    pub(crate) hosts_v4: HashMap<MapData, [u8; 4], Raw<u32>>,
    pub(crate) hosts_v6: HashMap<MapData, [u8; 16], Raw<u32>>,
    pub(crate) v4: LpmTrie<MapData, [u8; 4], Raw<u32>>,
    pub(crate) v6: LpmTrie<MapData, [u8; 16], Raw<u32>>,
}

type FlowsV4 = HashMap<MapData, Raw<FlowKey<[u8; 4]>>, Raw<FlowState>>;
type FlowsV6 = HashMap<MapData, Raw<FlowKey<[u8; 16]>>, Raw<FlowState>>;

/// What the programs write and the agent reads.
pub(crate) struct FlowMaps {
    pub(crate) v4: FlowsV4,
    pub(crate) v6: FlowsV6,
    pub(crate) denials: HashMap<MapData, Raw<DenialKey>, Raw<Denied>>,
    pub(crate) counters: PerCpuArray<MapData, Raw<Counter>>,
    pub(crate) rejections: Array<MapData, Raw<RejectionCounts>>,
    pub(crate) lost: PerCpuArray<MapData, Raw<u64>>,
    pub(crate) clock: Array<MapData, Raw<u64>>,
}

/// A small table, and what we have put in it.
pub(crate) struct Kept<K: Abi, V: Abi> {
    map: HashMap<MapData, Raw<K>, Raw<V>>,
    held: BTreeMap<K, V>,
}

/// Interfaces that lead to endpoints.
pub(crate) struct Interfaces {
    all: Kept<u32, Endpoint>,
    /// Those that programs find at once.
    leads: OwnWords,
}

/// Cgroups that are endpoints.
pub(crate) type Cgroups = Kept<u64, Endpoint>;

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
            ipcache: Ipcache::open(folder)?,
            identities: OwnWords::map(&open(folder, "IDENTITIES")?)?,
            sockets: typed!(folder, "SOCKETS", HashMap),
            policy: typed!(folder, "POLICY", HashMap),
            answers: OwnWords::map(&open(folder, "ANSWERS")?)?,
            ports: typed!(folder, "PORTS", LpmTrie),
            addresses: typed!(folder, "ADDRESSES", HashMap),
            words: OwnWords::map(&open(folder, "WORDS")?)?,
        })
    }
}

impl LookUps {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            ipcache: Ipcache::open(folder)?,
            identities: Words::map(&open(folder, "IDENTITIES")?)?,
            policy: typed!(folder, "POLICY", HashMap),
            answers: Words::map(&open(folder, "ANSWERS")?)?,
            ports: typed!(folder, "PORTS", LpmTrie),
        })
    }
}

impl FlowMaps {
    /// The flow tables alone.
    fn flows(folder: &Path) -> anyhow::Result<(FlowsV4, FlowsV6)> {
        Ok((
            typed!(folder, "FLOWS_V4", HashMap),
            typed!(folder, "FLOWS_V6", HashMap),
        ))
    }

    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let (v4, v6) = Self::flows(folder)?;
        Ok(Self {
            v4,
            v6,
            denials: typed!(folder, "DENIALS", LruHashMap),
            counters: typed!(folder, "COUNTERS", PerCpuArray),
            rejections: typed!(folder, "REJECTIONS", Array),
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

    /// Answers to denied packets of one endpoint, in both directions: sent, and suppressed.
    pub(crate) fn rejections_of(&self, endpoint: u16) -> anyhow::Result<[u64; 2]> {
        let mut sum = [0; 2];
        for direction in [Direction::Ingress, Direction::Egress] {
            let slot = rejection::slot_of(endpoint, direction);
            let Raw(counts) = self.rejections.get(&slot, 0)?;
            let RejectionCounts {
                due: _,
                sent,
                suppressed,
            } = counts;
            sum = [sum[0] + sent, sum[1] + suppressed];
        }
        Ok(sum)
    }

    /// How often there was no room, since the maps were made.
    pub(crate) fn lost(&self, loss: Loss) -> anyhow::Result<u64> {
        let counts = self.lost.get(&(loss as u32), 0)?;
        Ok(counts.iter().map(|Raw(count)| count).sum())
    }
}

pub(crate) fn interfaces(folder: &Path) -> anyhow::Result<Interfaces> {
    let all = Kept::adopt(typed!(folder, "INTERFACES", HashMap))?;
    let leads = OwnWords::map(&open(folder, "LEADS")?)?;
    Ok(Interfaces::adopt(all, leads))
}

pub(crate) fn cgroups(folder: &Path) -> anyhow::Result<Cgroups> {
    Kept::adopt(typed!(folder, "CGROUPS", HashMap))
}

/// By endpoint, see [`crate::datapath::observation`].
pub(crate) fn observed_until(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "OBSERVED_UNTIL")?)
}

/// See [`agent_common::share::slot_of`].
pub(crate) fn held(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "HELD")?)
}

/// See [`agent_common::fragment`].
pub(crate) fn fragments(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "FRAGMENTS")?)
}

/// See [`agent_common::denial`].
pub(crate) fn denied_once(folder: &Path) -> anyhow::Result<Words> {
    Words::map(&open(folder, "DENIED_ONCE")?)
}

pub(crate) fn events(folder: &Path) -> anyhow::Result<RingBuf<MapData>> {
    Ok(typed!(folder, "EVENTS", RingBuf))
}

/// See [`agent_common::dns`].
pub(crate) fn names(folder: &Path) -> anyhow::Result<RingBuf<MapData>> {
    Ok(typed!(folder, "DNS", RingBuf))
}

/// Room of a pinned map, as it was made.
pub(crate) fn capacity(folder: &Path, name: &str) -> anyhow::Result<usize> {
    Ok(usize::try_from(open(folder, name)?.info()?.max_entries())?)
}

/// Flow tables, by the names of both families.
const FLOWS: [&str; 2] = ["FLOWS_V4", "FLOWS_V6"];

/// Takes over the flow tables of an agent of an earlier ABI, if they are as ours: the tables
/// themselves, not what they hold, so that its programs and ours remember together while one takes
/// the other's place. The last generation that it judged by, or 0: no flow of it must pass for ours.
pub(crate) fn inherit(dir: &BpfDir) -> anyhow::Result<u32> {
    let Some(theirs) = dir.earlier_maps()? else {
        return Ok(0);
    };
    let ours = dir.maps();
    match inherit_from(&theirs, &ours) {
        Ok(generation) => {
            tracing::info!(from = %theirs.display(), "flows of an earlier version are taken over");
            Ok(generation)
        }
        Err(error) => {
            tracing::warn!("flows of an earlier version are not taken over: {error:#}");
            for name in FLOWS {
                pin::forget(&ours.join(name))?;
            }
            Ok(0)
        }
    }
}

fn inherit_from(theirs: &Path, ours: &Path) -> anyhow::Result<u32> {
    for name in FLOWS {
        if !ours.join(name).exists() {
            let map = open(theirs, name)?;
            syscall::pin(map.fd().as_fd(), &ours.join(name))
                .with_context(|| format!("failed to take over map `{name}`"))?;
        }
    }
    FlowMaps::flows(ours)?;
    let words = Words::map(&open(theirs, "WORDS")?)?;
    let generations = (0..words.len()).map(|index| Word(words.load(index)).generation());
    Ok(generations.max().unwrap_or(0))
}

/// The maps themselves, so that they can be given their names back: programs do not need those, but
/// the next agent does.
pub(crate) struct MapPins(Vec<(&'static str, MapData)>);

impl MapPins {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let maps = NAMES.iter().map(|name| Ok((*name, open(folder, name)?)));
        maps.collect::<anyhow::Result<_>>().map(Self)
    }

    /// Pins again what is not where it was, and says which maps that were.
    pub(crate) fn restore(&self, dir: &BpfDir) -> anyhow::Result<Vec<&'static str>> {
        let folder = dir.maps();
        if !folder.is_dir() || !dir.links().is_dir() {
            BpfDir::prepare(dir.path())?;
        }
        let mut restored = Vec::new();
        for (name, map) in &self.0 {
            let (path, fd) = (folder.join(name), map.fd().as_fd());
            if !pin::is_at(fd, &path)? {
                pin::name(fd, &path).with_context(|| format!("failed to pin map `{name}`"))?;
                restored.push(*name);
            }
        }
        Ok(restored)
    }
}

/// The key that follows `after` in the kernel's order. See [`syscall::next_key`].
pub(crate) fn next_key<K: aya::Pod, V>(
    map: &impl IterableMap<K, V>,
    after: Option<&K>,
) -> io::Result<Option<K>> {
    // SAFETY: the library has compared the sizes of keys when it typed the map.
    unsafe { syscall::next_key(map.map().fd().as_fd(), after) }
}

/// Entries that are asked for at once.
const BATCH: usize = 4096;

/// All entries, a system call for thousands of them, where a walk takes two for each.
pub(crate) fn entries<K: Abi, V: Abi>(
    map: &HashMap<MapData, Raw<K>, Raw<V>>,
) -> io::Result<Vec<(K, V)>> {
    let mut all = Vec::new();
    let mut room = BATCH;
    let mut patience = 1000;
    let (mut keys, mut values) = (Vec::<Raw<K>>::new(), Vec::<Raw<V>>::new());
    let mut from = None;
    loop {
        keys.reserve(room);
        values.reserve(room);
        let spare = (keys.spare_capacity_mut(), values.spare_capacity_mut());
        // SAFETY: the map is typed, and was asked for these sizes when it was opened.
        let batch = unsafe { syscall::lookup_batch(map.map().fd().as_fd(), from, spare) };
        let Batch { entries, next } = match batch {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                // Very many in one bucket.
                room *= 2;
                continue;
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && patience > 0 => {
                // A packet of this processor's was at the same bucket.
                patience -= 1;
                continue;
            }
            batch => batch?,
        };
        let entries = entries.min(keys.capacity()).min(values.capacity());
        // SAFETY: the kernel has written so many, and any bytes are a valid `Abi`.
        unsafe {
            keys.set_len(entries);
            values.set_len(entries);
        }
        let read = keys.drain(..).zip(values.drain(..));
        all.extend(read.map(|(Raw(key), Raw(value))| (key, value)));
        if next.is_none() {
            return Ok(all);
        }
        from = next;
    }
}

impl<K: Abi + Ord, V: Abi + PartialEq> Kept<K, V> {
    /// What an earlier agent left is taken for ours.
    fn adopt(map: HashMap<MapData, Raw<K>, Raw<V>>) -> anyhow::Result<Self> {
        let mut held = BTreeMap::new();
        for entry in &map {
            let (Raw(key), Raw(value)) = entry?;
            held.insert(key, value);
        }
        Ok(Self { map, held })
    }

    pub(crate) fn get(&self, key: K) -> Option<V> {
        self.held.get(&key).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.held.iter().map(|(key, value)| (*key, *value))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.map.insert(Raw(key), Raw(value), 0)?;
        self.held.insert(key, value);
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: K) -> Result<(), MapError> {
        self.held.remove(&key);
        self.map.remove(&Raw(key))
    }

    /// Puts back what somebody else has changed; how many entries that were.
    pub(crate) fn restore(&mut self) -> anyhow::Result<u64> {
        let mut restored = 0;
        for (key, value) in &self.held {
            let is_there = self
                .map
                .get(&Raw(*key), 0)
                .is_ok_and(|Raw(is)| is == *value);
            if !is_there {
                self.map.insert(Raw(*key), Raw(*value), 0)?;
                restored += 1;
            }
        }
        let others: Vec<Raw<K>> = self
            .map
            .keys()
            .filter_map(Result::ok)
            .filter(|Raw(key)| !self.held.contains_key(key))
            .collect();
        for other in others {
            self.map.remove(&other)?;
            restored += 1;
        }
        Ok(restored)
    }
}

impl Interfaces {
    /// The map is what holds: an agent may have ended between the two.
    fn adopt(all: Kept<u32, Endpoint>, leads: OwnWords) -> Self {
        let mut interfaces = Self { all, leads };
        for slot in 0..interfaces.leads.len() {
            interfaces.leads.store(slot, Lead::NONE.0);
        }
        let known: Vec<_> = interfaces.all.iter().collect();
        for (interface, endpoint) in known {
            interfaces.lead(interface, endpoint);
        }
        interfaces
    }

    pub(crate) fn get(&self, interface: u32) -> Option<Endpoint> {
        self.all.get(interface)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Endpoint)> {
        self.all.iter()
    }

    pub(crate) fn insert(&mut self, interface: u32, endpoint: Endpoint) -> Result<(), MapError> {
        // Should this agent end in between, programs find it in the map.
        self.mislead(interface);
        self.all.insert(interface, endpoint)?;
        self.lead(interface, endpoint);
        Ok(())
    }

    pub(crate) fn remove(&mut self, interface: u32) -> Result<(), MapError> {
        self.mislead(interface);
        self.all.remove(interface)
    }

    /// See [`Kept::restore`].
    pub(crate) fn restore(&mut self) -> anyhow::Result<u64> {
        self.all.restore()
    }

    /// See [`OwnWords::restore`].
    pub(crate) fn restore_leads(&self) -> u64 {
        self.leads.restore()
    }

    fn lead(&mut self, interface: u32, endpoint: Endpoint) {
        let slot = Lead::slot(interface);
        // Whether one that is observed still is, programs ask where they find it in the map.
        let is_settled = !endpoint.has(Endpoint::OBSERVED) || endpoint.id == Endpoint::NOBODY.id;
        if is_settled && Lead(self.leads.load(slot)) == Lead::NONE {
            self.leads.store(slot, Lead::new(interface, endpoint).0);
        }
    }

    fn mislead(&mut self, interface: u32) {
        let slot = Lead::slot(interface);
        if Lead(self.leads.load(slot)).interface() == interface {
            self.leads.store(slot, Lead::NONE.0);
        }
    }
}

impl Ipcache {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            hosts_v4: typed!(folder, "HOSTS_V4", HashMap),
            hosts_v6: typed!(folder, "HOSTS_V6", HashMap),
            v4: typed!(folder, "IPCACHE_V4", LpmTrie),
            v6: typed!(folder, "IPCACHE_V6", LpmTrie),
        })
    }

    /// The map that has a prefix.
    pub(crate) fn map_of(prefix: &IpNet) -> &'static str {
        match (prefix, is_host(prefix)) {
            (IpNet::V4(_), true) => "HOSTS_V4",
            (IpNet::V6(_), true) => "HOSTS_V6",
            (IpNet::V4(_), false) => "IPCACHE_V4",
            (IpNet::V6(_), false) => "IPCACHE_V6",
        }
    }

    /// Where the identity of a prefix stands: that of the prefix around it if it is not there.
    pub(crate) fn get(&self, prefix: IpNet) -> Option<u32> {
        let host = match prefix.addr() {
            _ if !is_host(&prefix) => None,
            IpAddr::V4(address) => self.hosts_v4.get(&address.octets(), 0).ok(),
            IpAddr::V6(address) => self.hosts_v6.get(&address.octets(), 0).ok(),
        };
        let found = host.or_else(|| match prefix {
            IpNet::V4(prefix) => self.v4.get(&v4_key(prefix), 0).ok(),
            IpNet::V6(prefix) => self.v6.get(&v6_key(prefix), 0).ok(),
        });
        found.map(|Raw(slot)| slot)
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, slot: u32) -> anyhow::Result<()> {
        match (prefix, prefix.addr()) {
            (prefix, IpAddr::V4(host)) if is_host(&prefix) => {
                self.hosts_v4.insert(host.octets(), Raw(slot), 0)?;
            }
            (prefix, IpAddr::V6(host)) if is_host(&prefix) => {
                self.hosts_v6.insert(host.octets(), Raw(slot), 0)?;
            }
            (IpNet::V4(prefix), _) => self.v4.insert(&v4_key(prefix), Raw(slot), 0)?,
            (IpNet::V6(prefix), _) => self.v6.insert(&v6_key(prefix), Raw(slot), 0)?,
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> anyhow::Result<()> {
        match (prefix, prefix.addr()) {
            (prefix, IpAddr::V4(host)) if is_host(&prefix) => {
                self.hosts_v4.remove(&host.octets())?;
            }
            (prefix, IpAddr::V6(host)) if is_host(&prefix) => {
                self.hosts_v6.remove(&host.octets())?;
            }
            (IpNet::V4(prefix), _) => self.v4.remove(&v4_key(prefix))?,
            (IpNet::V6(prefix), _) => self.v6.remove(&v6_key(prefix))?,
        }
        Ok(())
    }

    /// Every prefix with its slot.
    pub(crate) fn read(&self) -> anyhow::Result<BTreeMap<IpNet, u32>> {
        let mut all = BTreeMap::new();
        for entry in &self.hosts_v4 {
            let (address, Raw(slot)) = entry?;
            all.insert(IpAddr::from(address).into(), slot);
        }
        for entry in &self.hosts_v6 {
            let (address, Raw(slot)) = entry?;
            all.insert(IpAddr::from(address).into(), slot);
        }
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

/// Whether a prefix is one address.
fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

fn v4_key(prefix: Ipv4Net) -> Prefix<[u8; 4]> {
    Prefix::new(u32::from(prefix.prefix_len()), prefix.network().octets())
}

fn v6_key(prefix: Ipv6Net) -> Prefix<[u8; 16]> {
    Prefix::new(u32::from(prefix.prefix_len()), prefix.network().octets())
}
