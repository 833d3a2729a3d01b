//! The compiler: follows changes of the world, and keeps the tables that belong to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_common::table::{Endpoint, PolicyKey};
use ipnet::IpNet;

use crate::{
    compile::{
        Scope,
        ids::Ids,
        lists::{PeerLists, Touched, group},
        points::{Dirty, Facts, Points},
        policies::{self, Lowered, LoweredRule, Order},
        ports::{NamedPorts, names},
        select,
        services::{self, Frontends},
        sets::{Addresses, FailsafeRules, InUse, Numbers, PolicySet, Rows, SetContent, Tables},
    },
    compiled::{Clock, Compiled, PortTable, Subject},
    model::{Change, Direction, Mode, ObjectName, PolicyId, SubjectName, Time, Workload, World},
    question::{RuleId, View},
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
    services: BTreeSet<ObjectName>,
    failsafe: bool,
    places: Dirty,
    touched: Touched,
    /// Sets that say something else, though they are called the same.
    sets: BTreeSet<u32>,
}

impl Compiler {
    pub fn new(world: World, scope: Scope, held: &BTreeMap<u32, PortTable>, clock: Clock) -> Self {
        let mut compiler = Self {
            world: World::default(),
            scope: Scope::default(),
            clock,
            selections: BTreeMap::new(),
            in_use: BTreeMap::new(),
            failsafe: FailsafeRules::default(),
            rule_ids: Ids::below(u32::MAX),
            lists: PeerLists::new(),
            points: Points::new(),
            port_names: BTreeMap::new(),
            frontends: BTreeMap::new(),
            set_ids: Ids::below(u32::MAX),
            sets: BTreeMap::new(),
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
                        self.lists.enter(&self.world, group(new));
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
                self.lists.review_name(name, addresses.is_some());
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
        self.select(&agenda);
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
        self.write_rows(&agenda, held);
        self.compiled.next_change = self.next_change();
    }

    /// Which policies select which subjects.
    fn select(&mut self, agenda: &Agenda) {
        for subject in &agenda.subjects {
            if !self.is_subject(subject) {
                self.selections.remove(subject);
                continue;
            }
            let policies = self.selecting(subject);
            self.selections.insert(subject.clone(), policies);
        }
        for id in &agenda.policies {
            for (subject, selected) in &mut self.selections {
                if selects(&self.world, id, subject) {
                    selected.insert(id.clone());
                } else {
                    selected.remove(id);
                }
            }
        }
    }

    fn is_subject(&self, subject: &SubjectName) -> bool {
        let exists = match subject {
            SubjectName::Workload(name) => self.world.workloads.contains_key(name),
            SubjectName::Node(name) => self.world.nodes.contains_key(name),
        };
        exists && self.scope.subjects.contains(subject)
    }

    fn selecting(&self, subject: &SubjectName) -> BTreeSet<PolicyId> {
        let of_namespace = subject.workload().into_iter().flat_map(|name| {
            let first = ObjectName::new(name.namespace.clone(), "");
            let policies = self.world.network_policies.range(first..);
            policies
                .take_while(|(policy, _)| policy.namespace == name.namespace)
                .filter(|(_, policy)| select::isolates(&self.world, policy, subject))
                .map(|(policy, _)| PolicyId::network_policy(policy))
        });
        let tiers = self
            .world
            .tier_policies
            .iter()
            .filter(|(_, policy)| select::is_about(&self.world, &policy.subjects, subject))
            .map(|(id, _)| id.clone());
        of_namespace.chain(tiers).collect()
    }

    /// Takes policies into use that select somebody, and out of it that do not.
    fn lower(&mut self, agenda: &mut Agenda) {
        if agenda.failsafe {
            self.lower_failsafe(agenda);
        }
        let wanted: BTreeSet<PolicyId> = self.selections.values().flatten().cloned().collect();
        let gone: Vec<PolicyId> = self
            .in_use
            .keys()
            .filter(|id| !wanted.contains(id))
            .cloned()
            .collect();
        let now = self.clock.now;
        for id in wanted {
            let is_new = !self.in_use.contains_key(&id);
            if !is_new && !agenda.policies.contains(&id) {
                continue;
            }
            let Some(lowered) = policies::lower(&self.world, &id, now) else {
                continue;
            };
            if self
                .in_use
                .get(&id)
                .is_some_and(|known| known.lowered == lowered)
            {
                continue;
            }
            // The new lists before the old ones go: most are the same.
            let old = self.in_use.remove(&id);
            let in_use = self.take(lowered, agenda);
            if let Some(old) = old {
                self.give_back(&old, &in_use.lowered, agenda);
            }
            self.in_use.insert(id.clone(), in_use);
            let using = self
                .sets
                .iter()
                .filter(|(_, set)| set.content.policies.contains(&id));
            agenda.sets.extend(using.map(|(number, _)| *number));
        }
        for id in gone {
            if let Some(old) = self.in_use.remove(&id) {
                self.give_back(&old, &nothing(old.lowered.order.clone()), agenda);
            }
        }
    }

    fn lower_failsafe(&mut self, agenda: &mut Agenda) {
        let entries = Arc::clone(&self.world.failsafe);
        let mut side = |direction| -> Vec<(LoweredRule, Numbers)> {
            policies::lower_failsafe(&entries, direction)
                .into_iter()
                .map(|rule| {
                    let numbers = self.take_rule(&rule, agenda);
                    (rule, numbers)
                })
                .collect()
        };
        let new = FailsafeRules {
            ingress: side(Direction::Ingress),
            egress: side(Direction::Egress),
        };
        let kept: BTreeSet<RuleId> = new.all().map(|(rule, _)| rule.origin.id.clone()).collect();
        self.call_ports(new.egress.iter().map(|(rule, _)| rule));
        let old = std::mem::replace(&mut self.failsafe, new);
        self.call_ports_no_more(old.egress.iter().map(|(rule, _)| rule));
        for (rule, numbers) in old.all() {
            self.give_back_rule(rule, *numbers, &kept, agenda);
        }
        let on_nodes = self
            .sets
            .iter()
            .filter(|(_, set)| set.content.addresses == Addresses::OfNode);
        agenda.sets.extend(on_nodes.map(|(number, _)| *number));
    }

    fn take(&mut self, lowered: Lowered, agenda: &mut Agenda) -> InUse {
        let mut numbers = |rules: &[LoweredRule]| -> Vec<Numbers> {
            rules
                .iter()
                .map(|rule| self.take_rule(rule, agenda))
                .collect()
        };
        let (ingress, egress) = (
            numbers(&lowered.ingress.rules),
            numbers(&lowered.egress.rules),
        );
        self.call_ports(&lowered.egress.rules);
        InUse {
            lowered,
            ingress,
            egress,
        }
    }

    fn take_rule(&mut self, rule: &LoweredRule, agenda: &mut Agenda) -> Numbers {
        let number = self.rule_ids.number(&rule.origin.id);
        self.compiled.rules.insert(number, rule.origin.clone());
        let list = rule.peers.as_ref().map(|peers| {
            let (list, is_new) = self.lists.take(peers);
            if is_new {
                self.lists
                    .admit(&self.world, list, peers, &mut agenda.touched);
                let borders = self.points.blocks.add(list, peers);
                agenda.places.prefixes.extend(borders);
            }
            list
        });
        Numbers { rule: number, list }
    }

    /// Takes a policy out of use, in favour of `new`.
    fn give_back(&mut self, old: &InUse, new: &Lowered, agenda: &mut Agenda) {
        let kept: BTreeSet<RuleId> = new.rules().map(|rule| rule.origin.id.clone()).collect();
        let InUse {
            lowered,
            ingress,
            egress,
        } = old;
        let numbers = ingress.iter().chain(egress);
        for (rule, numbers) in lowered.rules().zip(numbers) {
            self.give_back_rule(rule, *numbers, &kept, agenda);
        }
        self.call_ports_no_more(&lowered.egress.rules);
    }

    /// Notes the names that egress rules call ports by.
    fn call_ports<'r>(&mut self, rules: impl IntoIterator<Item = &'r LoweredRule>) {
        for name in rules.into_iter().flat_map(|rule| names(&rule.ports)) {
            *self.port_names.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn call_ports_no_more<'r>(&mut self, rules: impl IntoIterator<Item = &'r LoweredRule>) {
        for name in rules.into_iter().flat_map(|rule| names(&rule.ports)) {
            if let Some(times) = self.port_names.get_mut(name) {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    self.port_names.remove(name);
                }
            }
        }
    }

