//! Plans, carried out store by store on a kernel of ordered maps.
//!
//! After each single store, packets are judged by every word that a program may still hold. An
//! endpoint that has not switched answers as before, one that has answers as after, and none by a
//! mix. Beside `plan.rs`, which asks whoever begins now, this asks programs that are under way with
//! the word of before, and moves labels and addresses where policy stays. This kernel knows nothing
//! of slots, nor of room that is used again: the privileged tests do.

#![cfg(feature = "strategies")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::{
    decide::{Question as PacketQuestion, Tables, decide},
    protocol::Address,
    table::{self, Decision, Endpoint, NO_TABLE, PolicyKey, PortKey, Versioned, WORLD, Word},
    verdict::Verdict,
};
use agent_policy::{
    compile::{Scope, compile},
    compiled::Compiled,
    model::{Direction, ObjectName, World},
    plan::{Capacity, Change, ChangeKind, Plan, Programmed},
    question::{Origin, Question},
    strategies::{world, world_and_questions},
};
use ipnet::IpNet;
use proptest::prelude::*;

/// Questions asked after each store.
const QUESTIONS: usize = 100;

#[derive(Clone, Debug, Default)]
struct Kernel {
    prefixes: BTreeMap<IpNet, Versioned>,
    policy: BTreeMap<PolicyKey, Versioned>,
    /// Port tables alone; they never change.
    ports: Compiled,
    words: BTreeMap<u16, Word>,
}

impl Kernel {
    fn identity_of(&self, address: IpAddr) -> Versioned {
        self.prefixes
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map_or(Versioned::settled(WORLD), |(_, answer)| *answer)
    }
}

macro_rules! tables {
    ($($address:ty),*) => {$(
        impl Tables<$address> for Kernel {
            fn identity(&self, address: &$address) -> Versioned {
                self.identity_of(IpAddr::from(*address))
            }

            fn port_table(&self, key: &PolicyKey) -> Versioned {
                let none = Versioned::settled(NO_TABLE);
                self.policy.get(key).copied().unwrap_or(none)
            }

            fn decision(&self, key: &PortKey) -> Decision {
                Tables::<$address>::decision(&self.ports, key)
            }
        }
    )*};
}
tables!([u8; 4], [u8; 16]);

/// What one packet meets, for a program that has loaded `word`.
fn judged(kernel: &Kernel, flags: u16, word: Word, question: &Question) -> Verdict {
    fn ask<A: Address>(
        kernel: &impl Tables<A>,
        (flags, word, peer, local): (u16, Word, A, A),
        question: &Question,
    ) -> Verdict {
        let direction = match question.direction {
            Direction::Ingress => table::Direction::Ingress,
            Direction::Egress => table::Direction::Egress,
        };
        decide(
            kernel,
            &PacketQuestion {
                endpoint: Endpoint { id: 1, flags },
                word,
                direction,
                local,
                peer,
                protocol: question.protocol,
                port: question.port,
                made_here: question.origin == Origin::ThisNode,
            },
        )
    }
    match question.peer {
        IpAddr::V4(peer) => {
            let peer = peer.octets();
            ask(
                kernel,
                (flags, word, peer, peer.map(|byte| !byte)),
                question,
            )
        }
        IpAddr::V6(peer) => {
            let peer = peer.octets();
            ask(
                kernel,
                (flags, word, peer, peer.map(|byte| !byte)),
                question,
            )
        }
    }
}

/// Endpoints as they are before and after a plan, and the questions about them.
struct Watch<'a> {
    before: &'a Kernel,
    after: &'a Kernel,
    flags: &'a BTreeMap<u16, u16>,
    questions: &'a [(u16, &'a Question)],
}

