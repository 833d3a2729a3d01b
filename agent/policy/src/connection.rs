//! A connection between two ends that people can name, and its verdict from both of them.
//!
//! Generic over the evaluator. Imports the model and the question; `explain`, `matrix` and the
//! tests import it.

mod ends;
mod error;
mod port;

use std::net::IpAddr;

use serde::Serialize;

pub use self::{ends::End, error::ConnectionError, port::Port};
use crate::{
    model::{Direction, ObjectName, PolicyKind, Source, Time, World},
    question::{Answer, Evaluator, Origin, Question, RuleId, View, Why},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
}

/// Both ends' answers, and what they amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub verdict: Verdict,
    pub egress: Side,
    pub ingress: Side,
}

/// One end's answer, with the place in the files that it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    pub verdict: Verdict,
    /// `NAMESPACE/NAME` of the policy whose rule permits.
    pub policy: Option<String>,
    /// `ingress[0]`: the rule's index in its direction.
    pub rule: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
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
    /// The end is a node or an address outside: it has no policies of its own.
    NoSubject,
    /// Both ends are the same workload.
    Itself,
}

/// A connection bound to addresses: up to one question for each end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub from: IpAddr,
    pub to: IpAddr,
    /// `None`: the source is no subject.
    pub egress: Option<Question>,
    /// `None`: the destination is no subject.
    pub ingress: Option<Question>,
    same_workload: bool,
}

// === impl Connection ===

impl Connection {
    /// Chooses the addresses, as §4.5 of the semantics says.
    ///
    /// # Errors
    ///
    /// If an end has no address, or the two have none of the same family.
    pub fn new(
        world: &World,
        from: &End,
        to: &End,
        port: Port,
        at: Time,
    ) -> Result<Self, ConnectionError> {
        let from = from.clone().resolved(world);
        let to = to.clone().resolved(world);
        let (source, destination) = ends::common_family(world, &from, &to, port)?;
        let origin = match (from.node_spoken_for(world), to.node_of_workload(world)) {
            (Some(here), Some(there)) if here == there => Origin::ThisNode,
            _ => Origin::Forwarded,
        };
        let Port { protocol, number } = port;
        let ask = |end: &End, direction, peer, origin| {
            end.workload().map(|subject| Question {
                subject: subject.clone().into(),
                direction,
                peer,
                protocol,
                port: number,
                origin,
                view: View::Live,
                at,
            })
        };
        Ok(Self {
            from: source,
            to: destination,
            // What an endpoint sends has come in through its interface, seen from the node.
            egress: ask(&from, Direction::Egress, destination, Origin::Forwarded),
            ingress: ask(&to, Direction::Ingress, source, origin),
            same_workload: from.workload().is_some() && from == to,
        })
    }

    /// Whether the connection passes. Cheaper than [`Self::judge`]: a matrix asks a million times.
    pub fn verdict(&self, evaluator: &impl Evaluator) -> Verdict {
        let permitted = |question: &Option<Question>| {
            question
                .as_ref()
                .is_none_or(|q| evaluator.answer(q).allows())
        };
        if self.same_workload || (permitted(&self.egress) && permitted(&self.ingress)) {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }

    /// Both ends' answers with their reasons.
    pub fn judge(&self, world: &World, evaluator: &impl Evaluator) -> Outcome {
        let side = |question: &Option<Question>| match question {
            Some(_) if self.same_workload => Side::without_rule(Verdict::Allow, Reason::Itself),
            Some(question) => Side::new(world, &evaluator.answer(question)),
            None => Side::without_rule(Verdict::Allow, Reason::NoSubject),
        };
        let (egress, ingress) = (side(&self.egress), side(&self.ingress));
        Outcome {
            verdict: egress.verdict.and(ingress.verdict),
            egress,
            ingress,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Both ends must permit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

// === impl Side ===

impl Side {
    fn new(world: &World, answer: &Answer) -> Self {
        let verdict = if answer.allows() {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        match &answer.why {
            Why::Rule(rule) => {
                let source = rule_source(world, rule);
                Self {
                    policy: Some(rule.policy.to_string()),
                    rule: Some(rule_name(rule.direction, rule.index)),
                    file: source.map(|source| source.file.to_string()),
                    line: source.map(|source| source.line),
                    ..Self::without_rule(verdict, Reason::Rule)
                }
            }
            Why::NotIsolated => Self::without_rule(verdict, Reason::NotIsolated),
            Why::DefaultDeny => Self::without_rule(verdict, Reason::DefaultDeny),
            Why::ItsOwnAddress => Self::without_rule(verdict, Reason::OwnAddress),
            Why::OwnNode => Self::without_rule(verdict, Reason::OwnNode),
            Why::UnknownSubject => Self::without_rule(verdict, Reason::UnknownSubject),
            Why::Stale => Self::without_rule(verdict, Reason::Stale),
        }
    }

    fn without_rule(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            policy: None,
            rule: None,
            file: None,
            line: None,
            reason,
        }
    }
}

pub(crate) fn rule_name(direction: Direction, index: u32) -> String {
    match direction {
        Direction::Ingress => format!("ingress[{index}]"),
        Direction::Egress => format!("egress[{index}]"),
    }
}

/// Where a rule is written.
fn rule_source<'a>(world: &'a World, rule: &RuleId) -> Option<&'a Source> {
    let RuleId {
        policy,
        direction,
        index,
    } = rule;
    let index = usize::try_from(*index).ok()?;
    match policy.kind {
        PolicyKind::Failsafe => {
            let found = world.failsafe.iter().find(|one| one.name == policy.name)?;
            Some(&found.source)
        }
        PolicyKind::NetworkPolicy => {
            let name = ObjectName::new(policy.namespace.clone()?, policy.name.clone());
            let rules = world.network_policies.get(&name)?.rules(*direction)?;
            rules.get(index).map(|rule| &rule.source)
        }
        PolicyKind::ClusterNetworkPolicy | PolicyKind::RingfencePolicy => {
            let rules = world.tier_policies.get(policy)?.rules(*direction);
            rules.get(index).map(|rule| &rule.source)
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The reason in a sentence's end, for people.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Rule => "a rule permits it",
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

#[cfg(test)]
mod tests;