    fn give_back_rule(
        &mut self,
        rule: &LoweredRule,
        numbers: Numbers,
        kept: &BTreeSet<RuleId>,
        agenda: &mut Agenda,
    ) {
        let Numbers { rule: number, list } = numbers;
        if !kept.contains(&rule.origin.id) {
            self.rule_ids.release(&rule.origin.id);
            self.compiled.rules.remove(&number);
        }
        if let Some(list) = list
            && let Some(peers) = self.lists.give_back(list)
        {
            self.lists.forget(list, &mut agenda.touched);
            let borders = self.points.blocks.remove(list, &peers);
            agenda.places.prefixes.extend(borders);
        }
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

    fn write_rows(&mut self, agenda: &Agenda, held: &BTreeMap<u32, PortTable>) {
        let (subjects, contents) = self.subjects();
        let (added, removed) = self.points.classes.take_changes();
        let mut rows = Rows {
            compiled: &mut self.compiled,
            tables: &mut self.tables,
            held,
            changed: &mut self.delta.policy,
            clock: self.clock,
        };
        let gone: Vec<u32> = self
            .sets
            .keys()
            .filter(|set| !contents.contains_key(set))
            .copied()
            .collect();
        for set in gone {
            rows.clear(set);
            self.sets.remove(&set);
        }
        for (number, content) in contents {
            match self.sets.get_mut(&number) {
                Some(set) if !agenda.sets.contains(&number) => {
                    for class in removed.difference(&added) {
                        for direction in Direction::BOTH {
                            rows.put(super::sets::key(number, direction, *class), None);
                        }
                    }
                    for class in &added {
                        if let Some(content) = self.points.classes.get(*class) {
                            set.answer(number, *class, content, &mut rows);
                        }
                    }
                }
                _ => {
                    let mut set = PolicySet::new(content, &self.in_use, &self.failsafe);
                    set.fill(number, &self.points.classes, &mut rows);
                    self.sets.insert(number, set);
                }
            }
        }
        self.compiled.subjects = subjects;
    }

    /// The subjects with the numbers of their sets, and what these are.
    fn subjects(&mut self) -> (BTreeMap<SubjectName, Subject>, BTreeMap<u32, SetContent>) {
        let mut subjects = BTreeMap::new();
        let mut contents: BTreeMap<u32, SetContent> = BTreeMap::new();
        let known: BTreeSet<SetContent> =
            self.sets.values().map(|set| set.content.clone()).collect();
        // In the order of contents, so that the order of the subjects has no say in the numbers.
        let wanted: BTreeMap<SubjectName, [SetContent; 3]> = self
            .selections
            .iter()
            .map(|(subject, policies)| {
                (
                    subject.clone(),
                    View::ALL.map(|view| self.content(subject, policies, view)),
                )
            })
            .collect();
        let distinct: BTreeSet<&SetContent> = wanted.values().flatten().collect();
        for content in known.iter().filter(|content| !distinct.contains(content)) {
            self.set_ids.release(content);
        }
        for content in distinct {
            contents.insert(self.set_ids.number(content), content.clone());
        }
        for (subject, [live, audit, staged]) in &wanted {
            let number = |content: &SetContent| self.set_ids.get(content).unwrap_or_default();
            let other = |content: &SetContent| (content != live).then(|| number(content));
            let subject_of = Subject {
                set: number(live),
                audit: other(audit),
                staged: other(staged),
                flags: match live.addresses {
                    Addresses::Own => Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE,
                    Addresses::OfNode => 0,
                },
                addresses: self.addresses(subject),
                policies: self.in_order(subject),
            };
            subjects.insert(subject.clone(), subject_of);
        }
        (subjects, contents)
    }

    fn content(
        &self,
        subject: &SubjectName,
        policies: &BTreeSet<PolicyId>,
        view: View,
    ) -> SetContent {
        let has_a_say = |id: &&PolicyId| {
            let mode = policies::mode(&self.world, id).unwrap_or_default();
            match (mode, view) {
                (Mode::Enforce, _) | (Mode::Audit, View::Audit) | (Mode::Staged, View::Staged) => {
                    true
                }
                (Mode::Audit | Mode::Staged, _) => false,
            }
        };
        let policies: BTreeSet<PolicyId> = policies.iter().filter(has_a_say).cloned().collect();
        let workload = subject
            .workload()
            .and_then(|name| self.world.workloads.get(name));
        let addresses = match workload {
            Some(workload) if workload.owns_its_addresses() => Addresses::Own,
            Some(_) | None => Addresses::OfNode,
        };
        let failsafe = self.failsafe.ingress.iter().map(|(rule, _)| rule);
        let in_use = policies.iter().filter_map(|id| self.in_use.get(id));
        let rules = in_use.flat_map(|in_use| &in_use.lowered.ingress.rules);
        let called: BTreeSet<&str> = rules
            .chain(failsafe)
            .flat_map(|rule| names(&rule.ports))
            .collect();
        let named = workload.map_or_else(NamedPorts::default, |workload| {
            NamedPorts::of(workload, |name| called.contains(name))
        });
        SetContent {
            policies,
            named,
            addresses,
        }
    }

    fn addresses(&self, subject: &SubjectName) -> BTreeSet<IpAddr> {
        match subject {
            SubjectName::Workload(name) => self
                .world
                .workloads
                .get(name)
                .map(|workload| workload.addresses.clone())
                .unwrap_or_default(),
            // What the node has itself is more than what the cluster knows of it.
            SubjectName::Node(_) => self.scope.this_node.clone(),
        }
    }

    /// The policies of a subject in the order in which they are asked.
    fn in_order(&self, subject: &SubjectName) -> Vec<PolicyId> {
        let selected = self.selections.get(subject).into_iter().flatten();
        let mut policies: Vec<(&Order, &PolicyId)> = selected
            .filter_map(|id| Some((&self.in_use.get(id)?.lowered.order, id)))
            .collect();
        policies.sort();
        policies.into_iter().map(|(_, id)| id.clone()).collect()
    }

    fn next_change(&self) -> Option<Time> {
        self.in_use
            .values()
            .flat_map(|in_use| in_use.lowered.rules())
            .filter_map(|rule| rule.timing.as_ref()?.changes.first().copied())
            .min()
    }
}

impl FailsafeRules {
    fn all(&self) -> impl Iterator<Item = &(LoweredRule, Numbers)> {
        self.ingress.iter().chain(&self.egress)
    }
}

fn selects(world: &World, id: &PolicyId, subject: &SubjectName) -> bool {
    if let Some(name) = policies::network_policy(id) {
        return world
            .network_policies
            .get(&name)
            .is_some_and(|policy| select::isolates(world, policy, subject));
    }
    world
        .tier_policies
        .get(id)
        .is_some_and(|policy| select::is_about(world, &policy.subjects, subject))
}

/// A policy without rules.
fn nothing(order: Order) -> Lowered {
    let side = || super::policies::Side {
        isolates: false,
        rules: Vec::new(),
    };
    Lowered {
        order,
        denied: crate::model::Denied::Drop,
        ingress: side(),
        egress: side(),
    }
}
