//! Why a connection passes or not: both decisions, and every rule that was considered.
//!
//! The verdict comes from whichever evaluator is handed in; the rules are matched here one by one,
//! so that people see what failed. Imports the connection and the reference's matching.

mod render;

use serde::Serialize;

use crate::{
    connection::{Connection, ConnectionError, End, Port, Side, Verdict, rule_name},
    model::{Rule, Time, World},
    question::{Evaluator, Question},
    reference::{isolating, matching},
};

/// As JSON, the issue's `{"verdict", "egress": {…}, "ingress": {…}}` and more beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub verdict: Verdict,
    pub from: Party,
    pub to: Party,
    pub port: Port,
    pub egress: SideExplanation,
    pub ingress: SideExplanation,
}

/// An end, and the one of its addresses that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    pub name: End,
    pub address: std::net::IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SideExplanation {
    #[serde(flatten)]
    pub decision: Side,
    /// The policies that isolate this end in this direction, in the order of attribution.
    pub policies: Vec<ConsideredPolicy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredPolicy {
    pub policy: String,
    pub file: String,
    pub line: u32,
    pub rules: Vec<ConsideredRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredRule {
    pub rule: String,
    pub file: String,
    pub line: u32,
    pub result: RuleResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleResult {
    Matches,
    /// The port would do.
    OtherPeer,
    /// The peer would do.
    OtherPort,
    OtherPeerAndPort,
}

/// Asks about one connection.
///
/// # Errors
///
/// If the ends have no addresses that could talk to each other.
pub fn explain(
    world: &World,
    evaluator: &impl Evaluator,
    from: &End,
    to: &End,
    port: Port,
    at: Time,
) -> Result<Explanation, ConnectionError> {
    let connection = Connection::new(world, from, to, port, at)?;
    let outcome = connection.judge(world, evaluator);
    let side = |decision, question: &Option<Question>| SideExplanation {
        decision,
        policies: question
            .as_ref()
            .map(|asked| considered(world, asked))
            .unwrap_or_default(),
    };
    Ok(Explanation {
        verdict: outcome.verdict,
        from: Party {
            name: from.clone(),
            address: connection.from,
        },
        to: Party {
            name: to.clone(),
            address: connection.to,
        },
        port,
        egress: side(outcome.egress, &connection.egress),
        ingress: side(outcome.ingress, &connection.ingress),
    })
}

fn considered(world: &World, question: &Question) -> Vec<ConsideredPolicy> {
    let workload = question.subject.workload();
    let Some(subject) = workload.and_then(|name| world.workloads.get(name)) else {
        return Vec::new();
    };
    let judged = |(index, rule): (u32, &Rule)| ConsideredRule {
        rule: rule_name(question.direction, index),
        file: rule.source.file.to_string(),
        line: rule.source.line,
        result: RuleResult::new(matching::fit(
            world,
            subject.as_ref().into(),
            question,
            rule,
        )),
    };
    isolating(world, subject, question.direction)
        .map(|(policy, rules)| ConsideredPolicy {
            policy: policy.name.to_string(),
            file: policy.source.file.to_string(),
            line: policy.source.line,
            rules: (0..).zip(rules).map(judged).collect(),
        })
        .collect()
}

// === impl RuleResult ===

impl RuleResult {
    fn new(fit: matching::Fit) -> Self {
        match (fit.peer, fit.port) {
            (true, true) => Self::Matches,
            (false, true) => Self::OtherPeer,
            (true, false) => Self::OtherPort,
            (false, false) => Self::OtherPeerAndPort,
        }
    }

    pub fn phrase(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::OtherPeer => "no: another peer",
            Self::OtherPort => "no: another port",
            Self::OtherPeerAndPort => "no: another peer and another port",
        }
    }
}

#[cfg(test)]
mod tests;
