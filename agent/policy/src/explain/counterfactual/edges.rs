//! When something that policies say about a connection begins or ends.

use std::collections::BTreeSet;

use crate::{
    compile::moments,
    connection::Need,
    model::{Schedule, TierPolicy, Time, When, World},
    question::Question,
    reference,
};

/// Nobody calls it a small change to wait for longer. The compiler looks further ahead.
const HORIZON_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The moments of the next days at which some answer may be another, in order.
pub(super) fn after(world: &World, needs: &[Need], now: Time) -> BTreeSet<Time> {
    let mut found = BTreeSet::new();
    // To look for the rules that match costs what a question costs, and few policies are timed.
    if !world.tier_policies.values().any(|policy| is_timed(policy)) {
        return found;
    }
    let conditions: BTreeSet<&When> = needs
        .iter()
        .flat_map(|need| conditions(world, &need.about))
        .collect();
    let mut schedules: BTreeSet<&Schedule> = BTreeSet::new();
    for when in conditions {
        let When {
            not_before,
            expires,
            schedule,
        } = when;
        found.extend(not_before.iter().chain(expires));
        schedules.extend(schedule);
    }
    found.extend(schedules.into_iter().flat_map(|one| moments(one, now)));
    let end = Time::from_unix(now.unix().saturating_add(HORIZON_SECONDS));
    found.retain(|time| now < *time && *time <= end);
    found
}

fn is_timed(policy: &TierPolicy) -> bool {
    let rules = policy.ingress.iter().chain(&policy.egress);
    let mut all = rules.map(|rule| &rule.when).chain([&policy.when]);
    all.any(|when| !when.is_always())
}

/// Those of every rule that matches, but for the time.
fn conditions<'w>(world: &'w World, question: &Question) -> BTreeSet<&'w When> {
    let mut found = BTreeSet::new();
    for considered in reference::considered(world, question) {
        let Some(policy) = world.tier_policies.get(&considered.policy) else {
            continue;
        };
        let rules = policy.rules(question.direction).iter();
        for (rule, judged) in rules.zip(&considered.rules) {
            if judged.fit.peer && judged.fit.port {
                found.extend([&rule.when, &policy.when]);
            }
        }
    }
    found
}
