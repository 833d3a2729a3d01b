//! `equal-priority`: policies that only their names put in an order.
//!
//! The API leaves open which of them decides; here it is the name, so that renaming one can change
//! who may talk to whom. A warning where the actions differ. A note where all rules of both do the
//! same: the order then decides only which of them is named as the reason, until somebody adds a
//! rule. Said once for each policy, of the first that it ties with.

use std::collections::BTreeMap;

use super::{
    findings::Findings,
    inventory::{Inventory, Selected},
    policy::{Policy, is_seen_with},
    shadow::in_order,
    spans::Span,
    subjects::SubjectSet,
};
use crate::{
    diagnostic::Severity,
    model::{Denied, Direction, Tier, TierAction, TierPolicy},
};

/// Every quarantine has the same priority unless told otherwise, and denies the same.
const TIERS: [Tier; 2] = [Tier::Admin, Tier::Baseline];

struct Tied<'a> {
    policy: &'a TierPolicy,
    subjects: SubjectSet<'a>,
    /// `None` where nobody told who is there.
    selected: Option<Selected>,
    span: Span<'a>,
}

pub(super) fn run(inventory: &Inventory<'_>, findings: &mut Findings<'_>) {
    for tier in TIERS {
        let mut by_priority: BTreeMap<u16, Vec<&TierPolicy>> = BTreeMap::new();
        for policy in in_order(inventory.world, tier) {
            by_priority.entry(policy.priority).or_default().push(policy);
        }
        for policies in by_priority.into_values().filter(|tied| tied.len() > 1) {
            let tied: Vec<_> = policies
                .into_iter()
                .map(|policy| Tied::of(inventory, policy))
                .collect();
            for (later, one) in tied.iter().enumerate() {
                let earlier = tied.iter().take(later);
                let overlapping = earlier
                    .filter(|other| other.overlaps(one))
                    .map(|other| (other, severity(other.policy, one.policy)));
                // The graver first, and of two as grave the one that decides before.
                if let Some((other, severity)) = overlapping.min_by_key(|(_, severity)| *severity) {
                    report(other.policy, one.policy, severity, findings);
                }
            }
        }
    }
}

fn report(
    first: &TierPolicy,
    policy: &TierPolicy,
    severity: Severity,
    findings: &mut Findings<'_>,
) {
    let message = format!(
        "policy `{}` has priority {} as `{}` has, and some of the same subjects",
        policy.id, policy.priority, first.id
    );
    let found = findings.about(Policy::Tier(policy), severity, "equal-priority", message);
    let hint = format!(
        "`{}` decides first, because of its name; give them different priorities",
        first.id
    );
    findings.push(found.at_path("spec.priority").with_hint(hint));
}

fn severity(a: &TierPolicy, b: &TierPolicy) -> Severity {
    let differ = Direction::BOTH
        .into_iter()
        .any(|direction| outcomes(a, direction) != outcomes(b, direction) && meet(a, b, direction));
    let mixed = Direction::BOTH
        .into_iter()
        .any(|direction| meet(a, b, direction) && outcomes(a, direction).len() > 1);
    if differ || mixed {
        Severity::Warning
    } else {
        Severity::Note
    }
}

/// What the rules of a direction can end in.
fn outcomes(
    policy: &TierPolicy,
    direction: Direction,
) -> std::collections::BTreeSet<(TierAction, Denied)> {
    let rules = policy.rules(direction).iter();
    rules
        .map(|rule| match rule.action {
            TierAction::Deny => (TierAction::Deny, policy.terms.denied),
            other => (other, Denied::default()),
        })
        .collect()
}

fn meet(a: &TierPolicy, b: &TierPolicy, direction: Direction) -> bool {
    !a.rules(direction).is_empty() && !b.rules(direction).is_empty()
}

// === impl Tied ===

impl<'a> Tied<'a> {
    fn of(inventory: &Inventory<'a>, policy: &'a TierPolicy) -> Self {
        let known = inventory.knows(&policy.subjects);
        Self {
            policy,
            subjects: SubjectSet::of(&policy.subjects),
            selected: known.then(|| inventory.selected(&policy.subjects)),
            span: Span::of([&policy.when]),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (mode, other_mode) = (self.policy.terms.mode, other.policy.terms.mode);
        let someone = match (&self.selected, &other.selected) {
            (Some(own), Some(theirs)) => own.meets(theirs),
            _ => self.subjects.meets(&other.subjects),
        };
        someone
            && (is_seen_with(mode, other_mode) || is_seen_with(other_mode, mode))
            && Direction::BOTH
                .into_iter()
                .any(|direction| meet(self.policy, other.policy, direction))
            && !self.span.is_apart(&other.span)
    }
}