impl Watch<'_> {
    /// Judges every question by the words of now, and before the grace period by those of before.
    fn look(&self, kernel: &Kernel, waited: bool) -> Result<(), TestCaseError> {
        for (id, question) in self.questions {
            let flags = self.flags.get(id).copied().unwrap_or_default();
            let (old, new) = (self.before.words.get(id), self.after.words.get(id));
            // An endpoint that goes has lost its programs; one that comes has none yet.
            let Some((&old, &new)) = old.zip(new) else {
                continue;
            };
            let now = kernel.words.get(id).copied().unwrap_or(Word::UNSET);
            let was = judged(self.before, flags, old, question);
            let will_be = judged(self.after, flags, new, question);
            if !waited {
                let seen = judged(kernel, flags, old, question);
                prop_assert_eq!(seen, was, "not switched: {:?}", question);
            }
            if now == new {
                let seen = judged(kernel, flags, now, question);
                prop_assert_eq!(seen, will_be, "switched: {:?}", question);
            }
        }
        Ok(())
    }
}

/// Carries `plan` out in the order of its description, and looks after each store.
fn apply(kernel: &mut Kernel, plan: &Plan, watch: &Watch<'_>) -> Result<(), TestCaseError> {
    for (number, table) in &plan.add_tables {
        kernel.ports.port_tables.insert(*number, table.clone());
        watch.look(kernel, false)?;
    }
    let prepared = |change: &Change| Versioned::new(change.before, change.after, plan.generation);
    for (prefix, change) in &plan.prefixes {
        kernel.prefixes.insert(*prefix, prepared(change));
        watch.look(kernel, false)?;
    }
    for (key, change) in &plan.policy {
        kernel.policy.insert(*key, prepared(change));
        watch.look(kernel, false)?;
    }
    for (id, word) in &plan.words {
        kernel.words.insert(*id, *word);
        watch.look(kernel, false)?;
    }
    for id in &plan.remove_words {
        kernel.words.remove(id);
    }
    // Here the agent waits: nobody holds an earlier word any more.
    for (prefix, change) in &plan.prefixes {
        kernel
            .prefixes
            .insert(*prefix, Versioned::settled(change.after));
        watch.look(kernel, true)?;
        if change.kind == ChangeKind::Remove {
            kernel.prefixes.remove(prefix);
            watch.look(kernel, true)?;
        }
    }
    for (key, change) in &plan.policy {
        kernel.policy.insert(*key, Versioned::settled(change.after));
        if change.kind == ChangeKind::Remove {
            kernel.policy.remove(key);
        }
        watch.look(kernel, true)?;
    }
    for number in plan.remove_tables.keys() {
        kernel.ports.port_tables.remove(number);
        watch.look(kernel, true)?;
    }
    Ok(())
}

/// What the kernel holds when nothing is under way.
fn at_rest(programmed: &Programmed) -> Kernel {
    let settled = |(key, answer): (&IpNet, &u32)| (*key, Versioned::settled(*answer));
    let policy = programmed.policy.iter();
    Kernel {
        prefixes: programmed.prefixes.iter().map(settled).collect(),
        policy: policy
            .map(|(key, answer)| (*key, Versioned::settled(*answer)))
            .collect(),
        ports: Compiled {
            port_tables: programmed.port_tables.clone(),
            ..Compiled::default()
        },
        words: programmed.words.clone(),
    }
}

/// One state after the other, from nothing, through every store between them.
fn walk(worlds: &[World], questions: &[Question]) -> Result<(), TestCaseError> {
    let names: BTreeSet<&ObjectName> = worlds.iter().flat_map(|w| w.workloads.keys()).collect();
    let numbers: BTreeMap<&ObjectName, u16> = names.into_iter().zip(1..).collect();
    let asked: Vec<(u16, &Question)> = questions
        .iter()
        .filter_map(|question| Some((*numbers.get(&question.subject)?, question)))
        .collect();
    let mut programmed = Programmed::default();
    let mut kernel = Kernel::default();
    for world in worlds {
        let scope = Scope {
            subjects: world.workloads.keys().cloned().collect(),
            this_node: world
                .nodes
                .values()
                .next()
                .map(|node| node.addresses.clone())
                .unwrap_or_default(),
        };
        let compiled = compile(world, &scope, &programmed.port_tables);
        let endpoints: BTreeMap<u16, ObjectName> = scope
            .subjects
            .iter()
            .map(|name| (numbers[name], name.clone()))
            .collect();
        let plan = Plan::new(&programmed, &compiled, &endpoints);
        let before = at_rest(&programmed);
        plan.finish(&mut programmed);
        let after = at_rest(&programmed);
        let flags = compiled
            .subjects
            .iter()
            .map(|(name, subject)| (numbers[name], subject.flags))
            .collect();
        let watch = Watch {
            before: &before,
            after: &after,
            flags: &flags,
            questions: &asked,
        };
        apply(&mut kernel, &plan, &watch)?;

        prop_assert_eq!(&kernel.words, &after.words);
        prop_assert_eq!(&programmed.prefixes, &compiled.prefixes);
        prop_assert_eq!(&programmed.policy, &compiled.policy);
        let again = Plan::new(&programmed, &compiled, &endpoints);
        prop_assert!(again.is_empty(), "not at rest: {again:#?}");
    }
    Ok(())
}

