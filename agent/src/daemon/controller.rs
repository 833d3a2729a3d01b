//! Owner of the desired state, and the only one who changes what the kernel enforces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_policy::{
    compile::{Compiler, Scope, carry_backends},
    compiled::{Clock, Compiled},
    model::{EndpointSpec, PolicyKind, SubjectName, Time, World},
    plan::Plan,
};
use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    control::status::{EndpointStatus, TableFill},
    daemon::{
        clock::Timekeeper,
        endpoints::Registry,
        inputs::{Inputs, Reload},
        inventory::{View, addresses, inventory},
        node,
        revoke::{Change, Revoker, Touched},
        service::Heartbeat,
        status::Shared,
        tampering::Teller,
        watch::{News, Trigger, Triggered},
    },
    datapath::{
        engine::{Engine, Place, Unreached},
        link, memory,
        tamper::Kind,
    },
    flow::{clock::BootTime, enrich::Known},
    source::watch::Places,
};

mod reach;

use self::reach::endpoint_status;

/// Between two looks at the files, where nobody hints at a change.
const FILES: Duration = Duration::from_millis(200);

/// Between two looks at everything else: an announcement may have been missed, and most of what
/// others can do to programs and tables is not announced. With the time between two looks at the
/// files, it is found within a second.
const BACKSTOP: Duration = Duration::from_millis(500);

/// What one look may spend on comparing tables, beside those that are compared as a whole.
const COMPARING: Duration = Duration::from_millis(20);

/// And what it spends although somebody waits: or who changes something all the time would keep the tables
/// from being compared.
const IN_ANY_CASE: Duration = Duration::from_millis(1);

/// What reading and putting into force together took, where it pays to give back what they needed meanwhile: it takes a
/// tenth of that.
const LARGE: Duration = Duration::from_millis(100);

/// Before a change that was refused is tried again.
const RETRY: Duration = Duration::from_secs(30);

pub(crate) struct Controller {
    inputs: Inputs,
    registry: Registry,
    timekeeper: Timekeeper,
    engine: Engine,
    /// Ends sockets whose flows are no longer permitted.
    revoker: Revoker,
    shared: Arc<Shared>,
    /// The name of this node: endpoints of others are none of ours.
    node: String,
    outlets: Outlets,
    /// Interfaces that were announced and not dealt with yet.
    news: News,
    /// Follows the inputs; `None` before the first time, and after one that did not come into force.
    compiler: Option<Compiler>,
    desired: Desired,
    /// Endpoints that are no more, and whose programs are still to be taken off.
    ended: BTreeSet<u16>,
    /// When the last change was tried that did not come into force.
    refused: Option<Instant>,
    /// What the last look at the files took, with reading them where they had changed.
    reading: Duration,
    /// When names and tables were last looked after.
    looked_after: Option<Instant>,
}

/// What outlives an agent, in the state folder and in the kernel.
pub(crate) struct Kept {
    pub(crate) registry: Registry,
    pub(crate) timekeeper: Timekeeper,
}

/// Who is told of what the controller does and finds.
pub(crate) struct Outlets {
    pub(crate) known: watch::Sender<Known>,
    pub(crate) cgroups: watch::Sender<Vec<EndpointSpec>>,
    pub(crate) places: watch::Sender<Places>,
    pub(crate) tampering: Teller,
}

/// What is to be, of the world that is in force.
#[derive(Debug, Default)]
struct Desired {
    world: Arc<World>,
    endpoints: BTreeMap<u16, Declared>,
    /// Of these, those that are declared by the name of their interface, and by their namespace.
    interfaces: BTreeMap<String, u16>,
    namespaces: BTreeSet<u16>,
    this_node: BTreeSet<IpAddr>,
    /// When it was compiled, and when it has to be once more.
    clock: Clock,
    next_change: Option<Time>,
}

/// An endpoint of this node.
#[derive(Debug)]
struct Declared {
    name: SubjectName,
    flags: u16,
    /// How many policies select it.
    policies: usize,
}

