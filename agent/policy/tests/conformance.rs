//! Every vector, cell by cell, against every evaluator.
//!
//! Where the vectors come from and what they say: `conformance/README.md`.

#[path = "support/load.rs"]
mod load;
#[path = "support/table.rs"]
mod table;
#[path = "support/vectors.rs"]
mod vectors;

use agent_policy::{
    compiled::Everywhere,
    connection::{Connection, End, Perspective, Port, Verdict},
    model::{Time, World},
    question::Evaluator,
    reference::Reference,
};
use table::{Cell, Diff};
use vectors::{File, State};

/// Makes an evaluator for a world.
type Make = for<'w> fn(&'w World) -> Box<dyn Evaluator + 'w>;

/// What was compared, so that nothing is skipped without anybody noticing.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    cases: usize,
    checks: usize,
}

impl Tally {
    fn new(cases: usize, checks: usize) -> Self {
        Self { cases, checks }
    }
}

const CYCLONUS: &str = include_str!("conformance/netpol-cyclonus.json");
const RECIPES: &str = include_str!("conformance/recipes.json");
const SUITE: &str = include_str!("conformance/cnp-conformance.json");
const ASSISTANT: &str = include_str!("conformance/cnp-policy-assistant.json");

#[test]
fn the_reference_agrees_with_cyclonus() {
    let tally = compare_tables(CYCLONUS, |world| Box::new(Reference(world)));
    assert_eq!(tally, Tally::new(276, 129_828));
}

#[test]
fn the_reference_agrees_with_the_recipes() {
    let tally = compare_probes(RECIPES, |world| Box::new(Reference(world)));
    assert_eq!(tally, Tally::new(22, 109));
}

#[test]
fn the_reference_agrees_with_the_suite_of_cluster_network_policy() {
    let tally = compare_probes(SUITE, |world| Box::new(Reference(world)));
    assert_eq!(tally, Tally::new(24, 301));
}

#[test]
fn the_reference_agrees_with_policy_assistant() {
    let tally = compare_tables(ASSISTANT, |world| Box::new(Reference(world)));
    assert_eq!(tally, Tally::new(21, 1_090));
}

#[test]
fn the_compiled_tables_agree_with_cyclonus() {
    let tally = compare_tables(CYCLONUS, |world| Box::new(compiled(world)));
    assert_eq!(tally, Tally::new(276, 129_828));
}

#[test]
fn the_compiled_tables_agree_with_the_recipes() {
    let tally = compare_probes(RECIPES, |world| Box::new(compiled(world)));
    assert_eq!(tally, Tally::new(22, 109));
}

#[test]
fn the_compiled_tables_agree_with_the_suite_of_cluster_network_policy() {
    let tally = compare_probes(SUITE, |world| Box::new(compiled(world)));
    assert_eq!(tally, Tally::new(24, 301));
}

#[test]
fn the_compiled_tables_agree_with_policy_assistant() {
    let tally = compare_tables(ASSISTANT, |world| Box::new(compiled(world)));
    assert_eq!(tally, Tally::new(21, 1_090));
}

/// A policy that is read as nothing would agree with every vector that expects nothing of it.
#[test]
fn every_policy_of_the_vectors_is_read() {
    for text in [CYCLONUS, RECIPES, SUITE, ASSISTANT] {
        let file = File::read(text);
        for case in file.cases() {
            for state in case.states() {
                let world = load::world(&state.documents());
                let read = world.network_policies.len() + world.tier_policies.len();
                assert_eq!(read, state.policies(), "{}: {}", case.id(), case.name());
            }
        }
    }
}

fn compiled(world: &World) -> Everywhere<'_> {
    Everywhere::new(world, Time::default())
}

fn compare_tables(vectors: &str, make: Make) -> Tally {
    let file = File::read(vectors);
    compare(&file, make, |state, world, evaluator, diff| {
        let mut checks = 0;
        for from in state.pods.keys() {
            for to in state.pods.keys().filter(|to| *to != from) {
                for text in &state.ports {
                    let connection = connect(world, from, to, text);
                    let expected_egress = state.table("egress").permits(from, text, to);
                    let expected_ingress = state.table("ingress").permits(to, text, from);
                    let answer = |question: &Option<_>| {
                        evaluator
                            .answer(question.as_ref().expect("a pod is a subject"))
                            .allows()
                    };
                    diff.note(&Cell {
                        from,
                        to,
                        port: text,
                        expected: [expected_egress, expected_ingress],
                        seen: [answer(&connection.egress), answer(&connection.ingress)],
                    });
                    let both = connection.verdict(&evaluator) == Verdict::Allow;
                    assert_eq!(
                        both,
                        answer(&connection.egress) && answer(&connection.ingress)
                    );
                    checks += 1;
                }
            }
        }
        checks
    })
}

fn compare_probes(vectors: &str, make: Make) -> Tally {
    let file = File::read(vectors);
    compare(&file, make, |state, world, evaluator, diff| {
        for probe in state.probes() {
            let [from, to, port, verdict] = probe;
            let expected = match verdict {
                "allow" => true,
                "deny" => false,
                other => panic!("neither allow nor deny: {other}"),
            };
            let seen = connect(world, from, to, port).verdict(&evaluator) == Verdict::Allow;
            diff.note(&Cell {
                from,
                to,
                port,
                expected: [expected; 2],
                seen: [seen; 2],
            });
        }
        state.probes().count()
    })
}

fn compare(
    file: &File,
    make: Make,
    step: impl Fn(&State<'_>, &World, &dyn Evaluator, &mut Diff) -> usize,
) -> Tally {
    let mut tally = Tally::new(0, 0);
    let mut failures = Vec::new();
    for case in file.cases() {
        for (number, state) in case.states().enumerate() {
            let world = load::world(&state.documents());
            let mut diff = Diff::default();
            tally.checks += step(&state, &world, &*make(&world), &mut diff);
            if let Some(text) = diff.text() {
                failures.push(format!(
                    "{} step {number}: {}\n{text}",
                    case.id(),
                    case.name()
                ));
            }
        }
        tally.cases += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    tally
}

fn connect(world: &World, from: &str, to: &str, port: &str) -> Connection {
    let end = |text: &str| match text.strip_prefix("node:") {
        Some(node) => End::Node(node.to_owned()),
        None => End::parse(world, text).unwrap(),
    };
    let port: Port = port.parse().unwrap();
    Connection::new(world, &end(from), &end(to), port, Perspective::default()).unwrap()
}
