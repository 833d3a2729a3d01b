//! The datapath of one agent: its tables, its programs, and what they hang on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_common::table::Endpoint;
use agent_policy::{
    model::EndpointSpec,
    plan::{Capacity, Plan, Programmed},
};

use crate::datapath::{
    attach::{self, Attached, Target, TcHook},
    bpffs::BpfDir,
    engine::{arrival::Arrival, guard::Guard, reach::Confining, unknown::Unknown},
    held::Held,
    helper::Helper,
    link::{Link, LinkError, Links},
    maps::{self, Cgroups, FlowMaps, Interfaces, MapPins, PolicyMaps},
    object::{Frames, Programs, Sizes},
    observation::Observation,
    process::Processes,
    prompt::Prompter,
    sync::{ApplyError, Sync},
    tamper::{Kind, Tampering},
    withdrawn::Search,
};

mod arrival;
mod guard;
mod haste;
mod reach;
mod unknown;

pub(crate) use self::{
    arrival::Settled,
    unknown::{Holding, UnknownInterface, UnknownMode, WorkloadInterfaces},
};

/// Holds everything that the agent has in the kernel. Dropping it takes nothing away.
pub(crate) struct Engine {
    dir: BpfDir,
    sizes: Sizes,
    /// Flags of every endpoint at an interface, by the settings.
    flags: u16,
    programs: Arc<Mutex<Programs>>,
    sync: Sync,
    interfaces: Interfaces,
    cgroups: Cgroups,
    hook: TcHook,
    /// Who enters network namespaces for us.
    helper: Option<Arc<Helper>>,
    /// Interfaces that appear are not to wait for the better one.
    hastens: bool,
    flows: FlowMaps,
    held: Held,
    attached: BTreeMap<u16, Attached>,
    /// What hangs on cgroups: loading it once more takes longer than it may be missing there.
    confining: BTreeMap<u16, Confining>,
    /// Endpoints that have been attached for the first time, until [`Engine::settle`].
    arrivals: BTreeMap<u16, Arrival>,
    observation: Observation,
    /// Why live flows were not taken up, of endpoints that are attached.
    unseeded: BTreeMap<u16, String>,
    pins: MapPins,
    processes: Processes,
    /// What others have done, and nobody has been told of yet.
    noticed: Vec<Tampering>,
    /// Endpoints of which something was noticed that could not be put right.
    unrestored: BTreeSet<u16>,
    guard: Guard,
    unknown: Unknown,
    /// Interfaces as of the last look, and what was announced since.
    links: Links,
}

/// What endpoints at interfaces may send beside what policy is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BelowIp {
    pub(crate) frames: Frames,
    /// They get their addresses by DHCP.
    pub(crate) dhcp_client: bool,
}

/// Where an endpoint is to be found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'s> {
    Declared(&'s EndpointSpec),
    /// The node as a whole: the root of the cgroup hierarchy.
    Node,
}

/// What an endpoint's programs hang on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// As before, or put back to where somebody had taken it from.
    Standing(Target),
    /// Attached now: it has appeared, or has changed.
    Attached(Target),
}

/// Why an endpoint is not enforced.
#[derive(Debug)]
pub(crate) struct Unreached {
    /// It does not exist, yet or any more.
    pub(crate) waiting: bool,
    pub(crate) message: String,
}

impl BelowIp {
    fn flags(self) -> u16 {
        if self.dhcp_client {
            Endpoint::DHCP_CLIENT
        } else {
            0
        }
    }
}

impl Engine {
    /// Loads the programs and takes over what an earlier agent has left.
    pub(crate) fn start(
        dir: BpfDir,
        sizes: Sizes,
        below: BelowIp,
        helper: Option<Arc<Helper>>,
        interfaces: WorkloadInterfaces,
    ) -> anyhow::Result<Self> {
        let folder = dir.maps();
        let before = maps::inherit(&dir)?;
        let programs = Programs::load(&folder, &sizes, &below.frames)?;
        let capacity = Capacity {
            endpoints: maps::capacity(&folder, "WORDS")?,
            prefixes: maps::capacity(&folder, "IPCACHE_V4")?,
            sockets: maps::capacity(&folder, "SOCKETS")?,
            policy: maps::capacity(&folder, "POLICY")?,
            ports: maps::capacity(&folder, "PORTS")?,
            own_addresses: maps::capacity(&folder, "ADDRESSES")?,
        };
        let mut sync = Sync::adopt(PolicyMaps::open(&folder)?, capacity)?;
        sync.follow(before);
        Ok(Self {
            sync,
            interfaces: maps::interfaces(&folder)?,
            cgroups: maps::cgroups(&folder)?,
            hook: TcHook::of_kernel()?,
            helper,
            hastens: false,
            programs: Arc::new(Mutex::new(programs)),
            flows: FlowMaps::open(&folder)?,
            held: Held::open(&folder)?,
            attached: BTreeMap::new(),
            confining: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            observation: Observation::open(&folder)?,
            unseeded: BTreeMap::new(),
            pins: MapPins::open(&folder)?,
            processes: Processes::default(),
            noticed: Vec::new(),
            unrestored: BTreeSet::new(),
            guard: Guard::default(),
            unknown: Unknown::new(interfaces),
            links: Links::default(),
            flags: below.flags(),
            dir,
            sizes,
        })
    }