impl Controller {
    pub(crate) fn new(
        inputs: Inputs,
        kept: Kept,
        engine: Engine,
        shared: Arc<Shared>,
        node: String,
        outlets: Outlets,
        news: News,
    ) -> Self {
        let desired = Desired::default();
        let Kept {
            registry,
            timekeeper,
        } = kept;
        Self {
            inputs,
            registry,
            timekeeper,
            revoker: Revoker::start(
                engine.search(),
                engine.prompter(),
                engine.helper(),
                Arc::clone(&shared),
            ),
            engine,
            shared,
            node,
            outlets,
            news,
            compiler: None,
            desired,
            ended: BTreeSet::new(),
            refused: None,
            reading: Duration::ZERO,
            looked_after: None,
        }
    }

    /// Enforces what the inputs say now.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let this_node = link::addresses()?;
        self.enforce(self.inputs.world(), this_node)?;
        self.shared.loaded(Vec::new());
        self.watch_files();
        // Before their packets are seen.
        self.engine.note_processes();
        self.reach();
        self.engine
            .release_others(&self.desired.endpoints.keys().copied().collect())?;
        // What those were at may be held for nobody now.
        self.shared.holds(&self.engine.hold_unknown());
        self.engine.hasten();
        memory::give_back();
        self.engine.remove_foreign_maps()
    }

    /// Follows changes until told to stop. Whatever fails is shown in `status` and tried again.
    pub(crate) fn run(&mut self, triggers: &Triggered, mut heartbeat: Heartbeat) {
        let mut looked = Instant::now();
        loop {
            heartbeat.beat();
            let trigger = triggers.wait(heartbeat.patience(self.patience()));
            if trigger == Some(Trigger::Stop) {
                return;
            }
            self.greet(BootTime::now().0);
            let begun = Instant::now();
            let reload = self.inputs.reload();
            self.reading = begun.elapsed();
            let look = trigger == Some(Trigger::Kernel) || looked.elapsed() >= BACKSTOP;
            if let Some(reload) = reload {
                self.reload(reload);
            } else if look || self.is_due() {
                self.follow();
            } else {
                if trigger.is_none() {
                    self.improve();
                }
                continue;
            }
            looked = Instant::now();
            self.reach();
            self.greet(BootTime::now().0);
            self.look_after(|| triggers.is_woken());
        }
    }

    /// Has the time for what takes the kernel tens of milliseconds: nothing has happened for a while.
    fn improve(&mut self) {
        match self.engine.improve() {
            // Shows in `status`.
            Ok(true) => self.reach(),
            Ok(false) => {}
            Err(error) => {
                let error = error.message;
                tracing::debug!(error, "what hangs by filters stays so for now");
            }
        }
    }

    fn reload(&mut self, reload: Reload) {
        let Reload { world, errors } = reload;
        self.put_into_force(world, self.desired.this_node.clone(), errors);
        self.watch_files();
    }

    /// Has changes of files hinted at.
    fn watch_files(&self) {
        let places = self.inputs.places();
        self.outlets.places.send_if_modified(|watched| {
            let is_other = *watched != places;
            *watched = places;
            is_other
        });
    }

    /// Follows the node's addresses, which have a say in what its own endpoints accept, and tries
    /// again what was refused: room may be had now.
    fn follow(&mut self) {
        self.greet(BootTime::now().0);
        let this_node = match link::addresses() {
            Ok(this_node) => this_node,
            Err(error) => {
                tracing::error!(%error, "cannot follow the node's addresses");
                return;
            }
        };
        let again = self.refused.is_some_and(|at| at.elapsed() >= RETRY);
        let is_other = this_node != self.desired.this_node || self.is_due();
        if again || (self.refused.is_none() && is_other) {
            let (world, errors) = (self.inputs.world(), self.inputs.errors().to_vec());
            self.put_into_force(world, this_node, errors);
        }
    }

    /// Until the next look at the files, or at the clock.
    fn patience(&self) -> Duration {
        let Desired {
            clock, next_change, ..
        } = &self.desired;
        match next_change {
            // What was refused is not tried again at once.
            Some(at) if self.refused.is_none() => {
                let due = BootTime(clock.boot_nanos(*at)).since(BootTime::now());
                due.clamp(Duration::from_millis(1), FILES)
            }
            Some(_) | None => FILES,
        }
    }

    /// Whether time has moved on: an answer has changed by itself, or the clock has been set.
    fn is_due(&mut self) -> bool {
        let clock = self.timekeeper.read();
        let Desired {
            clock: compiled_at,
            next_change,
            ..
        } = &self.desired;
        clock.boot != compiled_at.boot || next_change.is_some_and(|at| clock.now >= at)
    }

    /// Enforces, and shows how that went besides what is wrong with the input.
    fn put_into_force(
        &mut self,
        world: Arc<World>,
        this_node: BTreeSet<IpAddr>,
        mut errors: Vec<String>,
    ) {
        self.refused = None;
        let begun = Instant::now();
        if let Err(error) = self.enforce(world, this_node) {
            let error = format!("{error:#}");
            tracing::error!("{error}");
            self.inputs.refused(&error);
            errors.push(error);
            self.refused = Some(Instant::now());
        }
        if self.reading + begun.elapsed() > LARGE {
            memory::give_back();
        }
        self.shared.loaded(errors);
    }

    /// Compiles and puts into force.
    ///
    /// # Errors
    ///
    /// What was in force still is.
    fn enforce(&mut self, world: Arc<World>, this_node: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let begun = Instant::now();
        // It has gone ahead of what is in force, should anything fail from here on.
        let compiler = self.compiler.take();
        let world = with_last_backends(&self.desired.world, world);
        let scope = Scope {
            subjects: self.subjects(&world),
            this_node: this_node.clone(),
        };
        let clock = self.timekeeper.read();
        let held = &self.engine.programmed().port_tables;
        let is_kept = compiler.is_some();
        let changes = world.changes_from(&self.desired.world);
        let mut compiler = match compiler {
            Some(mut compiler) => {
                // It has followed to the world of before, and keeps what it needs of it in maps of its own.
                compiler.apply(&changes, held);
                compiler.set_scope(scope, held);
                compiler.set_clock(clock, held);
                compiler
            }
            None => Compiler::new(&world, scope, held, clock),
        };
        let delta = compiler.take_delta();
        let tables = compiler.compiled();
        let local = local(tables);
        let capacity = self.engine.capacity().endpoints;
        let assignment = self.registry.assign(local.into_iter(), capacity)?;
        let endpoints = assignment.endpoints().clone();
        let programmed = self.engine.programmed();
        // A compiler that was kept has been followed to its last delta: nothing else can differ.
        let plan = if is_kept {
            Plan::of_delta(programmed, tables, &endpoints, &delta)
        } else {
            Plan::new(programmed, tables, &endpoints)
        };

        plan.check(self.engine.programmed(), self.engine.capacity())
            .map_err(crate::datapath::sync::ApplyError::Overflow)
            .context("the policy does not fit, and nothing has been changed")?;
        self.registry.keep(assignment)?;
        let compiling = begun.elapsed();
        let plan = Arc::new(plan);
        let in_force = BootTime::now();
        let changing = |is_changing| {
            let known = &self.outlets.known;
            known.send_modify(|known| known.is_changing = is_changing);
        };
        changing(true);
        if let Err(error) = self.engine.apply(&plan) {
            changing(false);
            return Err(error.into());
        }
        let since = Instant::now();
        let applying = begun.elapsed().saturating_sub(compiling);
        self.shared.latencies.took(compiling, applying);
        // Closed, until whoever is there now has been attached: never open in between.
        self.ended.extend(&plan.remove_words);
        if !plan.is_empty() {
            tracing::info!(
                generation = plan.generation,
                endpoints = plan.words.len(),
                prefixes = plan.prefixes.len(),
                answers = plan.policy.len(),
                reading = ?self.reading,
                ?compiling,
                ?applying,
                "policy is in force"
            );
        }
        // What is begun by what was before is begun when it is looked for.
        self.engine.settle_plan();
        self.revoker.follow(Change {
            touched: touched(plan.words.keys(), &world, tables, &endpoints),
            this_node: this_node.clone(),
            since,
        });
        let known = Arc::clone(&self.outlets.known.borrow().inventory);
        let seen = |world, this_node| View {
            world,
            node: &self.node,
            this_node,
        };
        let old = seen(&self.desired.world, &self.desired.this_node);
        let addresses = addresses(seen(&world, &this_node), old, &changes, &known.addresses);
        let words = &self.engine.programmed().words;
        let inventory = inventory(&world, tables, &endpoints, words, addresses, in_force);
        self.outlets.known.send_replace(Known {
            inventory: Arc::new(inventory),
            is_changing: false,
        });
        let (interfaces, namespaces) = places(&world, &endpoints);
        self.desired = Desired {
            endpoints: declared(tables, endpoints),
            interfaces,
            namespaces,
            next_change: tables.next_change,
            world,
            this_node,
            clock,
        };
        self.compiler = Some(compiler);
        self.outlets
            .cgroups
            .send_replace(self.desired.specs().cloned().collect());
        Ok(())
    }

    /// Whose traffic this node may have to judge.
    fn subjects(&self, world: &World) -> BTreeSet<SubjectName> {
        let local = world.workloads.values().filter(|workload| {
            let here = workload.node.as_ref().is_none_or(|node| *node == self.node);
            workload.endpoint.is_some() && here
        });
        local
            .map(|workload| workload.name.clone().into())
            .chain(node::subject(world, &self.node))
            .collect()
    }

    /// Has the sockets of these endpoints ended whose flows policy does not permit.
    fn cut<'e>(&self, endpoints: impl Iterator<Item = &'e u16>) {
        let Some(compiler) = &self.compiler else {
            return;
        };
        let Desired {
            world, this_node, ..
        } = &self.desired;
        let declared = self.desired.endpoints.iter();
        let names = declared
            .map(|(id, declared)| (*id, declared.name.clone()))
            .collect();
        self.revoker.follow(Change {
            touched: touched(endpoints, world, compiler.compiled(), &names),
            this_node: this_node.clone(),
            since: Instant::now(),
        });
    }

    /// Puts right what others have done, and tells of it; of large tables less where somebody waits.
    fn look_after(&mut self, is_woken: impl Fn() -> bool) {
        // However often it is woken.
        let is_due = |at: Instant| at.elapsed() >= FILES / 2;
        if self.looked_after.is_none_or(is_due) {
            self.looked_after = Some(Instant::now());
            let news = &self.news;
            let is_patient = |spent| spent < IN_ANY_CASE || !is_woken();
            let goes_on = |spent| spent < COMPARING && is_patient(spent) && !news.is_there();
            if let Err(error) = self.engine.look_after(goes_on) {
                tracing::error!("cannot restore what was tampered with: {error:#}");
            }
        }
        let noticed = self.engine.noticed();
        if noticed
            .iter()
            .any(|tampering| tampering.kind == Kind::Written)
        {
            self.judge_anew();
        }
        self.outlets.tampering.tell(noticed, &self.shared);
    }

    /// Has every flow judged by the tables as they are now: what others wrote there may have let
    /// some in, and those are remembered.
    fn judge_anew(&mut self) {
        let plan = Arc::new(Plan::anew(self.engine.programmed()));
        if let Err(error) = self.engine.apply(&plan) {
            tracing::error!("cannot judge flows once more: {error:#}");
            return;
        }
        self.engine.settle_plan();
        self.cut(plan.words.keys());
    }

    /// The node itself, where it should perhaps be an endpoint and is none.
    fn unconfined_node(&self) -> Option<EndpointStatus> {
        let message = node::unknown(&self.desired.world, &self.node)?;
        let name = SubjectName::Node(self.node.clone());
        let unreached = Unreached {
            waiting: false,
            message,
        };
        Some(endpoint_status(&name, Place::Node, 0, Err(unreached)))
    }

    /// Takes off the programs of endpoints that are no more; tries again at the next look.
    fn release_ended(&mut self) {
        let engine = &mut self.engine;
        self.ended.retain(|id| match engine.release(*id) {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(endpoint = id, error = format!("{error:#}"), "cannot detach");
                true
            }
        });
    }

    fn tables(&self) -> Vec<TableFill> {
        let (held, capacity) = (self.engine.programmed(), self.engine.capacity());
        let v4 = held
            .prefixes
            .keys()
            .filter(|prefix| prefix.addr().is_ipv4())
            .count();
        let ports = held.port_tables.values().map(|table| table.0.len()).sum();
        [
            (
                "endpoints",
                held.words.len(),
                capacity.endpoints.saturating_sub(1),
            ),
            ("ipcache_v4", v4, capacity.prefixes),
            ("ipcache_v6", held.prefixes.len() - v4, capacity.prefixes),
            ("sockets", held.sockets.len(), capacity.sockets),
            ("policy", held.policy.len(), capacity.policy),
            ("ports", ports, capacity.ports),
            ("addresses", held.own.len(), capacity.own_addresses),
        ]
        .map(|(name, used, capacity)| TableFill {
            name: name.to_owned(),
            used: u64::try_from(used).unwrap_or(u64::MAX),
            capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
        })
        .into()
    }
}

