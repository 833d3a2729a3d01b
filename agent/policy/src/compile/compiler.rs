//! The compiler: follows changes of the world, and keeps the tables that belong to it.

mod rows;
mod sockets;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use agent_common::table::PolicyKey;
use ipnet::IpNet;

use crate::{
    compile::{
        Scope,
        ids::Ids,
        lists::{PeerLists, Touched, group},
        points::{Dirty, Facts, Points},
        services::{self, Frontends},
        sets::{FailsafeRules, InUse, PolicySet, SetContent, Tables},
    },
    compiled::{Clock, Compiled, PortTable},
    model::{Change, ObjectName, PolicyId, SubjectName, Time, Workload, World},
    question::RuleId,
};

/// A world and its tables.
///
/// Every change is followed to its end: what it does not touch is not looked at again.
#[derive(Debug)]
pub struct Compiler {
    world: World,
    scope: Scope,
    clock: Clock,
    /// The policies that select a subject, whatever their mode.
    selections: BTreeMap<SubjectName, BTreeSet<PolicyId>>,
    selected_by: BTreeMap<PolicyId, BTreeSet<SubjectName>>,
    in_use: BTreeMap<PolicyId, InUse>,
    failsafe: FailsafeRules,
    rule_ids: Ids<RuleId>,
    lists: PeerLists,
    points: Points,
    /// Names of ports that egress rules use, and how often.
    port_names: BTreeMap<String, usize>,
    frontends: BTreeMap<ObjectName, Frontends>,
    set_ids: Ids<SetContent>,
    sets: BTreeMap<u32, PolicySet>,
    /// The sets of each subject, view by view.
    assigned: BTreeMap<SubjectName, [u32; 3]>,
    tables: Tables,
    compiled: Compiled,
    delta: Delta,
}

/// What has changed in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub prefixes: BTreeSet<IpNet>,
    pub policy: BTreeSet<PolicyKey>,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Agenda {
    subjects: BTreeSet<SubjectName>,
    policies: BTreeSet<PolicyId>,
    /// Those whose sets may be others.
    assign: BTreeSet<SubjectName>,
    services: BTreeSet<ObjectName>,
    failsafe: bool,
    places: Dirty,
    touched: Touched,
    /// Sets that say something else, though they are called the same.
    sets: BTreeSet<u32>,
}

