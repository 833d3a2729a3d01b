//! One end's answer, with the place in the files that it comes from and what was said there.

use serde::Serialize;

use super::Verdict;
use crate::{
    compiled::Rank,
    model::{Direction, ObjectName, PolicyKind, Source, Terms, Tier, World},
    question::{Action, Answer, RuleId, Why},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Side {
    pub verdict: Verdict,
    /// What becomes of the first packet.
    pub action: Action,
    /// Kind of the policy whose rule decides.
    pub kind: Option<PolicyKind>,
    pub tier: Option<Rank>,
    /// `NAMESPACE/NAME` of it, or the name alone.
    pub policy: Option<String>,
    /// `ingress[0]`: the rule's index in its direction.
    pub rule: Option<String>,
    /// What its author calls the rule.
    pub rule_name: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// What the policy says beside its rules: its mode, and for people why it is there.
    pub terms: Option<Terms>,
    pub reason: Reason,
}

/// Why an end answers as it does; the words of the JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Rule,
    NotIsolated,
    DefaultDeny,
    OwnAddress,
    OwnNode,
    UnknownSubject,
    Stale,
    /// The end is an address outside, or a node that no policy selects: it has none of its own.
    NoSubject,
    /// Both ends are the same workload.
    Itself,
}

/// What is known of a rule by its place.
#[derive(Clone, Copy, Debug)]
struct Found<'w> {
    tier: Rank,
    name: Option<&'w String>,
    source: Option<&'w Source>,
    terms: Option<&'w Terms>,
}

// === impl Side ===

impl Side {
    pub(crate) fn new(world: &World, answer: &Answer) -> Self {
        let Answer { action, why } = answer;
        let verdict = if answer.allows() {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        let reason = match why {
            Why::Rule(_) => Reason::Rule,
            Why::NotIsolated => Reason::NotIsolated,
            Why::DefaultDeny => Reason::DefaultDeny,
            Why::ItsOwnAddress => Reason::OwnAddress,
            Why::OwnNode => Reason::OwnNode,
            Why::UnknownSubject => Reason::UnknownSubject,
            Why::Stale => Reason::Stale,
        };
        let plain = Self {
            action: *action,
            ..Self::without_rule(verdict, reason)
        };
        let Why::Rule(rule) = why else {
            return plain;
        };
        let Found {
            tier,
            name,
            source,
            terms,
        } = found(world, rule);
        Self {
            kind: Some(rule.policy.kind),
            tier: Some(tier),
            policy: Some(rule.policy.to_string()),
            rule: Some(rule_name(rule.direction, rule.index)),
            rule_name: name.cloned(),
            file: source.map(|source| source.file.to_string()),
            line: source.map(|source| source.line),
            terms: terms.cloned(),
            ..plain
        }
    }

    pub(crate) fn without_rule(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            action: match verdict {
                Verdict::Allow => Action::Allow,
                Verdict::Deny => Action::Drop,
            },
            kind: None,
            tier: None,
            policy: None,
            rule: None,
            rule_name: None,
            file: None,
            line: None,
            terms: None,
            reason,
        }
    }

    /// The place that decides, or the reason, for people: `by shop/api ingress[0] at shop.yaml:12`.
    pub fn phrase(&self) -> String {
        let (Some(policy), Some(rule)) = (&self.policy, &self.rule) else {
            return self.reason.phrase().to_owned();
        };
        let place = match (self.kind, self.tier) {
            (Some(PolicyKind::Failsafe), _) => format!("by failsafe {policy}"),
            (
                Some(kind @ (PolicyKind::ClusterNetworkPolicy | PolicyKind::RingfencePolicy)),
                Some(tier),
            ) => {
                format!("by {kind} ({tier}) {policy} {rule}")
            }
            _ => format!("by {policy} {rule}"),
        };
        let name = self.rule_name.as_ref().map(|name| format!(" `{name}`"));
        let source = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!(" at {file}:{line}"),
            _ => String::new(),
        };
        place + &name.unwrap_or_default() + &source
    }
}

/// `ingress[0]`: a rule within its policy.
pub fn rule_name(direction: Direction, index: u32) -> String {
    format!("{direction}[{index}]")
}

fn found<'w>(world: &'w World, rule: &RuleId) -> Found<'w> {
    let RuleId {
        policy,
        direction,
        index,
    } = rule;
    let index = usize::try_from(*index).unwrap_or(usize::MAX);
    match policy.kind {
        PolicyKind::Failsafe => Found {
            tier: Rank::Failsafe,
            name: None,
            source: world
                .failsafe
                .iter()
                .find(|one| one.name == policy.name)
                .map(|one| &one.source),
            terms: None,
        },
        PolicyKind::NetworkPolicy => {
            let namespace = policy.namespace.clone().unwrap_or_default();
            let name = ObjectName::new(namespace, policy.name.clone());
            let found = world.network_policies.get(&name);
            let rules = found.and_then(|policy| policy.rules(*direction));
            Found {
                tier: Rank::NetworkPolicy,
                name: None,
                source: rules
                    .and_then(|rules| rules.get(index))
                    .map(|rule| &rule.source),
                terms: found.map(|policy| &policy.terms),
            }
        }
        PolicyKind::ClusterNetworkPolicy | PolicyKind::RingfencePolicy => {
            let found = world.tier_policies.get(policy);
            let rule = found.and_then(|policy| policy.rules(*direction).get(index));
            Found {
                tier: match found.map(|policy| policy.tier) {
                    Some(Tier::Quarantine) => Rank::Quarantine,
                    Some(Tier::Admin) | None => Rank::Admin,
                    Some(Tier::Baseline) => Rank::Baseline,
                },
                name: rule.and_then(|rule| rule.name.as_ref()),
                source: rule.map(|rule| &rule.source),
                terms: found.map(|policy| &policy.terms),
            }
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The reason in a sentence's end, for people.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Rule => "a rule decides it",
            Self::NotIsolated => "no policy selects it in this direction",
            Self::DefaultDeny => "selected by policy, and no rule permits it",
            Self::OwnAddress => "its own address",
            Self::OwnNode => "from its own node",
            Self::UnknownSubject => "nothing is known about it",
            Self::Stale => "a schedule goes on, and what it says now is not compiled",
            Self::NoSubject => "not subject to policy",
            Self::Itself => "a workload always reaches itself",
        }
    }
}