    /// Whether nothing is in force, by us or by an agent of another version.
    pub(crate) fn is_fresh(&self) -> anyhow::Result<bool> {
        Ok(self.programmed().words.is_empty()
            && attach::attached(&self.dir)?.is_empty()
            && self.holds_nothing_for_nobody()?)
    }

    /// Forgets the tables of agents of other versions: none of their programs is attached any more.
    pub(crate) fn remove_foreign_maps(&self) -> anyhow::Result<()> {
        Ok(self.dir.remove_foreign_maps()?)
    }

    /// Each table that was pinned with another size than is configured now.
    pub(crate) fn sizes_in_force(&self) -> Vec<String> {
        let held = self.sync.capacity();
        let Sizes {
            endpoints,
            prefixes,
            policy,
            ports,
            own_addresses,
            ..
        } = self.sizes;
        [
            ("endpoints", held.endpoints, endpoints),
            ("prefixes", held.prefixes, prefixes),
            ("policy", held.policy, policy),
            ("ports", held.ports, ports),
            ("addresses", held.own_addresses, own_addresses),
        ]
        .into_iter()
        .filter(|(_, held, wanted)| u32::try_from(*held) != Ok(*wanted))
        .map(|(table, held, wanted)| {
            format!("table `{table}` keeps its {held} entries, not the {wanted} of the settings")
        })
        .collect()
    }