impl Compiler {
    pub fn new(world: &World, scope: Scope, held: &BTreeMap<u32, PortTable>, clock: Clock) -> Self {
        let mut compiler = Self {
            world: World::default(),
            scope: Scope::default(),
            clock,
            selections: BTreeMap::new(),
            selected_by: BTreeMap::new(),
            in_use: BTreeMap::new(),
            failsafe: FailsafeRules::default(),
            rule_ids: Ids::below(u32::MAX),
            lists: PeerLists::new(),
            points: Points::new(),
            port_names: BTreeMap::new(),
            frontends: BTreeMap::new(),
            set_ids: Ids::below(u32::MAX),
            sets: BTreeMap::new(),
            assigned: BTreeMap::new(),
            tables: Tables::new(),
            compiled: Compiled::default(),
            delta: Delta::default(),
        };
        let mut agenda = Agenda::default();
        for change in world.changes_from(&World::default()) {
            compiler.note(&change, &mut agenda);
        }
        compiler.note_scope(scope, &mut agenda);
        compiler.refresh(agenda, held);
        compiler
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub fn into_compiled(self) -> Compiled {
        self.compiled
    }

    /// What has changed since this was last asked.
    pub fn take_delta(&mut self) -> Delta {
        std::mem::take(&mut self.delta)
    }

    /// Follows changes of the world. `held` is what the kernel holds now.
    pub fn apply(&mut self, changes: &[Change], held: &BTreeMap<u32, PortTable>) {
        let mut agenda = Agenda::default();
        for change in changes {
            self.note(change, &mut agenda);
        }
        self.refresh(agenda, held);
    }

    pub fn set_scope(&mut self, scope: Scope, held: &BTreeMap<u32, PortTable>) {
        let mut agenda = Agenda::default();
        self.note_scope(scope, &mut agenda);
        self.refresh(agenda, held);
    }

    /// Follows the time.
    pub fn set_clock(&mut self, clock: Clock, held: &BTreeMap<u32, PortTable>) {
        if self.clock == clock {
            return;
        }
        let is_reset = self.clock.boot != clock.boot;
        self.clock = clock;
        let mut agenda = Agenda::default();
        if is_reset {
            let timed = self.sets.iter().filter(|(_, set)| set.is_timed());
            agenda.sets.extend(timed.map(|(number, _)| *number));
        }
        for (id, in_use) in &self.in_use {
            if in_use.lowered.rules().any(|rule| rule.timing.is_some()) {
                agenda.policies.insert(id.clone());
            }
        }
        self.refresh(agenda, held);
    }

    /// Takes a change into the world, and notes what hangs on it.
    fn note(&mut self, change: &Change, agenda: &mut Agenda) {
        match change {
            Change::Workload(name, workload) => {
                let old = self.world.workloads.get(name).cloned();
                if let Some(old) = &old {
                    self.note_services(old, agenda);
                    agenda.places.hosts.extend(&old.addresses);
                    if !old.addresses.is_empty() {
                        self.lists.leave(&group(old));
                    }
                }
                self.world.apply(change);
                if let Some(new) = workload {
                    self.note_services(new, agenda);
                    agenda.places.hosts.extend(&new.addresses);
                    if !new.addresses.is_empty() {
                        self.lists.enter(&self.world, &group(new));
                    }
                }
                for address in old.iter().chain(workload).flat_map(|one| &one.addresses) {
                    let is_owned = self.world.addresses.contains_key(address);
                    self.points.own(*address, is_owned);
                }
                agenda.subjects.insert(name.clone().into());
            }
            Change::Namespace(name, _) => {
                self.world.apply(change);
                self.lists
                    .review_namespace(&self.world, name, &mut agenda.touched);
                let inside = services::in_namespace(&self.world, name);
                let subjects = inside.map(|workload| workload.name.clone().into());
                agenda.subjects.extend(subjects);
            }
            Change::Node(name, node) => {
                if let Some(old) = self.world.nodes.get(name) {
                    for address in &old.addresses {
                        self.points.node(*address, name, false);
                        agenda.places.hosts.insert(*address);
                    }
                }
                self.world.apply(change);
                for address in node.iter().flat_map(|node| &node.addresses) {
                    self.points.node(*address, name, true);
                    agenda.places.hosts.insert(*address);
                }
                self.lists.review_node(name, node.as_deref());
                agenda.subjects.insert(SubjectName::Node(name.clone()));
                // Ports of the nodes, and backends on the network of this one.
                agenda.services.extend(self.world.services.keys().cloned());
            }
            Change::Name(name, addresses) => {
                if let Some(old) = self.world.names.get(name) {
                    for address in old.iter() {
                        self.points.name(*address, name, false);
                        agenda.places.hosts.insert(*address);
                    }
                }
                self.world.apply(change);
                for address in addresses.iter().flat_map(|addresses| addresses.iter()) {
                    self.points.name(*address, name, true);
                    agenda.places.hosts.insert(*address);
                }
                self.lists.know_name(name, addresses.is_some());
            }
            Change::Service(name, _) => {
                self.world.apply(change);
                agenda.services.insert(name.clone());
            }
            Change::NetworkPolicy(name, _) => {
                self.world.apply(change);
                agenda.policies.insert(PolicyId::network_policy(name));
            }
            Change::TierPolicy(id, _) => {
                self.world.apply(change);
                agenda.policies.insert(id.clone());
            }
            Change::Failsafe(_) => {
                self.world.apply(change);
                agenda.failsafe = true;
            }
        }
    }

    fn note_scope(&mut self, scope: Scope, agenda: &mut Agenda) {
        let Scope {
            subjects,
            this_node,
        } = std::mem::replace(&mut self.scope, scope);
        for address in this_node.symmetric_difference(&self.scope.this_node) {
            let is_ours = self.scope.this_node.contains(address);
            self.points.this_node(*address, is_ours);
            agenda.places.hosts.insert(*address);
        }
        let moved = subjects.symmetric_difference(&self.scope.subjects);
        agenda.subjects.extend(moved.cloned());
        // A node has the addresses of its scope.
        let nodes = self.scope.subjects.iter();
        let nodes = nodes.filter(|subject| matches!(subject, SubjectName::Node(_)));
        agenda.assign.extend(nodes.cloned());
    }

    /// Services that may send to a workload.
    fn note_services(&self, workload: &Workload, agenda: &mut Agenda) {
        let first = ObjectName::new(workload.name.namespace.clone(), "");
        let inside = self
            .world
            .services
            .range(first..)
            .take_while(|(name, _)| name.namespace == workload.name.namespace);
        for (name, service) in inside {
            let selects = service.selector.as_ref().is_some_and(|selector| {
                let has = |(key, value)| workload.labels.get(key) == Some(value);
                selector.iter().all(has)
            });
            if selects {
                agenda.services.insert(name.clone());
            }
        }
    }

    fn refresh(&mut self, mut agenda: Agenda, held: &BTreeMap<u32, PortTable>) {
        self.select(&mut agenda);
        let names_before: BTreeSet<String> = self.port_names.keys().cloned().collect();
        self.lower(&mut agenda);
        self.locate(&mut agenda, &names_before);
        self.serve(&mut agenda);
        let facts = Facts {
            world: &self.world,
            lists: &self.lists,
            port_names: &self.port_names,
        };
        let places = std::mem::take(&mut agenda.places);
        let changed = self
            .points
            .refresh(&facts, places, &mut self.compiled.prefixes);
        self.delta.prefixes.extend(changed);
        self.meet();
        let new_sets = self.assign(&agenda);
        self.write_rows(&agenda, new_sets, held);
        self.compiled.next_change = self.next_change();
    }

    /// Finds the places of those whom changed lists concern.
    fn locate(&mut self, agenda: &mut Agenda, names_before: &BTreeSet<String>) {
        let Touched {
            groups,
            nodes,
            names,
            own_node,
        } = &agenda.touched;
        let hosts = &mut agenda.places.hosts;
        let names_now: BTreeSet<String> = self.port_names.keys().cloned().collect();
        let moved: BTreeSet<&String> = names_before.symmetric_difference(&names_now).collect();
        let renamed =
            |workload: &Workload| workload.ports.iter().any(|port| moved.contains(&port.name));
        let namespaces: BTreeSet<&String> = groups.iter().map(|(namespace, _)| namespace).collect();
        if moved.is_empty() {
            for namespace in namespaces {
                for workload in services::in_namespace(&self.world, namespace) {
                    if groups.contains(&group(workload)) {
                        hosts.extend(&workload.addresses);
                    }
                }
            }
        } else {
            for workload in self.world.workloads.values() {
                if renamed(workload) || groups.contains(&group(workload)) {
                    hosts.extend(&workload.addresses);
                }
            }
        }
        for node in nodes.iter().filter_map(|name| self.world.nodes.get(name)) {
            hosts.extend(&node.addresses);
        }
        for addresses in names.iter().filter_map(|name| self.world.names.get(name)) {
            hosts.extend(addresses.iter());
        }
        if *own_node {
            hosts.extend(&self.scope.this_node);
        }
    }

    /// Works out the frontends of Services that may have others.
    fn serve(&mut self, agenda: &mut Agenda) {
        for name in &agenda.services {
            let new = self
                .world
                .services
                .get(name)
                .map(|service| services::frontends(&self.world, service))
                .unwrap_or_default();
            let old = self.frontends.get(name).cloned().unwrap_or_default();
            if old == new {
                continue;
            }
            let touched = self.points.serve(name, &old, &new);
            agenda.places.hosts.extend(touched);
            if new.is_empty() {
                self.frontends.remove(name);
            } else {
                self.frontends.insert(name.clone(), new);
            }
        }
    }

    fn next_change(&self) -> Option<Time> {
        self.in_use
            .values()
            .flat_map(|in_use| in_use.lowered.rules())
            .filter_map(|rule| rule.timing.as_ref()?.changes.first().copied())
            .min()
    }
}
