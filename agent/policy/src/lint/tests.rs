//! What the lints must never get wrong, over generated worlds.

mod scale;

use std::sync::Arc;

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{TestCaseError, TestRunner},
};

use super::*;
use crate::{
    model::{Peers, Ports, Rule, TierRule},
    question::{Evaluator as _, Question},
    reference::Reference,
    strategies::world_and_questions,
};

const CASES: usize = 400;

fn linted(world: &World) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    run(world, &[], &mut problems);
    problems
}

/// The lines of the rules that are said to decide nothing.
fn shadowed(world: &World) -> Vec<u32> {
    let codes = ["shadowed-rule", "unreachable-rule"];
    let mut found = linted(world);
    found.retain(|found| codes.contains(&found.code));
    found.into_iter().map(|found| found.line).collect()
}

/// Rules in lists that can be told apart by a line, whatever policy they are in.
trait Listed: Clone {
    fn line(&mut self) -> &mut u32;
    fn peers(&mut self) -> &mut Peers;
    fn ports(&mut self) -> &mut Ports;
}

impl Listed for Rule {
    fn line(&mut self) -> &mut u32 {
        &mut self.source.line
    }
    fn peers(&mut self) -> &mut Peers {
        &mut self.peers
    }
    fn ports(&mut self) -> &mut Ports {
        &mut self.ports
    }
}

impl Listed for TierRule {
    fn line(&mut self) -> &mut u32 {
        &mut self.source.line
    }
    fn peers(&mut self) -> &mut Peers {
        &mut self.peers
    }
    fn ports(&mut self) -> &mut Ports {
        &mut self.ports
    }
}

/// A change of a rule list of either sort.
trait Edit {
    fn edit<R: Listed>(&mut self, rules: &mut Vec<R>);
}

fn edit(world: &mut World, change: &mut impl Edit) {
    for policy in world.network_policies.values_mut().map(Arc::make_mut) {
        for rules in [&mut policy.ingress, &mut policy.egress]
            .into_iter()
            .flatten()
        {
            change.edit(rules);
        }
    }
    for policy in world.tier_policies.values_mut().map(Arc::make_mut) {
        change.edit(&mut policy.ingress);
        change.edit(&mut policy.egress);
    }
}

/// Adds to each list what is within its rules, before and behind them, in turn.
struct Narrower(usize);

impl Edit for Narrower {
    fn edit<R: Listed>(&mut self, rules: &mut Vec<R>) {
        self.0 += 1;
        let Some(mut rule) = rules.get(self.0 % rules.len().max(1)).cloned() else {
            return;
        };
        if let Peers::Listed(shared) = rule.peers()
            && shared.len() > 1
        {
            let mut peers = shared.to_vec();
            peers.remove(self.0 % peers.len());
            *shared = peers.into();
        }
        if let Ports::Listed(ports) = rule.ports()
            && ports.len() > 1
        {
            ports.remove(self.0 % ports.len());
        }
        let at = if self.0.is_multiple_of(3) {
            0
        } else {
            rules.len()
        };
        rules.insert(at, rule);
    }
}

struct Number(u32);

impl Edit for Number {
    fn edit<R: Listed>(&mut self, rules: &mut Vec<R>) {
        for rule in rules {
            self.0 += 1;
            *rule.line() = self.0;
        }
    }
}

struct Without<'a>(&'a [u32]);

impl Edit for Without<'_> {
    fn edit<R: Listed>(&mut self, rules: &mut Vec<R>) {
        rules.retain_mut(|rule| !self.0.contains(rule.line()));
    }
}

/// Holds if no answer changes with the rules of some lines taken out. The reason may: the index of
/// a rule is part of it.
fn decide_nothing(
    world: &World,
    lines: &[u32],
    questions: &[Question],
) -> Result<(), TestCaseError> {
    let mut without = world.clone();
    edit(&mut without, &mut Without(lines));
    for question in questions {
        let (with, without) = (
            Reference(world).answer(question),
            Reference(&without).answer(question),
        );
        prop_assert_eq!(
            with.action,
            without.action,
            "rules {:?}, {:?}",
            lines,
            question
        );
    }
    Ok(())
}

#[test]
fn a_rule_that_is_called_shadowed_decides_nothing() {
    let mut runner = TestRunner::deterministic();
    let worlds = world_and_questions();
    let (mut found, mut ranked) = (0, 0);
    for case in 0..CASES {
        let (mut world, _, questions) = worlds.new_tree(&mut runner).unwrap().current();
        edit(&mut world, &mut Narrower(case));
        edit(&mut world, &mut Number(0));
        let lines = shadowed(&world);
        for line in &lines {
            decide_nothing(&world, &[*line], &questions).unwrap();
        }
        decide_nothing(&world, &lines, &questions).unwrap();
        found += lines.len();
        world.network_policies.clear();
        ranked += shadowed(&world).len();
    }
    assert!(ranked > CASES / 2, "only {ranked} of them in tiers");
    assert!(
        found > CASES,
        "only {found} shadowed rules in {CASES} worlds"
    );
}