/// Without those of its policies whose turn `mask` leaves out.
fn thinned(world: &World, mask: &[bool]) -> World {
    let mut thinned = world.clone();
    let mut mask = mask.iter().cycle();
    thinned
        .policies
        .retain(|_, _| mask.next().copied().unwrap_or(true));
    thinned
}

/// The same workloads, each with the labels of the next.
fn relabelled(world: &World) -> World {
    let mut labels: Vec<_> = world.workloads.values().map(|w| w.labels.clone()).collect();
    labels.rotate_left(1);
    let mut relabelled = world.clone();
    for (workload, labels) in relabelled.workloads.values_mut().zip(labels) {
        workload.labels = labels;
    }
    relabelled
}

/// The same world, whose own node has other addresses: prefixes change, and no policy entry.
fn with_node_addresses_of(world: &World, other: &World) -> World {
    let mut moved = world.clone();
    let addresses = other.nodes.values().next().map(|node| &node.addresses);
    for node in moved.nodes.values_mut().take(1) {
        node.addresses = addresses.cloned().unwrap_or_default();
    }
    moved
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_policy_is_never_seen_by_halves(
        (world, questions) in world_and_questions(),
        masks in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), 1..4),
    ) {
        let mut worlds: Vec<World> = masks.iter().map(|mask| thinned(&world, mask)).collect();
        worlds.insert(1, world);
        walk(&worlds, &questions[..QUESTIONS])?;
    }

    #[test]
    fn changed_labels_and_node_addresses_are_never_seen_by_halves(
        (world, questions) in world_and_questions(),
        other in world(),
    ) {
        let moved = with_node_addresses_of(&world, &other);
        let worlds = [world.clone(), relabelled(&world), world, moved];
        walk(&worlds, &questions[..QUESTIONS])?;
    }

    #[test]
    fn another_world_is_never_seen_by_halves(
        (one, questions) in world_and_questions(),
        other in world(),
    ) {
        walk(&[one.clone(), other, one], &questions[..QUESTIONS])?;
    }

    #[test]
    fn a_plan_without_room_is_refused_with_the_numbers(world in world()) {
        let scope = Scope {
            subjects: world.workloads.keys().cloned().collect(),
            this_node: BTreeSet::new(),
        };
        let compiled = compile(&world, &scope, &BTreeMap::new());
        let endpoints = scope.subjects.iter().cloned().zip(1..).map(|(n, i)| (i, n)).collect();
        let plan = Plan::new(&Programmed::default(), &compiled, &endpoints);
        let entries = compiled.policy.len();
        let room = |policy| Capacity {
            endpoints: usize::MAX,
            prefixes: usize::MAX,
            policy,
            ports: usize::MAX,
            own_addresses: usize::MAX,
        };
        prop_assert_eq!(plan.check(&Programmed::default(), &room(entries)), Ok(()));
        if let Some(less) = entries.checked_sub(1) {
            let refused = plan.check(&Programmed::default(), &room(less)).unwrap_err();
            prop_assert_eq!(refused.len(), 1);
            prop_assert_eq!(
                refused[0].to_string(),
                format!("table `policy` has room for {less} entries and would need {entries}")
            );
        }
    }
}
