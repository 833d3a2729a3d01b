//! `equal-priority`: policies that only their names put in an order.
//!
//! The API leaves open which of them decides; here it is the name, so that renaming one can change
//! who may talk to whom. A warning where the actions differ. A note where all rules of both do the
//! same: the order then decides only which of them is named as the reason, until somebody adds a
//! rule. Said once for each policy, of the first that it ties with.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use super::{
    budget::Budget,
    findings::Findings,
    inventory::{Inventory, Selected},
    policy::{Policy, is_seen_with},
    shadow::in_order,
    spans::Span,
    subjects::SubjectSet,
};
use crate::{
    diagnostic::Severity,
    model::{Denied, Direction, Subjects, Tier, TierAction, TierPolicy},
};

/// Every quarantine has the same priority unless told otherwise, and denies the same.
const TIERS: [Tier; 2] = [Tier::Admin, Tier::Baseline];

struct Tied<'a> {
    policy: &'a TierPolicy,
    subjects: SubjectSet<'a>,
    /// `None` where nobody told who is there.
    selected: Option<Rc<Selected>>,
    span: Span<'a>,
    ends: [Ends; 2],
}

/// What the rules of a direction can end in.
type Ends = BTreeSet<(TierAction, Denied)>;

pub(super) fn run(inventory: &Inventory<'_>, findings: &mut Findings<'_>) {
    let mut selected = HashMap::new();
    let mut budget = Budget::default();
    for tier in TIERS {
        let mut by_priority: BTreeMap<u16, Vec<&TierPolicy>> = BTreeMap::new();
        for policy in in_order(inventory.world, tier) {
            by_priority.entry(policy.priority).or_default().push(policy);
        }
        for policies in by_priority.into_values().filter(|tied| tied.len() > 1) {
            let tied: Vec<_> = policies
                .into_iter()
                .map(|policy| Tied::of(inventory, policy, &mut selected))
                .collect();
            for (later, one) in tied.iter().enumerate() {
                if !budget.spend(later) {
                    stopped(one.policy, findings);
                    return;
                }
                let earlier = || tied.iter().take(later).filter(|other| other.overlaps(one));
                if let Some(other) = earlier().find(|other| other.differs(one)) {
                    report(other.policy, one.policy, Severity::Warning, findings);
                } else if let Some(other) = earlier().next() {
                    report(other.policy, one.policy, Severity::Note, findings);
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
        "{} `{}` has priority {} as {} `{}` has, and some of the same subjects",
        policy.id.kind, policy.id, policy.priority, first.id.kind, first.id
    );
    let found = findings.about(Policy::Tier(policy), severity, "equal-priority", message);
    // Of one name there are at most two, one of each kind (§6.1).
    let why = if policy.id.name == first.id.name {
        "as a ClusterNetworkPolicy does before a RingfencePolicy of its name"
    } else {
        "because of its name"
    };
    let hint = format!(
        "{} `{}` decides first, {why}; give them different priorities",
        first.id.kind, first.id
    );
    findings.push(found.at_path("spec.priority").with_hint(hint));
}

/// Says where it stopped, so that silence is not taken for praise.
fn stopped(policy: &TierPolicy, findings: &mut Findings<'_>) {
    let message = format!(
        "policies from `{}` on are not compared: too many have one priority",
        policy.id
    );
    let found = findings.about(
        Policy::Tier(policy),
        Severity::Note,
        "too-many-policies",
        message,
    );
    findings.push(
        found
            .at_path("spec.priority")
            .with_hint("give them different priorities"),
    );
}

fn ends(policy: &TierPolicy, direction: Direction) -> Ends {
    let rules = policy.rules(direction).iter();
    rules
        .map(|rule| match rule.action {
            TierAction::Deny => (TierAction::Deny, policy.terms.denied),
            other => (other, Denied::default()),
        })
        .collect()
}

// === impl Tied ===

impl<'a> Tied<'a> {
    fn of(
        inventory: &Inventory<'a>,
        policy: &'a TierPolicy,
        selected: &mut HashMap<&'a Subjects, Rc<Selected>>,
    ) -> Self {
        let subjects = &policy.subjects;
        let found = || Rc::new(inventory.selected(subjects));
        let known = inventory.knows(subjects);
        Self {
            policy,
            subjects: SubjectSet::of(subjects),
            selected: known.then(|| Rc::clone(selected.entry(subjects).or_insert_with(found))),
            span: Span::of([&policy.when]),
            ends: Direction::BOTH.map(|direction| ends(policy, direction)),
        }
    }

    /// Both have a say about a direction, for each such direction.
    fn meetings<'b>(&'b self, other: &'b Self) -> impl Iterator<Item = (&'b Ends, &'b Ends)> {
        let both = self.ends.iter().zip(&other.ends);
        both.filter(|(own, theirs)| !own.is_empty() && !theirs.is_empty())
    }

    /// Whether it matters which of them is first: whether there are two ends to choose from.
    fn differs(&self, other: &Self) -> bool {
        self.meetings(other)
            .any(|(own, theirs)| own.len() > 1 || own != theirs)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (mode, other_mode) = (self.policy.terms.mode, other.policy.terms.mode);
        let someone = match (&self.selected, &other.selected) {
            (Some(own), Some(theirs)) => own.meets(theirs),
            _ => self.subjects.meets(&other.subjects),
        };
        someone
            && (is_seen_with(mode, other_mode) || is_seen_with(other_mode, mode))
            && self.meetings(other).next().is_some()
            && !self.span.is_apart(&other.span)
    }
}
