//! The first steps: which policies select whom, and what those in use are made of.

use std::{collections::BTreeSet, sync::Arc};

use super::{Agenda, Compiler};
use crate::{
    compile::{
        policies::{self, Lowered, LoweredRule, Order, Side},
        ports::names,
        select,
        sets::{Addresses, FailsafeRules, InUse, Numbers},
    },
    model::{Denied, Direction, ObjectName, PolicyId, SubjectName, World},
    question::RuleId,
};

impl Compiler {
    /// Which policies select which subjects.
    pub(super) fn select(&mut self, agenda: &mut Agenda) {
        let changed = agenda.policies.clone();
        let mut reviewed = std::mem::take(&mut agenda.subjects);
        for subject in &reviewed {
            let is_subject = self.is_subject(subject);
            let new = if is_subject {
                self.selecting(subject)
            } else {
                BTreeSet::new()
            };
            let old = self.selections.remove(subject).unwrap_or_default();
            for id in old.difference(&new) {
                self.unselect(id, subject, agenda);
            }
            for id in new.difference(&old) {
                self.note_selected(id, subject, agenda);
            }
            if is_subject {
                self.selections.insert(subject.clone(), new);
            }
        }
        // Those were asked about every policy; the others, about those that changed.
        for id in changed {
            let others: Vec<SubjectName> = self
                .selections
                .keys()
                .filter(|subject| !reviewed.contains(subject))
                .cloned()
                .collect();
            for subject in others {
                let is_selected = selects(&self.world, &id, &subject);
                let Some(selected) = self.selections.get_mut(&subject) else {
                    continue;
                };
                if is_selected {
                    agenda.assign.insert(subject.clone());
                    if selected.insert(id.clone()) {
                        self.note_selected(&id, &subject, agenda);
                    }
                } else if selected.remove(&id) {
                    agenda.assign.insert(subject.clone());
                    self.unselect(&id, &subject, agenda);
                }
            }
        }
        agenda.assign.append(&mut reviewed);
    }

    /// A policy that selects somebody for the first time comes into use.
    fn note_selected(&mut self, id: &PolicyId, subject: &SubjectName, agenda: &mut Agenda) {
        let subjects = self.selected_by.entry(id.clone()).or_default();
        if subjects.is_empty() {
            agenda.policies.insert(id.clone());
        }
        subjects.insert(subject.clone());
    }

    /// A policy that selects nobody any more goes out of use.
    fn unselect(&mut self, id: &PolicyId, subject: &SubjectName, agenda: &mut Agenda) {
        if let Some(subjects) = self.selected_by.get_mut(id) {
            subjects.remove(subject);
            if subjects.is_empty() {
                self.selected_by.remove(id);
                agenda.policies.insert(id.clone());
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
    pub(super) fn lower(&mut self, agenda: &mut Agenda) {
        if agenda.failsafe {
            self.lower_failsafe(agenda);
        }
        let now = self.clock.now;
        for id in std::mem::take(&mut agenda.policies) {
            let lowered = self
                .selected_by
                .contains_key(&id)
                .then(|| policies::lower(&self.world, &id, now))
                .flatten();
            let Some(lowered) = lowered else {
                if let Some(old) = self.in_use.remove(&id) {
                    self.give_back(&old, &nothing(old.lowered.order.clone()), agenda);
                }
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
        // A failsafe entry may call ports by name.
        agenda.assign.extend(self.selections.keys().cloned());
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
            self.lists.forget(list, &peers, &mut agenda.touched);
            let borders = self.points.blocks.remove(list, &peers);
            agenda.places.prefixes.extend(borders);
        }
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
    let side = || Side {
        isolates: false,
        rules: Vec::new(),
    };
    Lowered {
        order,
        denied: Denied::Drop,
        ingress: side(),
        egress: side(),
    }
}
