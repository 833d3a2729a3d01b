//! Programs and tables without interfaces: packets are handed to the kernel one by one.
//!
//! For the tests that hold the kernel to the host's answers, and for the benchmark. The programs
//! are the ones that ship and the tables are written as the daemon writes them; what is missing is
//! the network: `BPF_PROG_TEST_RUN` makes a socket buffer of the given bytes and runs a program on
//! it. Every packet is seen at interface 1, the loopback of any namespace, so that an endpoint is
//! put there before its packets are judged.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use agent_common::{
    denial::Denied,
    event::{DenialKey, Event, Loss},
    flow::{FlowKey, FlowState},
    table::{Counter, Direction, Endpoint, Word},
    verdict::Reason,
};
use agent_policy::{
    compiled::Compiled,
    model::SubjectName,
    plan::{Capacity, Plan},
};
use anyhow::Context as _;
use aya::{
    maps::{MapData, RingBuf},
    programs::{CgroupSkb, ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult},
};

use crate::datapath::{
    attach::{Attached, TcHook, attach_interface},
    bpffs::BpfDir,
    held::Held,
    maps::{self, FlowMaps, Interfaces, PolicyMaps},
    object::{
        self, CgroupPrograms, Frames, Programs, Sizes,
        cost::{self, Cost},
    },
    raw::{self, Raw},
    sockets::Connected,
    sync::Sync,
    withdrawn::Search,
    words::Words,
};

/// The interface that every packet is seen at.
const LOOPBACK: u32 = 1;

/// Programs and tables in a folder of their own, which leaves with this value.
pub struct Testbed {
    folder: BpfDir,
    sizes: Sizes,
    programs: Programs,
    cgroups: BTreeMap<u16, CgroupPrograms>,
    interfaces: Interfaces,
    observed_until: Words,
    attached: Vec<Attached>,
    sync: Sync,
    flows: FlowMaps,
    held: Held,
    fragments: Words,
    denied_once: Words,
    events: RingBuf<MapData>,
    /// Made when it is first asked.
    search: Option<Search>,
}

/// Where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// At the interface of the endpoint that is there, see [`Testbed::place`].
    Interface(Direction),
    /// In the cgroup of an endpoint.
    Cgroup(u16, Direction),
    /// At no hook of ours: what any program costs.
    Null,
    /// The same in a cgroup.
    CgroupNull(u16),
    /// A program of the benchmark's object that changes the packet before the hook sees it.
    Rotated,
}

/// What the kernel said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    pub passes: bool,
    /// It is sent back where it came from, as the answer to itself.
    pub is_sent_back: bool,
    /// Mean of all repetitions, in whole nanoseconds.
    pub each: Duration,
}

/// What a program has made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    pub passes: bool,
    /// See [`Ran::is_sent_back`].
    pub is_sent_back: bool,
    pub frame: Vec<u8>,
    pub mark: u32,
}

