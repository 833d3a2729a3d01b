//! The compiled answer for every subject of a world, each judged by the node that it runs on.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::verdict::{Reason, Verdict};

use crate::{
    compile::{Scope, compile},
    compiled::{At, Clock, Compiled},
    model::{Denied, SubjectName, Time, World},
    question::{Action, Answer, Evaluator, Question, Why},
};

/// One compiled state a node; workloads that name no node share one that has no addresses.
#[derive(Clone, Debug)]
pub struct Everywhere<'w> {
    world: &'w World,
    /// When every node is taken to have started.
    boot: Time,
    nodes: BTreeMap<Option<&'w str>, Compiled>,
}

/// Before the moment of compiling, in seconds. The clock of the tables begins at the start of a node
/// and reaches some 580 years: from here it tells apart the moments around any that is asked about,
/// be it of long ago or of the year 9000.
const UP: i64 = 24 * 60 * 60;

impl<'w> Everywhere<'w> {
    /// Compiled at a moment; right from then on until an answer has changed by itself twice.
    pub fn new(world: &'w World, now: Time) -> Self {
        let mut scopes: BTreeMap<Option<&str>, Scope> = BTreeMap::new();
        for workload in world.workloads.values() {
            let scope = scopes.entry(workload.node.as_deref()).or_default();
            scope.subjects.insert(workload.name.clone().into());
        }
        for name in world.nodes.keys() {
            let scope = scopes.entry(Some(name)).or_default();
            scope.subjects.insert(SubjectName::Node(name.clone()));
        }
        let boot = Time::from_unix(now.unix().saturating_sub(UP));
        let clock = Clock { now, boot };
        let nodes = scopes
            .into_iter()
            .map(|(node, mut scope)| {
                scope.this_node = node
                    .and_then(|name| world.nodes.get(name))
                    .map_or_else(BTreeSet::new, |node| node.addresses.clone());
                (node, compile(world, &scope, &BTreeMap::new(), clock))
            })
            .collect();
        Self { world, boot, nodes }
    }

    /// The tables of every node, in a fixed order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Option<&str>, &Compiled)> {
        self.nodes.iter().map(|(name, compiled)| (*name, compiled))
    }

    /// The state of the node that judges a subject.
    fn compiled_for<'s>(&'s self, subject: &'s SubjectName) -> Option<&'s Compiled> {
        let node = match subject {
            SubjectName::Workload(name) => self.world.workloads.get(name)?.node.as_deref(),
            SubjectName::Node(name) => Some(name.as_str()),
        };
        self.nodes.get(&node)
    }
}

impl Evaluator for Everywhere<'_> {
    fn answer(&self, question: &Question) -> Answer {
        let unknown = || Answer::deny(Why::UnknownSubject, Denied::Drop);
        let Some(compiled) = self.compiled_for(&question.subject) else {
            return unknown();
        };
        let clock = Clock {
            now: question.at,
            boot: self.boot,
        };
        answer(compiled, clock, question).unwrap_or_else(unknown)
    }
}

/// What compiled tables answer; `None` if the subject is none of theirs.
pub(crate) fn answer(compiled: &Compiled, clock: Clock, question: &Question) -> Option<Answer> {
    let tables = At::new(compiled, clock.boot_nanos(question.at));
    let verdict = tables.decide(compiled.subjects.get(&question.subject)?, question);
    let action = match (verdict.allows(), verdict.rejects()) {
        (true, _) => Action::Allow,
        (false, false) => Action::Drop,
        (false, true) => Action::Reject,
    };
    let why = why(compiled, verdict)?;
    Some(Answer { action, why })
}

/// The reason behind a verdict of `decide`; `None` for one that only a packet can have.
fn why(compiled: &Compiled, verdict: Verdict) -> Option<Why> {
    Some(match verdict.reason() {
        Reason::Rule | Reason::DenyRule => {
            Why::Rule(compiled.rules.get(&verdict.rule().0)?.id.clone())
        }
        Reason::NotIsolated => Why::NotIsolated,
        Reason::OwnAddress => Why::ItsOwnAddress,
        Reason::OwnNode => Why::OwnNode,
        Reason::DefaultDeny => Why::DefaultDeny,
        Reason::StaleSchedule => Why::Stale,
        _ => return None,
    })
}
