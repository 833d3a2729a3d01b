//! A plan is applied in steps, and no packet is judged by a mix of before and after.
//!
//! The tables here are a fake of the kernel's: map entries lead to slots, slots hold
//! [`Versioned`] words, each change is one store or one entry. After every one of them, every
//! endpoint is asked everything. The steps are those of the agent's datapath; what the fake does
//! not know is a packet that is judged while a step is taken.

#![cfg(feature = "strategies")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::{
    decide::{Question as Asked, Tables, decide},
    table::{self, Decision, Endpoint, NO_TABLE, PolicyKey, PortKey, Versioned, WORLD, Word},
    verdict::{Reason, Verdict},
};
use agent_policy::{
    compile::{Scope, compile},
    compiled::{Compiled, PortTable},
    model::{Direction, ObjectName, World},
    plan::{Change, ChangeKind, Plan, Programmed},
    question::{Origin, Question},
    strategies::{Borders, world},
};
use ipnet::IpNet;
use proptest::{prelude::*, test_runner::TestCaseError};

/// The kernel's tables.
#[derive(Clone, Debug, Default)]
struct Kernel {
    prefixes: BTreeMap<IpNet, Versioned>,
    policy: BTreeMap<PolicyKey, Versioned>,
    ports: BTreeMap<u32, PortTable>,
    words: BTreeMap<u16, Word>,
}

/// One store, or one entry of a map.
#[derive(Clone, Debug)]
enum Step {
    AddTable(u32, PortTable),
    Prefix(IpNet, Option<Versioned>),
    Policy(PolicyKey, Option<Versioned>),
    Word(u16, Word),
    RemoveTable(u32),
}

/// What is asked of one endpoint, and the answers that it had and will have.
struct Watch {
    id: u16,
    flags: u16,
    questions: Vec<Question>,
    before: Vec<Verdict>,
    after: Vec<Verdict>,
}

impl Kernel {
    fn take(&mut self, step: &Step) {
        match step {
            Step::AddTable(number, table) => {
                self.ports.insert(*number, table.clone());
            }
            Step::RemoveTable(number) => {
                self.ports.remove(number);
            }
            Step::Prefix(prefix, Some(answer)) => {
                self.prefixes.insert(*prefix, *answer);
            }
            Step::Prefix(prefix, None) => {
                self.prefixes.remove(prefix);
            }
            Step::Policy(key, Some(answer)) => {
                self.policy.insert(*key, *answer);
            }
            Step::Policy(key, None) => {
                self.policy.remove(key);
            }
            Step::Word(id, word) => {
                self.words.insert(*id, *word);
            }
        }
    }

    fn identity_of(&self, address: IpAddr) -> Versioned {
        self.prefixes
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map_or(Versioned::settled(WORLD), |(_, answer)| *answer)
    }

    fn table_of(&self, key: &PolicyKey) -> Versioned {
        let none = Versioned::settled(NO_TABLE);
        self.policy.get(key).copied().unwrap_or(none)
    }

    fn decision_of(&self, key: PortKey) -> Decision {
        let only = Compiled {
            port_tables: self
                .ports
                .get_key_value(&u32::from_be_bytes(key.table))
                .map(|(number, table)| (*number, table.clone()))
                .into_iter()
                .collect(),
            ..Compiled::default()
        };
        Tables::<[u8; 4]>::decision(&only, &key)
    }

    fn answers(&self, watch: &Watch) -> Vec<Verdict> {
        let word = self.words.get(&watch.id).copied().unwrap_or(Word::UNSET);
        let endpoint = Endpoint {
            id: watch.id,
            flags: watch.flags,
        };
        let ask = |question: &Question| self.answer(endpoint, word, question);
        watch.questions.iter().map(ask).collect()
    }

    fn answer(&self, endpoint: Endpoint, word: Word, question: &Question) -> Verdict {
        fn asked<A>(endpoint: Endpoint, word: Word, peer: A, local: A, of: &Question) -> Asked<A> {
            Asked {
                endpoint,
                word,
                direction: match of.direction {
                    Direction::Ingress => table::Direction::Ingress,
                    Direction::Egress => table::Direction::Egress,
                },
                local,
                peer,
                protocol: of.protocol,
                port: of.port,
                made_here: of.origin == Origin::ThisNode,
            }
        }
        // Never the endpoint's own address: that answer does not come from the tables.
        match question.peer {
            IpAddr::V4(peer) => {
                let (peer, local) = (peer.octets(), peer.octets().map(|byte| !byte));
                decide(self, &asked(endpoint, word, peer, local, question))
            }
            IpAddr::V6(peer) => {
                let (peer, local) = (peer.octets(), peer.octets().map(|byte| !byte));
                decide(self, &asked(endpoint, word, peer, local, question))
            }
        }
    }
}

impl Tables<[u8; 4]> for Kernel {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        self.identity_of(IpAddr::from(*address))
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_of(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_of(*key)
    }
}

