//! Why a connection passes or not: both decisions, every rule that was considered, what other views
//! would say, and the smallest change that would turn the verdict round.
//!
//! The verdict comes from whichever evaluator is handed in; the rules are matched by the reference,
//! so that people see what failed. Imports the connection, the reference and, for the moments of
//! schedules, the compiler.

mod counterfactual;
mod render;

use std::net::IpAddr;

use serde::Serialize;

pub use self::counterfactual::{Counterfactual, Edit, Searched, Step};
use crate::{
    compiled::Rank,
    connection::{
        BackendOutcome, Connection, ConnectionError, End, Judged, Outcome, Perspective, Port, Side,
        Verdict, Ways, rule_name,
    },
    model::{PolicyKind, Terms, Tier, Time, World},
    question::{Evaluator, Question, View},
    reference::{self, Considered, Effect, Fit},
};

/// As JSON, `{"verdict", "egress": {…}, "ingress": {…}}` and more beside it; the fields are those of
/// these types, and `agent/docs/questions.md` shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub verdict: Verdict,
    pub view: View,
    #[serde(serialize_with = "as_text")]
    pub at: Time,
    pub from: Party,
    pub to: Party,
    pub port: Port,
    /// How many pairs of addresses the names stand for; what is here is about one of them.
    pub pairs: usize,
    /// The pairs with another verdict. It is denied then, and all of these are permitted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherPair>,
    pub egress: SideExplanation,
    pub ingress: SideExplanation,
    /// What serves, where a Service is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendOutcome>,
    /// Other views, as far as they say something else than the live one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would_be: Vec<WouldBe>,
    pub counterfactual: Option<Counterfactual>,
}

/// An end, and the one of its addresses that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    pub name: End,
    pub address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SideExplanation {
    #[serde(flatten)]
    pub decision: Side,
    /// The policies that have a say about this end in this direction, in the order in which they
    /// decide.
    pub policies: Vec<ConsideredPolicy>,
}