    /// Where the maps are pinned.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.maps()
    }

    pub(crate) fn programs(&self) -> Arc<Mutex<Programs>> {
        Arc::clone(&self.programs)
    }

    pub(crate) fn programmed(&self) -> &Programmed {
        self.sync.programmed()
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        self.sync.capacity()
    }

    pub(crate) fn helper(&self) -> Option<Arc<Helper>> {
        self.helper.clone()
    }

    /// Finds flows that are no longer permitted.
    pub(crate) fn search(&self) -> anyhow::Result<Search> {
        lock(&self.programs).search(&self.folder())
    }

    /// Asks idle ends of connections to speak.
    pub(crate) fn prompter(&self) -> anyhow::Result<Prompter> {
        Prompter::new(self.programs())
    }

    /// See [`Sync::apply`].
    pub(crate) fn apply(&mut self, plan: &Arc<Plan>) -> Result<(), ApplyError> {
        self.sync.apply(plan)
    }

    /// Returns once no packet is judged any more by what was before the last plan.
    pub(crate) fn settle_plan(&mut self) {
        self.sync.settle();
    }

    /// Looks which interfaces there are, for what follows.
    pub(crate) fn look(&mut self) -> Result<(), LinkError> {
        self.links = Links::list()?;
        self.find_uplinks();
        Ok(())
    }

    /// An interface has appeared, or something about it has changed.
    pub(crate) fn appeared(&mut self, link: Link) {
        self.links.insert(link);
    }

    /// An interface is gone.
    ///
    /// The next one may have its number.
    pub(crate) fn vanished(&mut self, index: u32) {
        self.links.remove(index);
        self.unknown.forget(index);
    }

    /// Whether an interface leads into the namespace that an endpoint is known by.
    pub(crate) fn is_behind(&self, link: &Link, spec: Option<&EndpointSpec>) -> bool {
        match spec {
            Some(spec @ EndpointSpec::Netns(_)) => {
                let found = self.links.resolve(spec).and_then(Result::ok);
                found.is_some_and(|found| found.index == link.index)
            }
            _ => false,
        }
    }

    /// Whether the endpoint is at an interface that is there, or at a cgroup.
    pub(crate) fn is_placed(&self, endpoint: u16) -> bool {
        self.attached
            .get(&endpoint)
            .is_some_and(|attached| match attached.target() {
                Target::Interface { index, .. } => self.links.get(index).is_some(),
                Target::Cgroup { .. } => true,
            })
    }

    /// Looks whether names and tables are as they were left, and puts them right. Of large tables
    /// a part, until `goes_on` says no to the time spent; the next look goes on from there.
    pub(crate) fn look_after(&mut self, goes_on: impl Fn(Duration) -> bool) -> anyhow::Result<()> {
        // One that fails keeps none of the others from being restored.
        let mut failed = None;
        let unpinned = restored(self.pins.restore(&self.dir), &mut failed);
        let interfaces = restored(self.interfaces.restore(), &mut failed);
        let cgroups = restored(self.cgroups.restore(), &mut failed);
        let tables = restored(self.sync.restore(goes_on), &mut failed);
        // Now, so that the next plan need not wait.
        let tidied = self.sync.tidy().map_err(anyhow::Error::from);
        restored(tidied, &mut failed);
        self.sync.give_back();
        let written = [
            ("INTERFACES", interfaces),
            ("LEADS", self.interfaces.restore_leads()),
            ("CGROUPS", cgroups),
        ];
        let written = written.into_iter().chain(tables);
        let written = written.filter(|(_, count)| *count > 0);
        let found = unpinned.into_iter().map(|name| (Kind::Unpinned, name, 1));
        let found = found.chain(written.map(|(name, count)| (Kind::Written, name, count)));
        self.noticed
            .extend(found.map(|(kind, name, count)| Tampering {
                kind,
                what: format!("map {name}"),
                count,
                restored: true,
            }));
        self.note_processes();
        failed.map_or(Ok(()), Err)
    }

    /// Has processes noted where they make sockets, if they are not yet.
    pub(crate) fn note_processes(&mut self) {
        let tampering = self.processes.look_after(&self.dir, &self.sizes);
        self.noticed.extend(tampering);
    }

    /// Whose sockets are noted, and what of it cannot be.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Why a security module has no part in what an endpoint's sockets are refused, of one in a cgroup.
    pub(crate) fn unsecured(&self, endpoint: u16) -> Option<&str> {
        self.attached.get(&endpoint)?.unsecured()
    }

    /// How many programs of others run before an endpoint's; 0 if that cannot be read now.
    pub(crate) fn ahead(&self, endpoint: u16) -> u32 {
        let attached = self.attached.get(&endpoint);
        let ahead = attached.map(|attached| attached.ahead(&self.dir));
        match ahead {
            Some(Ok(ahead)) => ahead,
            Some(Err(error)) => {
                tracing::debug!(endpoint, %error, "cannot tell what runs before it");
                0
            }
            None => 0,
        }
    }

    /// What others have done since this was asked last.
    pub(crate) fn noticed(&mut self) -> Vec<Tampering> {
        std::mem::take(&mut self.noticed)
    }

    /// Takes the endpoint's programs off.
    pub(crate) fn release(&mut self, endpoint: u16) -> anyhow::Result<()> {
        self.leave(endpoint, None);
        attach::detach(&self.dir, endpoint)?;
        self.forget_interfaces(endpoint, None);
        self.forget_cgroups(endpoint, None);
        self.attached.remove(&endpoint);
        self.confining.remove(&endpoint);
        self.arrivals.remove(&endpoint);
        self.unseeded.remove(&endpoint);
        Ok(())
    }

    /// Takes off what an earlier agent attached for endpoints that there are no more.
    pub(crate) fn release_others(&mut self, keep: &BTreeSet<u16>) -> anyhow::Result<()> {
        let held = self.interfaces.iter().map(|(_, endpoint)| endpoint.id);
        let mut ended: BTreeSet<u16> = held.chain(attach::attached(&self.dir)?).collect();
        ended.retain(|endpoint| *endpoint != Endpoint::NOBODY.id && !keep.contains(endpoint));
        for endpoint in ended {
            self.release(endpoint)?;
        }
        self.retain_cgroups(|_, endpoint| keep.contains(&endpoint));
        Ok(())
    }

    /// Takes the endpoint's cgroups out, all but one.
    fn forget_cgroups(&mut self, endpoint: u16, keep: Option<u64>) {
        self.retain_cgroups(|cgroup, known| known != endpoint || Some(cgroup) == keep);
    }

    fn retain_cgroups(&mut self, keep: impl Fn(u64, u16) -> bool) {
        let known: Vec<u64> = self
            .cgroups
            .iter()
            .filter(|(cgroup, endpoint)| !keep(*cgroup, endpoint.id))
            .map(|(cgroup, _)| cgroup)
            .collect();
        for cgroup in known {
            if let Err(error) = self.cgroups.remove(cgroup) {
                tracing::debug!(cgroup, %error, "cgroup was already forgotten");
            }
        }
    }

    /// Takes the endpoint's interfaces out, all but one: the number of an interface that is gone
    /// may be given to another.
    fn forget_interfaces(&mut self, endpoint: u16, keep: Option<u32>) {
        self.leave(endpoint, keep);
        let known: Vec<u32> = self
            .interfaces
            .iter()
            .filter(|(index, known)| known.id == endpoint && Some(*index) != keep)
            .map(|(index, _)| index)
            .collect();
        for index in known {
            if let Err(error) = self.interfaces.remove(index) {
                tracing::debug!(index, %error, "interface was already forgotten");
            }
        }
        self.attached.remove(&endpoint);
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Declared(spec) => spec.fmt(f),
            Self::Node => f.write_str("node"),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Unreached {
    fn failed(error: &dyn std::fmt::Display) -> Self {
        Self {
            waiting: false,
            message: error.to_string(),
        }
    }

    fn of_attach(error: attach::AttachError) -> Self {
        Self {
            waiting: error.target_vanished(),
            message: format!("{:#}", anyhow::Error::from(error)),
        }
    }
}

fn restored<T: Default>(result: anyhow::Result<T>, failed: &mut Option<anyhow::Error>) -> T {
    result.unwrap_or_else(|error| {
        failed.get_or_insert(error);
        T::default()
    })
}

/// A thread that panicked with the programs in hand has not changed them.
pub(crate) fn lock(programs: &Mutex<Programs>) -> MutexGuard<'_, Programs> {
    programs.lock().unwrap_or_else(PoisonError::into_inner)
}