impl Tables<[u8; 16]> for Kernel {
    fn identity(&self, address: &[u8; 16]) -> Versioned {
        self.identity_of(IpAddr::from(*address))
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_of(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_of(*key)
    }
}

/// The plan's steps in their order: prepare, switch, settle and remove.
fn steps(plan: &Plan) -> Vec<Step> {
    let opened =
        |change: &Change| Some(Versioned::new(change.before, change.after, plan.generation));
    let settled = |change: &Change| Some(Versioned::settled(change.after));
    let removed = |change: &Change| change.kind == ChangeKind::Remove;

    let mut steps = Vec::new();
    let tables = plan.add_tables.iter();
    steps.extend(tables.map(|(number, table)| Step::AddTable(*number, table.clone())));
    let prefixes = || plan.prefixes.iter();
    let policy = || plan.policy.iter();
    steps.extend(prefixes().map(|(prefix, change)| Step::Prefix(*prefix, opened(change))));
    steps.extend(policy().map(|(key, change)| Step::Policy(*key, opened(change))));
    steps.extend(plan.words.iter().map(|(id, word)| Step::Word(*id, *word)));
    let removed_words = plan.remove_words.iter();
    steps.extend(removed_words.map(|id| Step::Word(*id, Word::UNSET)));
    for (prefix, change) in prefixes() {
        steps.push(Step::Prefix(*prefix, settled(change)));
        steps.extend(removed(change).then_some(Step::Prefix(*prefix, None)));
    }
    for (key, change) in policy() {
        steps.push(Step::Policy(*key, settled(change)));
        steps.extend(removed(change).then_some(Step::Policy(*key, None)));
    }
    steps.extend(
        plan.remove_tables
            .keys()
            .map(|number| Step::RemoveTable(*number)),
    );
    steps
}

/// Takes every step of a plan and asks everything in between.
fn apply(kernel: &mut Kernel, plan: &Plan, watches: &[Watch]) -> Result<(), TestCaseError> {
    let mut switched = BTreeSet::new();
    for step in steps(plan) {
        kernel.take(&step);
        if let Step::Word(id, _) = &step {
            switched.insert(*id);
        }
        for watch in watches {
            let touched =
                plan.words.contains_key(&watch.id) || plan.remove_words.contains(&watch.id);
            let expected = if switched.contains(&watch.id) || !touched {
                &watch.after
            } else {
                &watch.before
            };
            prop_assert_eq!(
                &kernel.answers(watch),
                expected,
                "endpoint {} after {:?}",
                watch.id,
                step
            );
        }
    }
    Ok(())
}

fn scope(world: &World) -> Scope {
    Scope {
        subjects: world.workloads.keys().cloned().collect(),
        this_node: world.nodes["one"].addresses.clone(),
    }
}

/// A kernel that holds `compiled` and nothing else, with every endpoint in its state.
fn fresh(compiled: &Compiled, endpoints: &BTreeMap<u16, ObjectName>) -> Kernel {
    let mut kernel = Kernel::default();
    for step in steps(&Plan::new(&Programmed::default(), compiled, endpoints)) {
        kernel.take(&step);
    }
    kernel
}

/// Both worlds, where the second has some workloads and policies of its own and some of the first.
fn two_worlds() -> impl Strategy<Value = (World, World)> {
    (world(), world(), any::<bool>()).prop_map(|(old, mut new, same_workloads)| {
        if same_workloads {
            let policies = new.policies;
            new = World {
                policies,
                ..old.clone()
            };
        }
        (old, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_step_of_a_plan_mixes_old_and_new(
        ((old, new), old_questions, new_questions) in two_worlds().prop_flat_map(|(old, new)| {
            let questions = |world: &World| prop::collection::vec(Borders::of(world).question(), 15);
            let (of_old, of_new) = (questions(&old), questions(&new));
            (Just((old, new)), of_old, of_new)
        }),
    ) {
        let names: BTreeSet<&ObjectName> = old.workloads.keys().chain(new.workloads.keys()).collect();
        let endpoints: BTreeMap<u16, ObjectName> = (1..).zip(names.into_iter().cloned()).collect();
        let first = compile(&old, &scope(&old), &BTreeMap::new());
        let second = compile(&new, &scope(&new), &first.port_tables);
        let questions: Vec<Question> = old_questions.into_iter().chain(new_questions).collect();

        let mut kernel = fresh(&first, &endpoints);
        let goal = fresh(&second, &endpoints);
        let mut programmed = Programmed::default();
        Plan::new(&programmed, &first, &endpoints).finish(&mut programmed);
        let plan = Plan::new(&programmed, &second, &endpoints);
        let watches: Vec<Watch> = endpoints.iter().map(|(id, name)| {
            let of = |compiled: &Compiled| compiled.subjects.get(name).map(|subject| subject.flags);
            let mut watch = Watch {
                id: *id,
                flags: of(&second).or(of(&first)).unwrap_or_default(),
                questions: questions.clone(),
                before: Vec::new(),
                after: Vec::new(),
            };
            watch.before = kernel.answers(&watch);
            watch.after = goal.answers(&watch);
            watch
        }).collect();

        apply(&mut kernel, &plan, &watches)?;
        plan.finish(&mut programmed);
        prop_assert_eq!(&programmed.prefixes, &second.prefixes);
        prop_assert_eq!(&programmed.policy, &second.policy);
        prop_assert_eq!(&programmed.port_tables, &second.port_tables);
        let held: BTreeMap<IpNet, Versioned> = second.prefixes.iter()
            .map(|(prefix, identity)| (*prefix, Versioned::settled(*identity))).collect();
        prop_assert_eq!(kernel.prefixes, held);
        let again = Plan::new(&programmed, &second, &endpoints);
        prop_assert!(again.is_empty(), "a plan that leads nowhere: {:?}", again);
    }
}

#[test]
fn an_endpoint_without_a_word_is_closed() {
    let watch = Watch {
        id: 1,
        flags: 0,
        questions: Vec::new(),
        before: Vec::new(),
        after: Vec::new(),
    };
    assert!(Kernel::default().answers(&watch).is_empty());
    let question = Question {
        subject: ObjectName::new("a", "b"),
        direction: Direction::Egress,
        peer: IpAddr::from([1, 2, 3, 4]),
        protocol: 6,
        port: 80,
        origin: Origin::Forwarded,
    };
    let endpoint = Endpoint { id: 1, flags: 0 };
    let verdict = Kernel::default().answer(endpoint, Word::UNSET, &question);
    assert_eq!(verdict.reason(), Reason::NotProgrammed);
}