impl Desired {
    fn specs(&self) -> impl Iterator<Item = &EndpointSpec> {
        self.world
            .workloads
            .values()
            .filter_map(|workload| workload.endpoint.as_ref())
    }

    fn spec(&self, id: u16) -> Option<&EndpointSpec> {
        match self.place(&self.endpoints.get(&id)?.name)? {
            Place::Declared(spec) => Some(spec),
            Place::Node => None,
        }
    }

    /// Where an endpoint is found.
    fn place(&self, name: &SubjectName) -> Option<Place<'_>> {
        match name {
            SubjectName::Workload(name) => {
                let workload = self.world.workloads.get(name)?;
                workload.endpoint.as_ref().map(Place::Declared)
            }
            SubjectName::Node(_) => Some(Place::Node),
        }
    }

    /// How many policies there are of each kind.
    fn policies(&self) -> BTreeMap<PolicyKind, usize> {
        let mut kinds = BTreeMap::new();
        let network_policies = self.world.network_policies.len();
        if network_policies > 0 {
            kinds.insert(PolicyKind::NetworkPolicy, network_policies);
        }
        for id in self.world.tier_policies.keys() {
            *kinds.entry(id.kind).or_default() += 1;
        }
        kinds
    }
}

/// Which endpoints are known by an interface's name, and which by a namespace.
fn places(
    world: &World,
    endpoints: &BTreeMap<u16, SubjectName>,
) -> (BTreeMap<String, u16>, BTreeSet<u16>) {
    let (mut interfaces, mut namespaces) = (BTreeMap::new(), BTreeSet::new());
    for (id, name) in endpoints {
        let workload = name.workload().and_then(|name| world.workloads.get(name));
        match workload.and_then(|workload| workload.endpoint.as_ref()) {
            Some(EndpointSpec::Interface(interface)) => {
                interfaces.insert(interface.clone(), *id);
            }
            Some(EndpointSpec::Netns(_)) => {
                namespaces.insert(*id);
            }
            Some(EndpointSpec::Cgroup(_) | EndpointSpec::SystemdUnit(_)) | None => {}
        }
    }
    (interfaces, namespaces)
}

