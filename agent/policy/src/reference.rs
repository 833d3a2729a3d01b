//! The reference evaluator: the semantics written down once more, as code, straight over the model.
//!
//! Slow and obvious. It exists to disagree with the compiler, so the two share no code: this module
//! and those below it import the model and the question, never the compiler, its tables or the
//! contract with the kernel. The numbers in `§` are the sections of `agent/docs/semantics.md`.

mod considered;
pub(crate) mod matching;
pub(crate) mod ports;
mod services;
mod subject;
mod time;

use self::subject::Subject;
pub use self::{
    considered::{Considered, ConsideredRule, Effect, considered},
    matching::Fit,
    services::behind_frontend,
};
use crate::{
    model::{
        Denied, Direction, Mode, NetworkPolicy, PolicyId, PolicyKind, Rule, Tier, TierAction,
        TierPolicy, Workload, World,
    },
    question::{Answer, Evaluator, Origin, Question, RuleId, View, Why},
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

/// §4.6: the steps of a decision, one after the other.
fn answer(world: &World, question: &Question) -> Answer {
    let Some(subject) = Subject::find(world, &question.subject) else {
        return Answer::deny(Why::UnknownSubject, Denied::Drop);
    };
    if is_itself(subject, question) {
        return Answer::allow(Why::ItsOwnAddress);
    }
    if is_own_node(world, subject, question) && !is_in_quarantine(world, subject, question) {
        return Answer::allow(Why::OwnNode);
    }
    let backends = behind_frontend(world, question);
    if backends.is_empty() {
        by_policies(world, subject, question)
    } else {
        by_backends(world, subject, &backends)
    }
}

/// §2.3: every backend must be permitted; the first that is not says why.
fn by_backends(world: &World, subject: Subject<'_>, backends: &[Question]) -> Answer {
    let mut answers: Vec<Answer> = backends
        .iter()
        .map(|backend| by_policies(world, subject, backend))
        .collect();
    let telling = answers.iter().position(|answer| !answer.allows());
    answers.swap_remove(telling.unwrap_or(0))
}

/// §4.6: from failsafe to what is permitted because nobody has anything to say.
fn by_policies(world: &World, subject: Subject<'_>, question: &Question) -> Answer {
    by_failsafe(world, subject, question)
        .or_else(|| by_tier(world, subject, question, Tier::Quarantine))
        .or_else(|| by_tier(world, subject, question, Tier::Admin))
        .or_else(|| by_network_policies(world, subject, question))
        .or_else(|| by_tier(world, subject, question, Tier::Baseline))
        .unwrap_or_else(|| Answer::allow(Why::NotIsolated))
}

/// §3.1: a workload always reaches itself, over loopback and its own addresses.
fn is_itself(subject: Subject<'_>, question: &Question) -> bool {
    subject.owner_of_addresses().is_some_and(|workload| {
        question.peer.is_loopback() || workload.addresses.contains(&question.peer)
    })
}

/// §3.2: what the subject's node says with its own address and its own mouth passes ingress.
fn is_own_node(world: &World, subject: Subject<'_>, question: &Question) -> bool {
    question.direction == Direction::Ingress
        && question.origin == Origin::ThisNode
        && subject.owner_of_addresses().is_some()
        && subject
            .node(world)
            .is_some_and(|node| node.addresses.contains(&question.peer))
}

/// §3.2, §6.6
fn is_in_quarantine(world: &World, subject: Subject<'_>, question: &Question) -> bool {
    ranked(world, subject, question.view, Tier::Quarantine)
        .iter()
        .any(|policy| time::holds(&policy.when, question.at))
}

/// §3.4
fn by_failsafe(world: &World, subject: Subject<'_>, question: &Question) -> Option<Answer> {
    if subject.owner_of_addresses().is_some() {
        return None;
    }
    world
        .failsafe
        .iter()
        .filter(|failsafe| failsafe.direction == question.direction)
        .find(|failsafe| matching::fit(world, subject, question, *failsafe).permits())
        .map(|failsafe| {
            let id = PolicyId::cluster_wide(PolicyKind::Failsafe, &failsafe.name);
            Answer::allow(rule(&id, question.direction, 0))
        })
}

/// §6.1: the first rule that matches; `None` if none does, or if it passes.
fn by_tier(world: &World, subject: Subject<'_>, question: &Question, tier: Tier) -> Option<Answer> {
    for policy in ranked(world, subject, question.view, tier) {
        if !time::holds(&policy.when, question.at) {
            continue;
        }
        for (index, one) in (0..).zip(policy.rules(question.direction)) {
            if matching::fit(world, subject, question, one).permits() {
                let why = rule(&policy.id, question.direction, index);
                return match one.action {
                    TierAction::Accept => Some(Answer::allow(why)),
                    TierAction::Deny => Some(Answer::deny(why, policy.terms.denied)),
                    TierAction::Pass => None,
                };
            }
        }
    }
    None
}

/// §1.2: policies add up, so the first rule that permits settles it; the map's order makes "first"
/// mean the same to everybody (§4.3). `None` if the subject is not isolated.
fn by_network_policies(world: &World, subject: Subject<'_>, question: &Question) -> Option<Answer> {
    let isolating: Vec<_> = isolating(world, subject.workload()?, question.direction)
        .filter(|(policy, _)| has_a_say(question.view, policy.terms.mode))
        .collect();
    for (policy, rules) in &isolating {
        for (index, one) in (0..).zip(*rules) {
            if matching::fit(world, subject, question, one).permits() {
                let id = PolicyId::network_policy(&policy.name);
                return Some(Answer::allow(rule(&id, question.direction, index)));
            }
        }
    }
    // §4.1: one policy that wants silence is enough for it.
    let all_reject = isolating
        .iter()
        .all(|(policy, _)| policy.terms.denied == Denied::Reject);
    let denied = if all_reject {
        Denied::Reject
    } else {
        Denied::Drop
    };
    (!isolating.is_empty()).then(|| Answer::deny(Why::DefaultDeny, denied))
}

/// §1.1, §1.2: the policies that isolate a subject in a direction in some view, each with its rules
/// for it.
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

/// §6.1: the policies of a tier and a view that select a subject, in order, whatever the time.
fn ranked<'w>(
    world: &'w World,
    subject: Subject<'_>,
    view: View,
    tier: Tier,
) -> Vec<&'w TierPolicy> {
    let mut policies: Vec<&TierPolicy> = world
        .tier_policies
        .values()
        .map(AsRef::as_ref)
        .filter(|policy| policy.tier == tier)
        .filter(|policy| has_a_say(view, policy.terms.mode))
        .filter(|policy| subject.is_selected_by(world, &policy.subjects))
        .collect();
    policies.sort_by_key(|policy| (policy.priority, &policy.id.name, policy.id.kind));
    policies
}

/// §8
fn has_a_say(view: View, mode: Mode) -> bool {
    match (view, mode) {
        (_, Mode::Enforce) | (View::Audit, Mode::Audit) | (View::Staged, Mode::Staged) => true,
        (View::Live, Mode::Audit | Mode::Staged)
        | (View::Audit, Mode::Staged)
        | (View::Staged, Mode::Audit) => false,
    }
}

fn rule(policy: &PolicyId, direction: Direction, index: u32) -> Why {
    Why::Rule(RuleId {
        policy: policy.clone(),
        direction,
        index,
    })
}

#[cfg(test)]
mod tests;
