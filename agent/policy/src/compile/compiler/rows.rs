//! The last steps: subjects to policy sets, and sets to rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::Endpoint;

use super::{Agenda, Compiler};
use crate::{
    compile::{
        policies::{self, Order},
        ports::{NamedPorts, names},
        sets::{Addresses, PolicySet, Rows, SetContent, key},
    },
    compiled::{PortTable, Subject},
    model::{Direction, Mode, PolicyId, SubjectName},
    question::View,
};

impl Compiler {
    /// Gives subjects their sets; the contents of those that are new.
    pub(super) fn assign(&mut self, agenda: &Agenda) -> BTreeMap<u32, SetContent> {
        let mut wanted: BTreeMap<&SubjectName, [SetContent; 3]> = BTreeMap::new();
        for subject in &agenda.assign {
            if let Some(policies) = self.selections.get(subject) {
                let contents = View::ALL.map(|view| self.content(subject, policies, view));
                wanted.insert(subject, contents);
            } else {
                self.assigned.remove(subject);
                self.compiled.subjects.remove(subject);
            }
        }
        // In the order of contents, so that the order of the subjects has no say in the numbers.
        let distinct: BTreeSet<&SetContent> = wanted.values().flatten().collect();
        let mut new = BTreeMap::new();
        for content in distinct {
            let number = self.set_ids.number(content);
            if !self.sets.contains_key(&number) {
                new.insert(number, content.clone());
            }
        }
        for (subject, contents) in wanted {
            let [live, ..] = &contents;
            let flags = match (subject, live.addresses) {
                // Its hooks see what pods do, too.
                (SubjectName::Node(_), _) => Endpoint::ONLY_OWN,
                (_, Addresses::Own) => Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE,
                (_, Addresses::OfNode) => 0,
            };
            let numbers = contents.map(|content| self.set_ids.get(&content).unwrap_or_default());
            let [live, audit, staged] = numbers;
            let subject_of = Subject {
                set: live,
                audit: (audit != live).then_some(audit),
                staged: (staged != live).then_some(staged),
                flags,
                addresses: self.addresses(subject),
                policies: self.in_order(subject),
            };
            self.assigned.insert(subject.clone(), numbers);
            self.compiled.subjects.insert(subject.clone(), subject_of);
        }
        new
    }

    pub(super) fn write_rows(
        &mut self,
        agenda: &Agenda,
        new: BTreeMap<u32, SetContent>,
        held: &BTreeMap<u32, PortTable>,
    ) {
        let (added, removed) = self.points.classes.take_changes();
        let mut rows = Rows {
            compiled: &mut self.compiled,
            tables: &mut self.tables,
            held,
            changed: &mut self.delta.policy,
            clock: self.clock,
        };
        let used: BTreeSet<u32> = self.assigned.values().flatten().copied().collect();
        let set_ids = &mut self.set_ids;
        self.sets.retain(|number, set| {
            let is_used = used.contains(number);
            if !is_used {
                rows.clear(*number);
                set_ids.release(&set.content);
            }
            is_used
        });
        for (number, set) in &mut self.sets {
            if agenda.sets.contains(number) {
                // It is called the same, and says something else.
                *set = PolicySet::new(set.content.clone(), &self.in_use, &self.failsafe);
                set.fill(*number, &self.points.classes, &mut rows);
                continue;
            }
            for class in removed.difference(&added) {
                for direction in Direction::BOTH {
                    rows.put(key(*number, direction, *class), None);
                }
            }
            for class in &added {
                if let Some(content) = self.points.classes.get(*class) {
                    set.answer(*number, *class, content, &mut rows);
                }
            }
        }
        for (number, content) in new {
            let mut set = PolicySet::new(content, &self.in_use, &self.failsafe);
            set.fill(number, &self.points.classes, &mut rows);
            self.sets.insert(number, set);
        }
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
}
