//! The datapath of one agent: its tables, its programs, and what they hang on.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
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
    attach::{self, Attached, Calls, Holder, Target, TcHook},
    bpffs::BpfDir,
    cgroup::{Cgroup, CgroupError, CgroupName, Hierarchy},
    engine::{
        arrival::{Arrival, Hold, Scout},
        guard::Guard,
        unknown::Unknown,
    },
    held::Held,
    helper::Helper,
    link::{self, Link, LinkError, Links},
    maps::{self, Cgroups, FlowMaps, Interfaces, MapPins, PolicyMaps},
    object::{CgroupPrograms, Frames, Programs, Sizes},
    process::Processes,
    prompt::Prompter,
    sync::{ApplyError, Sync},
    tamper::{Kind, Tampering},
    withdrawn::Search,
};

mod arrival;
mod guard;
mod haste;
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

/// The programs of an endpoint in a cgroup.
struct Confining {
    sends: OwnedFd,
    receives: OwnedFd,
    calls: Option<Calls>,
}

/// How an endpoint's programs are found.
enum Found {
    AsPut,
    /// Not where they have to be: the endpoint is new, or has moved.
    Elsewhere,
    Tampered(Kind),
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

    /// Sees to it that the endpoint's programs hang where they have to.
    pub(crate) fn reach(
        &mut self,
        endpoint: Endpoint,
        place: Place<'_>,
    ) -> Result<Reached, Unreached> {
        let spec = match place {
            Place::Declared(spec) => spec,
            Place::Node => return self.reach_node(endpoint),
        };
        match CgroupName::of(spec) {
            Some(Ok(name)) => {
                let cgroup = Hierarchy::find().and_then(|hierarchy| hierarchy.open(&name));
                self.reach_cgroup(endpoint, cgroup)
            }
            Some(Err(error)) => Err(Unreached::failed(&error)),
            None => self.reach_interface(endpoint, spec),
        }
    }

    fn reach_node(&mut self, endpoint: Endpoint) -> Result<Reached, Unreached> {
        let cgroup = Hierarchy::find().and_then(|hierarchy| hierarchy.open_root());
        let is_part = cgroup.as_ref().is_ok_and(|cgroup| !cgroup.is_root());
        let reached = self.reach_cgroup(endpoint, cgroup)?;
        if is_part {
            // Better than nothing, and not what was asked for.
            return Err(Unreached::failed(
                &"only a part of the cgroup hierarchy can be seen from here: processes outside of \
                  it are not confined; run the agent in the cgroup namespace of the host",
            ));
        }
        Ok(reached)
    }