/// What served a Service last still counts where nothing serves it now.
fn with_last_backends(old: &World, new: Arc<World>) -> Arc<World> {
    if new.services.is_empty() {
        return new;
    }
    let mut new = Arc::unwrap_or_clone(new);
    carry_backends(old, &mut new);
    Arc::new(new)
}

/// Where these endpoints are; but for the node, whose sockets are those of nobody else.
fn touched<'e>(
    ids: impl Iterator<Item = &'e u16>,
    world: &World,
    tables: &Compiled,
    endpoints: &BTreeMap<u16, SubjectName>,
) -> BTreeMap<u16, Touched> {
    let touched = ids.filter_map(|id| {
        let name = endpoints.get(id)?;
        let workload = world.workloads.get(name.workload()?)?;
        let touched = Touched {
            name: name.clone(),
            flags: tables.subjects.get(name)?.flags,
            spec: workload.endpoint.clone()?,
        };
        Some((*id, touched))
    });
    touched.collect()
}

/// Those that are to have programs: a node that no policy selects is left alone.
fn local(compiled: &Compiled) -> Vec<&SubjectName> {
    let subjects = compiled.subjects.iter();
    subjects
        .filter(|(name, subject)| name.workload().is_some() || !subject.policies.is_empty())
        .map(|(name, _)| name)
        .collect()
}

fn declared(compiled: &Compiled, endpoints: BTreeMap<u16, SubjectName>) -> BTreeMap<u16, Declared> {
    let declared = endpoints.into_iter().filter_map(|(id, name)| {
        let subject = compiled.subjects.get(&name)?;
        let declared = Declared {
            flags: subject.flags,
            policies: subject.policies.len(),
            name,
        };
        Some((id, declared))
    });
    declared.collect()
}
