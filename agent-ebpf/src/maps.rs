//! Every map, by its contract name. Sizes are defaults: the agent sets them when it loads.

use agent_common::{
    denial::{self, Denied},
    event::{DenialKey, Loss},
    flow::{Flow, FlowKey},
    refusal::{self, Refusal},
    rejection::RejectionCounts,
    table::{Counter, Decision, Endpoint, Lead, OwnAddress, PolicyKey, PortKey, SocketKey},
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};

/// Host side of an interface → endpoint.
#[map]
pub(crate) static INTERFACES: HashMap<u32, Endpoint> = HashMap::with_max_entries(1024, 0);

/// [`Lead`]s by their slots. Stored by the agent through a memory map, at once.
#[map]
pub(crate) static LEADS: Array<u64> = Array::with_max_entries(Lead::SLOTS, BPF_F_MMAPABLE);

/// Endpoint → until when it is observed, in nanoseconds of the boot clock. Stored by the agent likewise.
#[map]
pub(crate) static OBSERVED_UNTIL: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Endpoint → its word. Stored by the agent through a memory map, at once.
#[map]
pub(crate) static WORDS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Address → slot in `IDENTITIES`, where an address has an identity of its own: looked for before the
/// prefixes, as one step costs less than the walk through a tree of them.
#[map]
pub(crate) static HOSTS_V4: HashMap<[u8; 4], u32> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static HOSTS_V6: HashMap<[u8; 16], u32> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Prefix shorter than an address → slot in `IDENTITIES`.
#[map]
pub(crate) static IPCACHE_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1024, 0);

#[map]
pub(crate) static IPCACHE_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1024, 0);

#[map]
pub(crate) static IDENTITIES: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// (endpoint of a socket, identity of its address) → slot in `IDENTITIES`.
#[map]
pub(crate) static SOCKETS: HashMap<SocketKey, u32> = HashMap::with_max_entries(1024, 0);

/// Cgroup → the endpoint that it is.
#[map]
pub(crate) static CGROUPS: HashMap<u64, Endpoint> = HashMap::with_max_entries(1024, 0);

/// (policy set, direction, identity) → slot in `ANSWERS`.
#[map]
pub(crate) static POLICY: HashMap<PolicyKey, u32> = HashMap::with_max_entries(1024, 0);

#[map]
pub(crate) static ANSWERS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// (port table, protocol, port) → decision.
#[map]
pub(crate) static PORTS: LpmTrie<PortKey, Decision> = LpmTrie::with_max_entries(1024, 0);

/// Addresses that endpoints may send from.
#[map]
pub(crate) static ADDRESSES: HashMap<OwnAddress, u32> = HashMap::with_max_entries(1024, 0);

#[map]
pub(crate) static FLOWS_V4: HashMap<FlowKey<[u8; 4]>, Flow> = HashMap::with_max_entries(1024, 0);

#[map]
pub(crate) static FLOWS_V6: HashMap<FlowKey<[u8; 16]>, Flow> = HashMap::with_max_entries(1024, 0);

/// An endpoint's slot of a family → how many flows it holds; of endpoint 0, how many more find room.
#[map]
pub(crate) static HELD: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// An endpoint's place → what the first fragment of a packet said there, see `agent_common::fragment`.
#[map]
pub(crate) static FRAGMENTS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Denied packets by kind. The least recently used kind makes room; `COUNTERS` still has it.
#[map]
pub(crate) static DENIALS: LruHashMap<DenialKey, Denied> = LruHashMap::with_max_entries(1024, 0);

/// Numbers of kinds that were denied once, see `agent_common::denial`.
#[map]
pub(crate) static DENIED_ONCE: Array<u64> = Array::with_max_entries(denial::PLACES, BPF_F_MMAPABLE);

/// What was denied a moment ago, of each processor, see `agent_common::refusal`. Each load has its own.
#[map]
pub(crate) static REFUSED: PerCpuArray<Refusal> = PerCpuArray::with_max_entries(refusal::PLACES, 0);

/// Endpoint × `Reason::SLOTS` + reason.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1024, 0);

/// Endpoint and direction → answers to denied packets, see `agent_common::rejection`.
#[map]
pub(crate) static REJECTIONS: Array<RejectionCounts> = Array::with_max_entries(1024, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// What found no room: [`Loss`] → how many.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::KINDS, 0);

/// The jiffies that `clock` saw: user space has no other way to read the clock of `last_seen`.
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(1, 0);