impl std::fmt::Debug for Testbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Testbed")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Testbed {
    /// Loads the programs and makes empty tables below `path`, on a bpf filesystem.
    pub fn new(path: &Path, sizes: Sizes) -> anyhow::Result<Self> {
        Self::allowing(path, sizes, &Frames::default())
    }

    /// As [`Testbed::new`], with frames that pass beside IP and ARP.
    pub fn allowing(path: &Path, sizes: Sizes, frames: &Frames) -> anyhow::Result<Self> {
        let folder = BpfDir::prepare(path)?;
        let pins = folder.maps();
        let made = (|| {
            let programs = Programs::load(&pins, &sizes, frames)?;
            let capacity = Capacity {
                endpoints: usize::try_from(sizes.endpoints)?,
                prefixes: usize::try_from(sizes.prefixes)?,
                sockets: usize::try_from(sizes.sockets())?,
                policy: usize::try_from(sizes.policy)?,
                ports: usize::try_from(sizes.ports)?,
                own_addresses: usize::try_from(sizes.own_addresses)?,
            };
            anyhow::Ok(Self {
                programs,
                cgroups: BTreeMap::new(),
                interfaces: maps::interfaces(&pins)?,
                observed_until: maps::observed_until(&pins)?,
                attached: Vec::new(),
                sync: Sync::adopt(PolicyMaps::open(&pins)?, capacity)?,
                flows: FlowMaps::open(&pins)?,
                held: Held::open(&pins)?,
                fragments: maps::fragments(&pins)?,
                denied_once: maps::denied_once(&pins)?,
                events: maps::events(&pins)?,
                search: None,
                folder: folder.clone(),
                sizes,
            })
        })();
        made.inspect_err(|_| remove(folder))
    }

    /// What each program costs to load. Meanwhile this process can open nothing.
    pub fn costs(path: &Path) -> anyhow::Result<Vec<Cost>> {
        let folder = BpfDir::prepare(path)?;
        let costs = cost::costs(&folder.maps(), &Sizes::default());
        remove(folder);
        costs
    }

    /// Makes `compiled` the policy in force, as the daemon does.
    pub fn apply(
        &mut self,
        compiled: &Compiled,
        endpoints: &BTreeMap<u16, SubjectName>,
    ) -> anyhow::Result<()> {
        let plan = Arc::new(Plan::new(self.sync.programmed(), compiled, endpoints));
        self.sync.apply(&plan)?;
        self.sync.settle();
        Ok(())
    }

    /// The state that an endpoint is judged by.
    pub fn word(&self, endpoint: u16) -> Word {
        let words = &self.sync.programmed().words;
        words.get(&endpoint).copied().unwrap_or(Word::UNSET)
    }

    /// Puts an endpoint behind the interface.
    pub fn place(&mut self, endpoint: Endpoint) -> anyhow::Result<()> {
        Ok(self.interfaces.insert(LOOPBACK, endpoint)?)
    }

    /// An endpoint whose flags say that it is observed is so until this moment of the boot clock.
    pub fn observe(&self, endpoint: u16, until: u64) {
        self.observed_until.store(u32::from(endpoint), until);
    }

    /// Puts an endpoint behind an interface of the calling thread's namespace, and the programs onto it.
    pub fn attach(&mut self, endpoint: Endpoint, index: u32) -> anyhow::Result<()> {
        self.interfaces.insert(index, endpoint)?;
        let programs = self.programs.fds()?;
        let hook = TcHook::of_kernel()?;
        let attached = attach_interface(&self.folder, endpoint.id, index, hook, programs)?;
        self.attached.push(attached);
        Ok(())
    }

    /// Puts back what others have written to the tables: how many entries of which.
    pub fn restore(&mut self, budget: Duration) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        self.sync.restore(|spent| spent < budget)
    }

    /// Loads the programs of an endpoint in a cgroup.
    pub fn place_in_cgroup(&mut self, endpoint: Endpoint) -> anyhow::Result<()> {
        let programs = CgroupPrograms::load(
            &self.folder.maps(),
            &self.sizes,
            endpoint,
            self.programs.notes(),
        )?;
        self.cgroups.insert(endpoint.id, programs);
        Ok(())
    }

    /// Runs a program on an Ethernet frame.
    ///
    /// The kernel wants at least the Ethernet header. `made_here` says that this node's own stack
    /// made the packet.
    pub fn run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        made_here: bool,
        repeat: u32,
    ) -> anyhow::Result<Ran> {
        let context = context(made_here);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let TestRunResult {
            return_value,
            duration,
            ..
        } = match hook {
            Hook::Interface(direction) => self.interface(direction)?.test_run(options)?,
            Hook::Cgroup(endpoint, Direction::Ingress) => {
                self.cgroup(endpoint, "cgroup_ingress")?.test_run(options)?
            }
            Hook::Cgroup(endpoint, Direction::Egress) => {
                self.cgroup(endpoint, "cgroup_egress")?.test_run(options)?
            }
            Hook::CgroupNull(endpoint) => {
                self.cgroup(endpoint, "cgroup_null")?.test_run(options)?
            }
            Hook::Null => self.programs.loaded("null")?.test_run(options)?,
            Hook::Rotated => self.programs.loaded("rotate")?.test_run(options)?,
        };
        let passes = match hook {
            Hook::Cgroup(..) | Hook::CgroupNull(_) => object::passes_cgroup(return_value)?,
            Hook::Interface(_) | Hook::Null | Hook::Rotated => {
                object::passes_interface(return_value)?
            }
        };
        Ok(Ran {
            passes,
            is_sent_back: return_value.cast_signed() == object::SENT_BACK,
            each: duration,
        })
    }

    /// Runs a program at an interface once; the frame as it is then, and its mark. `mark` is what it has before.
    pub fn rewritten(
        &mut self,
        direction: Direction,
        frame: &[u8],
        mark: u32,
    ) -> anyhow::Result<Rewritten> {
        let mut before = context(true);
        before[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let (mut after, mut out) = ([0; WHOLE_CONTEXT], vec![0; frame.len() + MORE]);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&before),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let ran = self.interface(direction)?.test_run(options)?;
        out.truncate(usize::try_from(ran.data_size_out)?);
        let mut mark = [0; 4];
        mark.copy_from_slice(&after[MARK..MARK + 4]);
        Ok(Rewritten {
            passes: object::passes_interface(ran.return_value)?,
            is_sent_back: ran.return_value.cast_signed() == object::SENT_BACK,
            frame: out,
            mark: u32::from_ne_bytes(mark),
        })
    }

    /// Whether this kernel lets a test say where a packet came in. Minimum kernel: 5.16.
    pub fn can_arrive(&mut self) -> anyhow::Result<bool> {
        match self.run(Hook::Null, &[0; 64], false, 1) {
            Ok(_) => Ok(true),
            Err(error) => match error.downcast_ref::<ProgramError>() {
                Some(ProgramError::SyscallError(call))
                    if call.io_error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    Ok(false)
                }
                Some(_) | None => Err(error),
            },
        }
    }

    /// What the rotating program does from now on, and where it leads to.
    pub fn rotate(&mut self, rotation: &Rotation, onward: Hook) -> anyhow::Result<()> {
        let Rotation { seed, peers, ports } = *rotation;
        let (peers, host_bits) = match peers {
            Peers::Kept => (0, 0),
            Peers::Hosts(number) => (number, 0),
            Peers::Networks(number) => (number, HOST_BITS),
        };
        let name = match onward {
            Hook::Interface(Direction::Egress) => "from_endpoint",
            Hook::Null => "null",
            Hook::Interface(Direction::Ingress)
            | Hook::Cgroup(..)
            | Hook::CgroupNull(_)
            | Hook::Rotated => {
                anyhow::bail!("{onward:?} is not what packets are rotated for")
            }
        };
        self.programs.rotate(
            [seed, u64::from(peers), ports as u64, u64::from(host_bits)],
            name,
        )
    }

    /// The sockets of flows that are no longer permitted, of these endpoints, given with their flags.
    pub fn withdrawn(
        &mut self,
        endpoints: &BTreeMap<u16, u16>,
    ) -> anyhow::Result<BTreeMap<u16, Vec<Connected>>> {
        let search = match self.search.take() {
            Some(search) => search,
            None => self.programs.search(&self.folder.maps())?,
        };
        self.search.insert(search).withdrawn(endpoints)
    }

    /// Forgets every flow, and what first fragments said.
    pub fn flush_flows(&mut self) -> anyhow::Result<()> {
        let (v4, v6) = (
            self.held.snapshot::<[u8; 4]>(),
            self.held.snapshot::<[u8; 16]>(),
        );
        let keys: Vec<_> = self.flows.v4.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.flows.v4.remove(&key)?;
        }
        let keys: Vec<_> = self.flows.v6.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.flows.v6.remove(&key)?;
        }
        for slot in 0..self.fragments.len() {
            self.fragments.store(slot, 0);
        }
        self.held.settle::<[u8; 4]>(&v4, std::iter::empty());
        self.held.settle::<[u8; 16]>(&v6, std::iter::empty());
        Ok(())
    }

    /// Forgets every denial.
    pub fn flush_denials(&mut self) -> anyhow::Result<()> {
        let keys: Vec<_> = self.flows.denials.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.flows.denials.remove(&key)?;
        }
        for place in 0..self.denied_once.len() {
            self.denied_once.store(place, 0);
        }
        Ok(())
    }

    pub fn flows_v4(&self) -> anyhow::Result<BTreeMap<FlowKey<[u8; 4]>, FlowState>> {
        let entries = self.flows.v4.iter();
        entries
            .map(|entry| {
                entry
                    .map(|(Raw(key), Raw(flow))| (key, flow))
                    .map_err(Into::into)
            })
            .collect()
    }

    pub fn flows_v6(&self) -> anyhow::Result<BTreeMap<FlowKey<[u8; 16]>, FlowState>> {
        let entries = self.flows.v6.iter();
        entries
            .map(|entry| {
                entry
                    .map(|(Raw(key), Raw(flow))| (key, flow))
                    .map_err(Into::into)
            })
            .collect()
    }

    /// Denied packets but for those that were told by themselves.
    pub fn denials(&self) -> anyhow::Result<BTreeMap<DenialKey, Counter>> {
        let entries = self.flows.denials.iter();
        entries
            .map(|entry| {
                let (Raw(key), Raw(denied)) = entry?;
                let Denied {
                    packets,
                    bytes,
                    since: _,
                } = denied;
                Ok((key, Counter { packets, bytes }))
            })
            .collect()
    }

    /// Packets and bytes by reason since the tables were made.
    pub fn counters(&self, endpoint: u16) -> anyhow::Result<BTreeMap<Reason, Counter>> {
        self.flows.counters_of(endpoint)
    }

    /// Takes the events that have not been taken yet.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.extend(raw::read::<Event>(&record));
        }
        events
    }

    pub fn events_lost(&self) -> anyhow::Result<u64> {
        self.flows.lost(Loss::Event)
    }

    fn interface(&mut self, direction: Direction) -> anyhow::Result<&mut SchedClassifier> {
        match direction {
            Direction::Ingress => self.programs.loaded("to_endpoint"),
            Direction::Egress => self.programs.loaded("from_endpoint"),
        }
    }

    fn cgroup(&mut self, endpoint: u16, program: &str) -> anyhow::Result<&mut CgroupSkb> {
        let programs = self.cgroups.get_mut(&endpoint);
        let programs = programs.with_context(|| format!("endpoint {endpoint} has no cgroup"))?;
        programs.loaded(program)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        for attached in self.attached.drain(..) {
            if let Err(error) = attached.detach(&self.folder) {
                tracing::warn!(%error, "a program of the testbed stays");
            }
        }
        remove(self.folder.clone());
    }
}