/// A pair of addresses, and what becomes of the connection between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherPair {
    pub from: IpAddr,
    pub to: IpAddr,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a view says that is not the live one, of a pair of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WouldBe {
    pub view: View,
    #[serde(flatten)]
    pub pair: OtherPair,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredPolicy {
    pub kind: PolicyKind,
    pub tier: Rank,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// Whether it exists at the moment that is asked about.
    pub in_time: bool,
    pub file: String,
    pub line: u32,
    pub rules: Vec<ConsideredRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredRule {
    pub rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub effect: RuleEffect,
    pub file: String,
    pub line: u32,
    pub result: RuleResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleEffect {
    Allow,
    Deny,
    /// Leaves the tier.
    Pass,
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
    /// The rule does not exist at this moment, whatever else it says.
    OtherTime,
}

/// Asks about a connection, over every pair of addresses; what is told is about the pair that tells
/// the verdict.
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
    perspective: Perspective,
) -> Result<Explanation, ConnectionError> {
    let judged = |perspective| {
        Ways::new(world, from, to, port, perspective).map(|ways| ways.judge(world, evaluator))
    };
    let ways = judged(perspective)?;
    let Judged {
        connection,
        outcome,
    } = ways.telling().clone();
    let asked = counterfactual::Asked {
        from: &from.at(connection.from),
        to: &to.at(connection.to),
        port,
    };
    let counterfactual = Counterfactual::find(world, perspective, asked)
        .filter(|found| found.verdict != outcome.verdict);
    let mut would_be = Vec::new();
    if perspective.view == View::Live {
        for view in [View::Audit, View::Staged] {
            let other = judged(perspective.through(view))?;
            let told = told_of_view(&ways, &other).into_iter();
            would_be.extend(told.map(|pair| WouldBe { view, pair }));
        }
    }
    let (egress, ingress) = asked_of_ends(&connection, &outcome);
    let side = |decision, question: Option<&Question>| SideExplanation {
        decision,
        policies: question
            .map(|asked| considered(world, asked))
            .unwrap_or_default(),
    };
    let others = ways
        .iter()
        .filter(|way| way.outcome.verdict != outcome.verdict);
    Ok(Explanation {
        verdict: outcome.verdict,
        view: perspective.view,
        at: perspective.at,
        from: Party {
            name: from.clone(),
            address: connection.from,
        },
        to: Party {
            name: to.clone(),
            address: connection.to,
        },
        port,
        pairs: ways.count(),
        others: others.map(OtherPair::new).collect(),
        egress: side(outcome.egress, egress),
        ingress: side(outcome.ingress, ingress),
        backends: outcome.backends,
        would_be,
        counterfactual,
    })
}

/// The pairs that another view says something else of: those whose verdict turns, the first for each
/// verdict; if none does, the first that has another reason.
fn told_of_view(live: &Ways<Judged>, other: &Ways<Judged>) -> Vec<OtherPair> {
    let pairs = || live.iter().zip(other.iter());
    let mut told = Vec::new();
    for verdict in [Verdict::Deny, Verdict::Allow] {
        let turned = pairs().find(|(live, other)| {
            live.outcome.verdict != verdict && other.outcome.verdict == verdict
        });
        told.extend(turned);
    }
    if told.is_empty() {
        told.extend(pairs().find(|(live, other)| live.outcome != other.outcome));
    }
    told.into_iter()
        .map(|(_, other)| OtherPair::new(other))
        .collect()
}

/// The questions whose rules are worth reading: behind a Service, those about the first backend that
/// is not permitted.
fn asked_of_ends<'c>(
    connection: &'c Connection,
    outcome: &Outcome,
) -> (Option<&'c Question>, Option<&'c Question>) {
    let of = |denied: fn(&BackendOutcome) -> Verdict| {
        let place = outcome
            .backends
            .iter()
            .position(|one| denied(one) == Verdict::Deny);
        connection.backends.get(place.unwrap_or(0))
    };
    let egress = of(|backend| backend.egress.verdict)
        .map_or(connection.egress.as_ref(), |backend| {
            backend.egress.as_ref()
        });
    let ingress = of(|backend| backend.ingress.verdict)
        .map_or(connection.ingress.as_ref(), |backend| {
            backend.ingress.as_ref()
        });
    (egress, ingress)
}

fn considered(world: &World, question: &Question) -> Vec<ConsideredPolicy> {
    let rule = |rule: reference::ConsideredRule<'_>| ConsideredRule {
        rule: rule_name(rule.id.direction, rule.id.index),
        name: rule.name.map(ToOwned::to_owned),
        effect: match rule.effect {
            Effect::Allow => RuleEffect::Allow,
            Effect::Deny => RuleEffect::Deny,
            Effect::Pass => RuleEffect::Pass,
        },
        file: rule.source.file.to_string(),
        line: rule.source.line,
        result: RuleResult::new(rule.fit),
    };
    reference::considered(world, question)
        .into_iter()
        .map(|considered| {
            let Considered {
                policy,
                tier,
                priority,
                terms,
                time,
                rules,
                source,
            } = considered;
            ConsideredPolicy {
                kind: policy.kind,
                tier: match (tier, policy.kind) {
                    (Some(Tier::Quarantine), _) => Rank::Quarantine,
                    (Some(Tier::Admin), _) => Rank::Admin,
                    (Some(Tier::Baseline), _) => Rank::Baseline,
                    (None, PolicyKind::Failsafe) => Rank::Failsafe,
                    (None, _) => Rank::NetworkPolicy,
                },
                priority,
                policy: policy.to_string(),
                terms: terms.cloned(),
                in_time: time,
                file: source.file.to_string(),
                line: source.line,
                rules: rules.into_iter().map(rule).collect(),
            }
        })
        .collect()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn as_text<S: serde::Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

// === impl OtherPair ===

impl OtherPair {
    fn new(judged: &Judged) -> Self {
        let Judged {
            connection,
            outcome,
        } = judged;
        Self {
            from: connection.from,
            to: connection.to,
            outcome: outcome.clone(),
        }
    }
}

// === impl RuleResult ===

impl RuleResult {
    fn new(fit: Fit) -> Self {
        let Fit { peer, port, time } = fit;
        match (peer, port) {
            _ if !time => Self::OtherTime,
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
            Self::OtherTime => "no: another time",
        }
    }
}

#[cfg(test)]
mod tests;
