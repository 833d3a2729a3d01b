//! Rules of a `NetworkPolicy`: they add up, so one that permits nothing of its own is not needed.

use super::{Budget, Findings, Rest, Sets, listed, say_if_spent, stopped};
use crate::{
    diagnostic::Severity,
    lint::policy::{Policy, RuleAt},
    model::{Direction, PolicyId, World},
};

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    let mut budget = Budget::default();
    let mut stop = None;
    for policy in world.network_policies.values() {
        for direction in Direction::BOTH {
            let rules = Policy::Network(policy).rules(direction);
            if rules.len() < 2 {
                continue;
            }
            let id = PolicyId::network_policy(&policy.name);
            for (rule, giving) in needless(&rules, &mut budget) {
                report(&id, &rule, &giving, findings);
            }
            if let Some(rule) = rules.first().filter(|_| budget.is_spent()) {
                stop.get_or_insert_with(|| stopped(&id, rule));
            }
        }
    }
    say_if_spent(&budget, stop, findings);
}

/// The rules that others make needless, each with those.
///
/// From the last to the first, and never by a rule that is needless itself: so of two that say the
/// same the first stays, and all of them may go at once.
fn needless<'a>(rules: &[RuleAt<'a>], budget: &mut Budget) -> Vec<(RuleAt<'a>, Vec<String>)> {
    let sets: Vec<Sets<'_>> = rules.iter().map(Sets::of).collect();
    let mut needed = vec![true; rules.len()];
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate().rev() {
        if !budget.spend(rules.len()) {
            break;
        }
        let Some(mut rest) = Rest::of(rule) else {
            continue;
        };
        let mut giving = Vec::new();
        for ((other, sets), needed) in rules.iter().zip(&sets).zip(&needed) {
            if other.index == rule.index || !needed || rest.is_empty() {
                continue;
            }
            if rest.take(sets, budget) {
                giving.push(other.title());
            }
        }
        if rest.is_empty() {
            if let Some(needed) = needed.get_mut(at) {
                *needed = false;
            }
            found.push((*rule, giving));
        }
    }
    found
}

fn report(id: &PolicyId, rule: &RuleAt<'_>, giving: &[String], findings: &mut Findings<'_>) {
    let verb = if giving.len() == 1 {
        "permits"
    } else {
        "permit"
    };
    let message = format!(
        "{} of `{id}` permits nothing of its own: {} {verb} all of it",
        rule.title(),
        listed(giving)
    );
    findings.push(
        Findings::at(Severity::Warning, rule.source, "shadowed-rule", message)
            .at_path(rule.path())
            .with_hint("remove it: without it the answers are the same"),
    );
}