/// Bits of an address below a peer's network.
pub const HOST_BITS: u32 = 4;

/// How the rotating program changes a packet each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub seed: u64,
    pub peers: Peers,
    /// The source port.
    pub ports: Ports,
}

/// Another peer, at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    Kept,
    /// One of so many addresses.
    Hosts(u32),
    /// An address in one of so many networks.
    Networks(u32),
}

/// Another port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Ports {
    Kept = 0,
    /// The one that follows.
    InTurn = 1,
    AtRandom = 2,
}

/// Bytes of a context as far as the two interfaces, and where its mark is.
const CONTEXT: usize = 44;
const MARK: usize = 8;

/// Bytes that are more than a context has: the kernel writes all of it, or none.
const WHOLE_CONTEXT: usize = 512;

/// By how much an answer may be longer than its packet.
const MORE: usize = 64;

/// As far as the kernel lets a context be given (`struct __sk_buff`, linux/bpf.h): only the two
/// interfaces are set.
fn context(made_here: bool) -> [u8; CONTEXT] {
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;
    let mut context = [0; CONTEXT];
    let arrived_at = if made_here { 0 } else { LOOPBACK };
    context[INGRESS_IFINDEX..IFINDEX].copy_from_slice(&arrived_at.to_ne_bytes());
    context[IFINDEX..].copy_from_slice(&LOOPBACK.to_ne_bytes());
    context
}

/// A folder that stays harms nobody but the next look into bpffs.
fn remove(folder: BpfDir) {
    if let Err(error) = folder.remove_all() {
        tracing::warn!(error = format!("{error:#}"), "the testbed's folder stays");
    }
}