    fn reach_interface(
        &mut self,
        endpoint: Endpoint,
        spec: &EndpointSpec,
    ) -> Result<Reached, Unreached> {
        let endpoint = endpoint.with(self.flags);
        let found = match self.links.resolve(spec) {
            // A list that is made while others come and go may lack one that is there, and to take that for gone
            // would close it: before it is believed, it is asked for by itself.
            Some(Err(error)) if error.may_pass() && self.attached.contains_key(&endpoint.id) => {
                let found = link::resolve(spec);
                if let Some(Ok(link)) = &found {
                    self.links.insert(link.clone());
                }
                found
            }
            found => found,
        };
        let link = match found {
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                if error.may_pass() {
                    self.forget_interfaces(endpoint.id, None);
                    self.arrivals.remove(&endpoint.id);
                }
                return Err(Unreached {
                    waiting: error.may_pass(),
                    message: error.to_string(),
                });
            }
            None => return Err(Unreached::failed(&"not an interface")),
        };
        let target = Target::Interface {
            index: link.index,
            hook: self.hook_at(link.index),
        };
        match self.found(endpoint.id, target) {
            Found::AsPut => return Ok(Reached::Standing(target)),
            Found::Elsewhere => {}
            Found::Tampered(kind) => {
                let restored = self.attach_again(endpoint, link.index);
                let restored = restored.map(drop);
                return self.tampered(endpoint.id, kind, spec.to_string(), target, restored);
            }
        }
        let holder = self.interfaces.get(link.index);
        let was_unknown = self.is_held_for_nobody(link.index);
        // What was open until now has flows that nothing has judged yet; what was closed may have them of
        // before that.
        let is_first = was_unknown || self.is_first(endpoint, target, holder);
        let scout = self.scout(endpoint, is_first, |engine| {
            engine.scout_behind(endpoint, spec)
        });
        let is_observed = scout.as_ref().is_some_and(Scout::has_flows);
        // What is closed stays so until its flows are taken up: nothing can begin unseen meanwhile.
        let stays_closed = is_observed && was_unknown && self.unknown.is_strict();
        let shown = if is_observed {
            endpoint.observed()
        } else {
            endpoint
        };
        // Before the programs, which drop what comes from an interface that they do not know; and
        // before an earlier interface is forgotten, which may be this one.
        if !stays_closed {
            self.interfaces
                .insert(link.index, shown)
                .map_err(|error| Unreached::failed(&error))?;
        }
        self.forget_interfaces(endpoint.id, Some(link.index));
        let from = match holder {
            _ if was_unknown => Some(Holder::Unknown(link.index)),
            Some(holder) if holder.id != endpoint.id => Some(Holder::Endpoint(holder.id)),
            Some(_) | None => None,
        };
        if let Some(from) = from {
            // The same interface under another number: its programs stay where they are. They
            // could not be attached a second time, and must not be taken off in between.
            let to = Holder::Endpoint(endpoint.id);
            attach::hand_over(&self.dir, from, to, link.index).map_err(Unreached::of_attach)?;
            if let Holder::Endpoint(holder) = from {
                self.attached.remove(&holder);
            }
        }
        let target = match self.attach_interface(endpoint.id, link.index) {
            Ok(target) => target,
            Err(error) => {
                // One direction may hang there: it is not to stay open.
                self.interfaces
                    .insert(link.index, endpoint)
                    .map_err(|error| Unreached::failed(&error))?;
                return Err(error);
            }
        };
        if was_unknown && let Err(error) = self.pass_on(link.index) {
            // It is let go with the next look. What follows here must not wait for that: nobody else does it.
            let error = error.message;
            tracing::warn!(interface = link.name, error, "cannot be passed on for now");
        }
        if let Some(scout) = scout {
            let hold = if is_observed {
                Hold::Interface { index: link.index }
            } else {
                Hold::Enforced
            };
            self.arrivals.insert(endpoint.id, Arrival::new(scout, hold));
        }
        Ok(Reached::Attached(target))
    }

    fn attach_again(&mut self, endpoint: Endpoint, index: u32) -> Result<Target, Unreached> {
        self.pin_again(endpoint.id)?;
        self.attach_interface(endpoint.id, index)
    }

    fn attach_interface(&mut self, endpoint: u16, index: u32) -> Result<Target, Unreached> {
        let attached = self.hang(index, |hook, programs| {
            attach::attach_interface(&self.dir, endpoint, index, hook, programs)
        })?;
        let target = attached.target();
        self.attached.insert(endpoint, attached);
        // It may have been a cgroup before.
        self.confining.remove(&endpoint);
        Ok(target)
    }

    fn reach_cgroup(
        &mut self,
        endpoint: Endpoint,
        cgroup: Result<Cgroup, CgroupError>,
    ) -> Result<Reached, Unreached> {
        let cgroup = cgroup.map_err(|error| Unreached {
            waiting: error.may_pass(),
            message: error.to_string(),
        })?;
        let target = Target::Cgroup { id: cgroup.id() };
        match self.found(endpoint.id, target) {
            Found::AsPut => return Ok(Reached::Standing(target)),
            Found::Elsewhere => {}
            Found::Tampered(kind) => {
                let restored = self
                    .pin_again(endpoint.id)
                    .and_then(|()| self.confine(endpoint.id, &cgroup));
                let what = format!("cgroup {}", cgroup.path().display());
                return self.tampered(endpoint.id, kind, what, target, restored);
            }
        }
        let programs = self.load_for_cgroup(endpoint)?;
        self.confining.insert(endpoint.id, programs);
        // After what takes time: what begins from here on may be missed.
        let holder = self.cgroups.get(cgroup.id());
        let is_first = self.is_first(endpoint, target, holder);
        let scout = self.scout(endpoint, is_first, |engine| {
            engine.scout_here(endpoint, &cgroup)
        });
        let observing = if scout.as_ref().is_some_and(Scout::has_flows) {
            Some(self.load_for_cgroup(endpoint.observed())?)
        } else {
            None
        };
        let shown = if observing.is_some() {
            endpoint.observed()
        } else {
            endpoint
        };
        self.cgroups
            .insert(cgroup.id(), shown)
            .map_err(|error| Unreached::failed(&error))?;
        self.forget_cgroups(endpoint.id, Some(cgroup.id()));
        self.leave(endpoint.id, None);
        let observed = observing
            .as_ref()
            .and_then(|programs| programs.hang(&self.dir, endpoint.id, &cgroup).ok());
        match observed {
            Some(attached) => self.hangs(endpoint.id, attached),
            // Nor is a direction to stay open that could be observed, if the other could not.
            None => self.confine(endpoint.id, &cgroup)?,
        }
        if let Some(scout) = scout {
            let hold = if observing.is_some() {
                Hold::Cgroup(cgroup)
            } else {
                Hold::Enforced
            };
            self.arrivals.insert(endpoint.id, Arrival::new(scout, hold));
        }
        Ok(Reached::Attached(target))
    }

    fn load_for_cgroup(&self, endpoint: Endpoint) -> Result<Confining, Unreached> {
        let notes = lock(&self.programs).notes();
        CgroupPrograms::load(&self.folder(), &self.sizes, endpoint, notes)
            .and_then(|programs| {
                let [sends, receives] = programs.fds()?;
                Ok(Confining {
                    sends: sends.try_clone_to_owned()?,
                    receives: receives.try_clone_to_owned()?,
                    calls: programs.calls()?,
                })
            })
            .map_err(|error| Unreached::failed(&format!("{error:#}")))
    }

    /// Attaches the programs that are loaded for the endpoint's cgroup.
    fn confine(&mut self, endpoint: u16, cgroup: &Cgroup) -> Result<(), Unreached> {
        let programs = self.confining.get(&endpoint);
        let programs = programs.ok_or_else(|| Unreached::failed(&"its programs are not loaded"))?;
        let attached = programs.hang(&self.dir, endpoint, cgroup)?;
        self.hangs(endpoint, attached);
        Ok(())
    }

    fn hangs(&mut self, endpoint: u16, attached: Attached) {
        self.forget_interfaces(endpoint, None);
        self.attached.insert(endpoint, attached);
    }

    /// Links that are still held get their names back: a second link of one program is refused.
    fn pin_again(&self, endpoint: u16) -> Result<(), Unreached> {
        match self.attached.get(&endpoint) {
            Some(attached) => attached.pin_again().map_err(Unreached::of_attach),
            None => Ok(()),
        }
    }

    /// Remembers what was done to an endpoint's programs; of what cannot be put right, once.
    fn tampered(
        &mut self,
        endpoint: u16,
        kind: Kind,
        what: String,
        target: Target,
        restored: Result<(), Unreached>,
    ) -> Result<Reached, Unreached> {
        let is_known = match &restored {
            Ok(()) => {
                self.unrestored.remove(&endpoint);
                false
            }
            // The interface or cgroup goes, and takes with it what hung there.
            Err(error) if error.waiting => true,
            Err(_) => !self.unrestored.insert(endpoint),
        };
        if !is_known {
            self.noticed.push(Tampering {
                kind,
                what,
                count: 1,
                restored: restored.is_ok(),
            });
        }
        restored.map(|()| Reached::Standing(target))
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

    fn found(&self, endpoint: u16, target: Target) -> Found {
        let attached = self.attached.get(&endpoint);
        let Some(attached) = attached.filter(|attached| attached.target() == target) else {
            return Found::Elsewhere;
        };
        match attached.interference(&self.dir) {
            Ok(None) => Found::AsPut,
            Ok(Some(kind)) => Found::Tampered(kind),
            // To attach once more is right, whatever cannot be read.
            Err(error) => {
                tracing::warn!(endpoint, %error, "cannot tell what is attached");
                Found::Elsewhere
            }
        }
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

impl Confining {
    fn hang(&self, dir: &BpfDir, endpoint: u16, cgroup: &Cgroup) -> Result<Attached, Unreached> {
        let Self {
            sends,
            receives,
            calls,
        } = self;
        let fds = attach::Programs {
            sends: sends.as_fd(),
            receives: receives.as_fd(),
            calls: calls.as_ref(),
        };
        attach::attach_cgroup(dir, endpoint, cgroup, fds).map_err(Unreached::of_attach)
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
