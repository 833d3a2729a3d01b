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
    table::{
        self, Decision, Endpoint, NO_SOCKET, NO_TABLE, PolicyKey, PortKey, SocketKey, THIS_NODE,
        Versioned, WORLD, Word,
    },
    verdict::{Reason, Verdict},
};
use agent_policy::{
    compile::{Compiler, Scope, compile},
    compiled::{Clock, Compiled, PortTable, Socket, Subject},
    model::{Change as WorldChange, Direction, ObjectName, SubjectName, Time, World},
    plan::{Change, ChangeKind, Plan, Programmed},
    question::{Origin, Question, View},
    strategies::{Borders, world},
};
use ipnet::IpNet;
use proptest::{prelude::*, test_runner::TestCaseError};

/// The kernel's tables.
#[derive(Clone, Debug, Default)]
struct Kernel {
    prefixes: BTreeMap<IpNet, Versioned>,
    sockets: BTreeMap<SocketKey, Versioned>,
    policy: BTreeMap<PolicyKey, Versioned>,
    ports: BTreeMap<u32, PortTable>,
    words: BTreeMap<u16, Word>,
    numbers: BTreeMap<SubjectName, u16>,
    /// Nanoseconds of the boot clock.
    now: u64,
}

/// One store, or one entry of a map.
#[derive(Clone, Debug)]
enum Step {
    AddTable(u32, PortTable),
    Prefix(IpNet, Option<Versioned>),
    Socket(SocketKey, Option<Versioned>),
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
            Step::Socket(key, Some(answer)) => {
                self.sockets.insert(*key, *answer);
            }
            Step::Socket(key, None) => {
                self.sockets.remove(key);
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
        self.ports
            .get(&u32::from_be_bytes(key.table))
            .map_or(Decision::NO_MATCH, |table| {
                table.decision(key.protocol, u16::from_be_bytes(key.port))
            })
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
        fn asked<A>(
            endpoint: Endpoint,
            word: Word,
            (peer, socket): (A, u32),
            local: A,
            of: &Question,
        ) -> Asked<A> {
            Asked {
                endpoint,
                word,
                direction: match of.direction {
                    Direction::Ingress => table::Direction::Ingress,
                    Direction::Egress => table::Direction::Egress,
                },
                local,
                peer,
                socket,
                protocol: of.protocol,
                port: of.port,
                made_here: of.origin == Origin::ThisNode,
            }
        }
        let number = |name: &ObjectName| self.numbers.get(&name.clone().into());
        let socket = question.socket.as_ref().and_then(number);
        let socket = socket.map_or(NO_SOCKET, |number| u32::from(*number));
        // Never the endpoint's own address: that answer does not come from the tables.
        match question.peer {
            IpAddr::V4(peer) => {
                let (peer, local) = (peer.octets(), peer.octets().map(|byte| !byte));
                decide(
                    self,
                    &asked(endpoint, word, (peer, socket), local, question),
                )
            }
            IpAddr::V6(peer) => {
                let (peer, local) = (peer.octets(), peer.octets().map(|byte| !byte));
                decide(
                    self,
                    &asked(endpoint, word, (peer, socket), local, question),
                )
            }
        }
    }
}

