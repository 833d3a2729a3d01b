//! The reference evaluator: the semantics written down once more, as code, straight over the model.
//!
//! Slow and obvious. It exists to disagree with the compiler, so the two share no code: this module
//! and those below it import the model and the question, never the compiler, its tables or the
//! contract with the kernel. The numbers in `§` are the sections of `agent/docs/semantics.md`.

pub(crate) mod matching;

use crate::{
    model::{Denied, Direction, NetworkPolicy, PolicyId, Rule, SubjectName, Workload, World},
    question::{Answer, Evaluator, Origin, Question, RuleId, Why},
};

/// Answers by reading every policy for every question.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a>(pub &'a World);

// === impl Reference ===

impl Evaluator for Reference<'_> {
    fn answer(&self, question: &Question) -> Answer {
        answer(self.0, question)
    }
}

fn answer(world: &World, question: &Question) -> Answer {
    let unknown = Answer::deny(Why::UnknownSubject, Denied::Drop);
    let SubjectName::Workload(name) = &question.subject else {
        return unknown;
    };
    let Some(subject) = world.workloads.get(name) else {
        return unknown;
    };
    if is_itself(subject, question) {
        return Answer::allow(Why::ItsOwnAddress);
    }
    if is_own_node(world, subject, question) {
        return Answer::allow(Why::OwnNode);
    }
    let mut isolated = false;
    // §1.2: policies add up, so the first rule that permits settles it; the map's order makes
    // "first" mean the same to everybody (§4.3).
    for (policy, rules) in isolating(world, subject, question.direction) {
        isolated = true;
        for (index, rule) in (0u32..).zip(rules) {
            if matching::fit(world, subject, question, rule).permits() {
                return Answer::allow(Why::Rule(RuleId {
                    policy: PolicyId::network_policy(&policy.name),
                    direction: question.direction,
                    index,
                }));
            }
        }
    }
    if isolated {
        Answer::deny(Why::DefaultDeny, Denied::Drop)
    } else {
        Answer::allow(Why::NotIsolated)
    }
}

/// §3.1: a workload always reaches itself over its own address.
fn is_itself(subject: &Workload, question: &Question) -> bool {
    subject.owns_its_addresses() && subject.addresses.contains(&question.peer)
}

/// §3.2: what the subject's node says with its own address and its own mouth passes ingress.
fn is_own_node(world: &World, subject: &Workload, question: &Question) -> bool {
    question.direction == Direction::Ingress
        && question.origin == Origin::ThisNode
        && subject.owns_its_addresses()
        && subject
            .node
            .as_ref()
            .and_then(|name| world.nodes.get(name))
            .is_some_and(|node| node.addresses.contains(&question.peer))
}

/// §1.1, §1.2: the policies that isolate a subject in a direction, each with its rules for it.
pub(crate) fn isolating<'a>(
    world: &'a World,
    subject: &'a Workload,
    direction: Direction,
) -> impl Iterator<Item = (&'a NetworkPolicy, &'a [Rule])> {
    world
        .network_policies
        .values()
        .map(AsRef::as_ref)
        // §1.3: a host-network pod is nobody's subject.
        .filter(|_| !subject.host_network)
        .filter(|policy| policy.name.namespace == subject.name.namespace)
        .filter(|policy| matching::selects(&policy.subject, &subject.labels))
        .filter_map(move |policy| policy.rules(direction).map(|rules| (policy, rules)))
}
