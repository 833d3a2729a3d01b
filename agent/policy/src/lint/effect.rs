//! `only-isolates`, `never-in-force`: policies that do less than they look like.

use super::{
    findings::Findings,
    policy::{self, Policy, RuleAt},
    spans::Span,
};
use crate::{
    diagnostic::Severity,
    model::{Direction, NetworkPolicy, TierPolicy, World},
};

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    for policy in policy::all(world) {
        match policy {
            Policy::Network(network) => only_isolates(network, findings),
            Policy::Tier(tier) => never_in_force(tier, findings),
        }
    }
}

/// A note: it is how a default deny is written, and how a forgotten rule looks.
fn only_isolates(policy: &NetworkPolicy, findings: &mut Findings<'_>) {
    let isolated = |direction: &Direction| policy.rules(*direction).is_some();
    let mut directions = Direction::BOTH.into_iter().filter(isolated);
    if Policy::Network(policy).all_rules().next().is_some() {
        return;
    }
    let direction = match (directions.next(), directions.next()) {
        (Some(one), None) => one.to_string(),
        _ => "ingress and egress".to_owned(),
    };
    let message = format!(
        "policy `{}` only isolates: a default deny of {direction}",
        policy.name
    );
    let code = "only-isolates";
    let found = findings.about(Policy::Network(policy), Severity::Note, code, message);
    let hint = "fine if that is meant; others may permit what its subjects need";
    findings.push(found.at_path("spec").with_hint(hint));
}

/// That a time is past is not known here; that there is none is.
fn never_in_force(policy: &TierPolicy, findings: &mut Findings<'_>) {
    if Span::of([&policy.when]).is_never() {
        let message = format!("policy `{}` is never in force", policy.id);
        let code = "never-in-force";
        let found = findings.about(Policy::Tier(policy), Severity::Warning, code, message);
        findings.push(found.at_path("spec.when").with_hint(HINT));
        return;
    }
    let never = |rule: &RuleAt<'_>| {
        let whens = [Some(&policy.when), rule.when];
        Span::of(whens.into_iter().flatten()).is_never()
    };
    for rule in Policy::Tier(policy).all_rules().filter(never) {
        let message = format!(
            "{} of `{}` is never in force: its policy never is at the same time",
            rule.title(),
            policy.id
        );
        let found = Findings::at(Severity::Warning, rule.source, "never-in-force", message);
        let path = format!("{}.when", rule.path());
        findings.push(found.at_path(path).with_hint(HINT));
    }
}

const HINT: &str = "a rule exists while both its own `when` and that of its policy hold";