impl Tables<[u8; 4]> for Kernel {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        self.identity_of(IpAddr::from(*address))
    }

    fn socket(&self, key: &SocketKey) -> Versioned {
        let of_address = Versioned::settled(key.identity);
        self.sockets.get(key).copied().unwrap_or(of_address)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_of(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_of(*key)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

impl Tables<[u8; 16]> for Kernel {
    fn identity(&self, address: &[u8; 16]) -> Versioned {
        self.identity_of(IpAddr::from(*address))
    }

    fn socket(&self, key: &SocketKey) -> Versioned {
        let of_address = Versioned::settled(key.identity);
        self.sockets.get(key).copied().unwrap_or(of_address)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.table_of(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.decision_of(*key)
    }

    fn now(&self) -> u64 {
        self.now
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
    let sockets = || plan.sockets.iter();
    let policy = || plan.policy.iter();
    steps.extend(prefixes().map(|(prefix, change)| Step::Prefix(*prefix, opened(change))));
    steps.extend(sockets().map(|(key, change)| Step::Socket(*key, opened(change))));
    steps.extend(policy().map(|(key, change)| Step::Policy(*key, opened(change))));
    steps.extend(plan.words.iter().map(|(id, word)| Step::Word(*id, *word)));
    let removed_words = plan.remove_words.iter();
    steps.extend(removed_words.map(|id| Step::Word(*id, Word::UNSET)));
    for (prefix, change) in prefixes() {
        steps.push(Step::Prefix(*prefix, settled(change)));
        steps.extend(removed(change).then_some(Step::Prefix(*prefix, None)));
    }
    for (key, change) in sockets() {
        steps.push(Step::Socket(*key, settled(change)));
        steps.extend(removed(change).then_some(Step::Socket(*key, None)));
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

fn subjects(world: &World) -> impl Iterator<Item = SubjectName> {
    let workloads = world.workloads.keys().cloned().map(SubjectName::Workload);
    workloads.chain(world.nodes.keys().cloned().map(SubjectName::Node))
}

fn scope(world: &World) -> Scope {
    Scope {
        subjects: subjects(world).collect(),
        this_node: world.nodes["one"].addresses.clone(),
    }
}

/// A kernel that holds `compiled` and nothing else, with every endpoint in its state.
fn fresh(compiled: &Compiled, endpoints: &BTreeMap<u16, SubjectName>) -> Kernel {
    let numbers = endpoints.iter().map(|(id, name)| (name.clone(), *id));
    let mut kernel = Kernel {
        numbers: numbers.collect(),
        ..Kernel::default()
    };
    for step in steps(&Plan::new(&Programmed::default(), compiled, endpoints)) {
        kernel.take(&step);
    }
    kernel
}

/// A world, another one, and changes that lead from the first to the second: in batches, in any
/// order, by way of a third world, and some of them more than once.
fn increments() -> impl Strategy<Value = (World, World, Vec<Vec<WorldChange>>)> {
    let worlds = (world(), world(), world());
    (worlds, any::<[bool; 3]>(), any::<u64>()).prop_map(|((old, other, third), same, seed)| {
        let mut new = other;
        let [workloads, policies, services] = same;
        if workloads {
            new.workloads.clone_from(&old.workloads);
            new.namespaces.clone_from(&old.namespaces);
            new.addresses.clone_from(&old.addresses);
        }
        if policies {
            new.network_policies.clone_from(&old.network_policies);
            new.tier_policies.clone_from(&old.tier_policies);
        }
        if services {
            new.services.clone_from(&old.services);
        }
        let mut dice = Dice(seed);
        let mut batches = Vec::new();
        if dice.roll(2) == 0 {
            batches.extend(scattered(&mut dice, third.changes_from(&old)));
            batches.extend(scattered(&mut dice, new.changes_from(&third)));
        } else {
            batches.extend(scattered(&mut dice, new.changes_from(&old)));
        }
        (old, new, batches)
    })
}

/// Changes in one to four batches, a quarter of them also in a later one: it says the same again.
fn scattered(dice: &mut Dice, changes: Vec<WorldChange>) -> Vec<Vec<WorldChange>> {
    let mut batches: Vec<Vec<WorldChange>> = vec![Vec::new(); 1 + dice.roll(4)];
    for change in changes {
        let batch = dice.roll(batches.len());
        if dice.roll(4) == 0 {
            let last = batches.len() - 1;
            batches[last].push(change.clone());
        }
        let at = dice.roll(batches[batch].len() + 1);
        batches[batch].insert(at, change);
    }
    batches
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*state >> 33).unwrap() % sides
    }
}

/// What the sets of all subjects say of an identity.
type Rows = Vec<Vec<(u32, u8, u16, String)>>;

/// What tables say, whatever the numbers in them: of prefixes, and of sockets at addresses.
type Meaning = (BTreeMap<IpNet, Rows>, BTreeMap<(ObjectName, Rows), Rows>);

fn meaning(compiled: &Compiled) -> Meaning {
    let said = |decision: Decision| {
        let rule = |number| compiled.rules.get(&number).map(|rule| &rule.id);
        format!(
            "{:?} {} until {} then {:?} {}",
            rule(decision.rule),
            decision.action,
            decision.until,
            rule(decision.after_rule),
            decision.after_action
        )
    };
    let row = |set, direction, identity| -> Vec<(u32, u8, u16, String)> {
        let key = |identity| PolicyKey {
            set,
            direction,
            identity,
        };
        let table = compiled
            .policy
            .get(&key(identity))
            .or_else(|| compiled.policy.get(&key(WORLD)))
            .and_then(|number| compiled.port_tables.get(number));
        let entries = table.into_iter().flat_map(|table| &table.0);
        entries
            .map(|entry| (entry.bits, entry.protocol, entry.port, said(entry.decision)))
            .collect()
    };
    let rows = |identity: u32| -> Rows {
        let sets = compiled
            .subjects
            .values()
            .flat_map(agent_policy::compiled::Subject::sets);
        let mut rows: Rows = sets
            .flat_map(|set| [0, 1].map(|direction| row(set, direction, identity & !THIS_NODE)))
            .collect();
        rows.push(vec![(identity & THIS_NODE, 0, 0, String::new())]);
        rows
    };
    let everywhere = ["0.0.0.0/0", "::/0"].map(|prefix| (prefix.parse().unwrap(), WORLD));
    let prefixes = compiled
        .prefixes
        .iter()
        .map(|(prefix, identity)| (*prefix, *identity));
    let prefixes = everywhere.into_iter().chain(prefixes);
    let sockets = compiled.sockets.iter().map(|(socket, identity)| {
        let at = rows(socket.identity);
        ((socket.workload.clone(), at), rows(*identity))
    });
    (
        prefixes
            .map(|(prefix, identity)| (prefix, rows(identity)))
            .collect(),
        // Where it makes no difference, a class may have no number of its own.
        sockets.filter(|((_, at), told)| at != told).collect(),
    )
}

const CLOCK: Clock = Clock {
    now: Time::from_unix(1_000_000_000),
    boot: Time::from_unix(0),
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Increments end where one step would have, and on the way no packet is judged by a mix.
    #[test]
    fn no_step_of_a_plan_mixes_old_and_new(
        ((old, new, batches), old_questions, new_questions) in increments().prop_flat_map(|(old, new, batches)| {
            let questions = |world: &World| {
                prop::collection::vec(Borders::of(world).question(vec![CLOCK.now]), 15)
            };
            let (of_old, of_new) = (questions(&old), questions(&new));
            (Just((old, new, batches)), of_old, of_new)
        }),
    ) {
        let names: BTreeSet<SubjectName> = subjects(&old).chain(subjects(&new)).collect();
        let endpoints: BTreeMap<u16, SubjectName> = (1..).zip(names).collect();
        let all = Scope { subjects: endpoints.values().cloned().collect(), ..scope(&old) };
        let questions: Vec<Question> = old_questions.into_iter().chain(new_questions).collect();

        let mut compiler = Compiler::new(&old, all.clone(), &BTreeMap::new(), CLOCK);
        let mut kernel = fresh(compiler.compiled(), &endpoints);
        let mut programmed = Programmed::default();
        Plan::new(&programmed, compiler.compiled(), &endpoints).finish(&mut programmed);
        compiler.take_delta();
        for batch in &batches {
            let flags = |compiled: &Compiled, name| compiled.subjects.get(name).map(|subject| subject.flags);
            let before: BTreeMap<u16, Option<u16>> = endpoints.iter()
                .map(|(id, name)| (*id, flags(compiler.compiled(), name))).collect();
            compiler.apply(batch, &programmed.port_tables);
            let next = compiler.compiled();
            let goal = fresh(next, &endpoints);
            let watches: Vec<Watch> = endpoints.iter().map(|(id, name)| {
                let mut watch = Watch {
                    id: *id,
                    flags: flags(next, name).or(before[id]).unwrap_or_default(),
                    questions: questions.clone(),
                    before: Vec::new(),
                    after: Vec::new(),
                };
                watch.before = kernel.answers(&watch);
                watch.after = goal.answers(&watch);
                watch
            }).collect();
            let delta = compiler.take_delta();
            let plan = Plan::of_delta(&programmed, compiler.compiled(), &endpoints, &delta);
            let whole = Plan::new(&programmed, compiler.compiled(), &endpoints);
            prop_assert_eq!(&plan, &whole, "a plan of a delta is the plan of everything");
            apply(&mut kernel, &plan, &watches)?;
            plan.finish(&mut programmed);
            let again = Plan::new(&programmed, compiler.compiled(), &endpoints);
            prop_assert!(again.is_empty(), "a plan that leads nowhere: {:?}", again);
        }

        let compiled = compiler.compiled();
        prop_assert_eq!(&programmed.prefixes, &compiled.prefixes);
        prop_assert_eq!(&programmed.policy, &compiled.policy);
        prop_assert_eq!(&programmed.port_tables, &compiled.port_tables);
        let whole = compile(&new, &all, &BTreeMap::new(), CLOCK);
        prop_assert_eq!(compiler.world(), &new);
        prop_assert_eq!(&compiled.subjects.keys().collect::<Vec<_>>(), &whole.subjects.keys().collect::<Vec<_>>());
        prop_assert_eq!(&compiled.next_change, &whole.next_change);
        if *compiled != whole {
            // Two contents may have met in one number, and been given others in turn.
            prop_assert_eq!(meaning(compiled), meaning(&whole));
        }
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
        subject: ObjectName::new("a", "b").into(),
        direction: Direction::Egress,
        peer: IpAddr::from([1, 2, 3, 4]),
        socket: None,
        protocol: 6,
        port: 80,
        origin: Origin::Forwarded,
        view: View::Live,
        at: Time::default(),
    };
    let endpoint = Endpoint { id: 1, flags: 0 };
    let verdict = Kernel::default().answer(endpoint, Word::UNSET, &question);
    assert_eq!(verdict.reason(), Reason::NotProgrammed);
}

/// No answer changes, and yet its live flows are to be looked at.
#[test]
fn who_has_lost_an_address_is_judged_anew() {
    let name = ObjectName::new("shop", "client");
    let subject = |addresses: &[&str]| Subject {
        set: 3,
        audit: None,
        staged: None,
        flags: 0,
        addresses: addresses.iter().map(|at| at.parse().unwrap()).collect(),
        policies: Vec::new(),
    };
    let compiled = |addresses| Compiled {
        subjects: [(name.clone().into(), subject(addresses))].into(),
        ..Compiled::default()
    };
    let endpoints = BTreeMap::from([(1, name.clone().into())]);
    let mut programmed = Programmed::default();
    Plan::new(&programmed, &compiled(&["10.0.0.1"]), &endpoints).finish(&mut programmed);
    let more = Plan::new(&programmed, &compiled(&["10.0.0.1", "fd00::1"]), &endpoints);
    assert!(more.words.is_empty(), "{more:?}");
    let other = Plan::new(&programmed, &compiled(&["10.0.0.2"]), &endpoints);
    assert!(other.words.contains_key(&1), "{other:?}");
}

/// Found by the property above: an address of the node became that of a service too, which made no difference
/// to its policy set, but for who is known there by socket.
#[test]
fn who_is_known_by_socket_is_judged_anew_when_the_address_becomes_another() {
    const BEFORE: u32 = 10;
    const AFTER: u32 = 11;
    const CLIENT: u32 = 12;
    let (set, client) = (3, ObjectName::new("shop", "client"));
    let subject = Subject {
        set,
        audit: None,
        staged: None,
        flags: 0,
        addresses: BTreeSet::new(),
        policies: Vec::new(),
    };
    let key = |identity| PolicyKey {
        set,
        direction: table::Direction::Ingress as u32,
        identity,
    };
    let (node, other): (ipnet::IpNet, ipnet::IpNet) = (
        "10.0.0.1/32".parse().unwrap(),
        "10.0.0.2/32".parse().unwrap(),
    );
    let old = Compiled {
        prefixes: [(node, BEFORE), (other, BEFORE)].into(),
        sockets: [(
            Socket {
                workload: client.clone(),
                identity: BEFORE,
            },
            CLIENT,
        )]
        .into(),
        policy: [(key(WORLD), 1), (key(CLIENT), 2)].into(),
        subjects: [(client.clone().into(), subject)].into(),
        ..Compiled::default()
    };
    let endpoints = BTreeMap::from([(1, client.into())]);
    let mut programmed = Programmed::default();
    Plan::new(&programmed, &old, &endpoints).finish(&mut programmed);

    let new = Compiled {
        prefixes: [(node, AFTER), (other, BEFORE)].into(),
        ..old
    };
    let plan = Plan::new(&programmed, &new, &endpoints);
    assert!(
        plan.policy.is_empty() && plan.sockets.is_empty(),
        "{plan:?}"
    );
    assert!(plan.words.contains_key(&1), "{plan:?}");
}
