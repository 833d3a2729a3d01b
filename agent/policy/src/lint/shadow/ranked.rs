//! Rules of a tier: the first that matches decides, so one that comes later may never.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Budget, Findings, Rest, Sets, listed, say_if_spent, stopped};
use crate::{
    diagnostic::Severity,
    lint::{
        policy::{Policy, RuleAt, is_seen_with},
        spans::Span,
        subjects::{Mark, SubjectSet},
    },
    model::{Direction, Tier, TierAction, TierPolicy, World},
};

/// The tiers that people order. A quarantine is one rule, and nothing is before it.
const TIERS: [Tier; 2] = [Tier::Admin, Tier::Baseline];

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    for tier in TIERS {
        let policies = in_order(world, tier);
        let subjects = Classes::of(&policies);
        for direction in Direction::BOTH {
            compare(&policies, &subjects, direction, findings);
        }
    }
}

/// The policies of a tier, the one that decides first in front.
pub(in crate::lint) fn in_order(world: &World, tier: Tier) -> Vec<&TierPolicy> {
    let all = world.tier_policies.values().map(AsRef::as_ref);
    let mut policies: Vec<_> = all.filter(|policy| policy.tier == tier).collect();
    policies.sort_by_key(|policy| (policy.priority, &policy.id.name, policy.id.kind));
    policies
}

/// A rule that later ones are held against.
struct Before<'a> {
    policy: &'a TierPolicy,
    rule: RuleAt<'a>,
    span: Span<'a>,
    sets: Sets<'a>,
}

/// Policies with the same subjects are one class; thousands of policies are mostly about few
/// subjects, or about subjects that share nothing.
struct Classes {
    /// The class of each policy, in their order.
    of: Vec<usize>,
    /// For each class, those whose subjects take in all of its subjects, itself included.
    wider: Vec<Vec<usize>>,
}

fn compare(
    policies: &[&TierPolicy],
    classes: &Classes,
    direction: Direction,
    findings: &mut Findings<'_>,
) {
    let mut budget = Budget::default();
    let mut stop = None;
    let mut before: Vec<Before<'_>> = Vec::new();
    let mut of_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (policy, class) in policies.iter().zip(&classes.of) {
        let wider = classes.wider.get(*class).map_or(&[][..], Vec::as_slice);
        for rule in Policy::Tier(policy).rules(direction) {
            let span = Span::of([Some(&policy.when), rule.when].into_iter().flatten());
            if span.is_never() {
                continue;
            }
            let lists = || wider.iter().filter_map(|class| of_class.get(class));
            let mut earlier = Vec::new();
            if budget.spend(lists().map(Vec::len).sum()) {
                earlier.extend(lists().flatten().copied());
                earlier.sort_unstable();
            }
            let earlier = earlier.into_iter().filter_map(|at| before.get(at));
            let covering = covering(policy, &rule, &span, earlier, &mut budget);
            if let Some(covering) = covering {
                report(policy, &rule, &covering, findings);
            } else if budget.is_spent() {
                stop.get_or_insert_with(|| stopped(&policy.id, &rule));
            }
            of_class.entry(*class).or_default().push(before.len());
            let sets = Sets::of(&rule);
            before.push(Before {
                policy,
                rule,
                span,
                sets,
            });
        }
    }
    say_if_spent(&budget, stop, findings);
}

/// The rules that leave nothing of a rule to decide, or `None` where something is left.
fn covering<'b, 'a: 'b>(
    policy: &TierPolicy,
    rule: &RuleAt<'_>,
    span: &Span<'_>,
    earlier: impl Iterator<Item = &'b Before<'a>>,
    budget: &mut Budget,
) -> Option<Vec<&'b Before<'a>>> {
    let mut rest = Rest::of(rule)?;
    let mut covering = Vec::new();
    for before in earlier {
        if !is_seen_with(before.policy.terms.mode, policy.terms.mode) || !before.span.covers(span) {
            continue;
        }
        if rest.take(&before.sets, budget) {
            covering.push(before);
        }
        if rest.is_empty() {
            return Some(covering);
        }
    }
    None
}

fn report(
    policy: &TierPolicy,
    rule: &RuleAt<'_>,
    covering: &[&Before<'_>],
    findings: &mut Findings<'_>,
) {
    let place = |before: &&Before<'_>| {
        let title = before.rule.title();
        if before.policy.id == policy.id {
            title
        } else {
            format!("{title} of `{}`", before.policy.id)
        }
    };
    let places: Vec<String> = covering.iter().map(place).collect();
    let other = covering
        .iter()
        .find(|before| before.rule.action != rule.action);
    let verb = covering.first().map_or("match", |first| {
        let one = covering
            .iter()
            .all(|before| before.rule.action == first.rule.action);
        match (one, first.rule.action, places.len() == 1) {
            (true, TierAction::Accept, true) => "accepts",
            (true, TierAction::Accept, false) => "accept",
            (true, TierAction::Deny, true) => "denies",
            (true, TierAction::Deny, false) => "deny",
            (true, TierAction::Pass, true) => "passes",
            (true, TierAction::Pass, false) => "pass",
            (false, ..) => "match",
        }
    });
    let message = format!(
        "{} of `{}` never decides: {} {verb} all that it matches",
        rule.title(),
        policy.id,
        listed(&places)
    );
    let (code, hint) = match other {
        Some(_) => (
            "unreachable-rule",
            "put it before, or give its policy a lower priority number",
        ),
        None => (
            "shadowed-rule",
            "remove it: without it the answers are the same",
        ),
    };
    findings.push(
        Findings::at(Severity::Warning, rule.source, code, message)
            .at_path(rule.path())
            .with_hint(hint),
    );
}

// === impl Classes ===

impl Classes {
    fn of(policies: &[&TierPolicy]) -> Self {
        let mut numbers: HashMap<SubjectSet<'_>, usize> = HashMap::new();
        let mut of = Vec::new();
        for policy in policies {
            let next = numbers.len();
            let number = numbers.entry(SubjectSet::of(&policy.subjects));
            of.push(*number.or_insert(next));
        }
        let mut sets: Vec<_> = numbers
            .into_iter()
            .map(|(set, number)| (number, set))
            .collect();
        sets.sort_unstable_by_key(|(number, _)| *number);
        let sets: Vec<SubjectSet<'_>> = sets.into_iter().map(|(_, set)| set).collect();
        let mut marked: HashMap<Mark<'_>, Vec<usize>> = HashMap::new();
        let mut unmarked = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            match set.least_marks() {
                Some(marks) => {
                    for mark in marks {
                        marked.entry(mark).or_default().push(number);
                    }
                }
                None => unmarked.push(number),
            }
        }
        let wider = |set: &SubjectSet<'_>| {
            let mut candidates: HashSet<usize> = unmarked.iter().copied().collect();
            for marks in set.marks() {
                // Any one value does: a wider list has all of them.
                let found = marks.first().and_then(|mark| marked.get(mark));
                candidates.extend(found.into_iter().flatten());
            }
            let covers = |number: &usize| sets.get(*number).is_some_and(|other| other.covers(set));
            candidates.into_iter().filter(covers).collect()
        };
        Self {
            of,
            wider: sets.iter().map(wider).collect(),
        }
    }
}
