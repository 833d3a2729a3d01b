//! The compiled answer for every workload of a world, each judged by the node that it runs on.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::verdict::{Reason, Verdict};

use crate::{
    compile::{Scope, compile},
    compiled::Compiled,
    model::World,
    question::{Answer, Evaluator, Origin, Question, Why},
};

/// One compiled state a node; workloads that name no node share one that has no addresses.
#[derive(Clone, Debug)]
pub struct Everywhere<'w> {
    world: &'w World,
    nodes: BTreeMap<Option<&'w str>, Compiled>,
}

impl<'w> Everywhere<'w> {
    pub fn new(world: &'w World) -> Self {
        let mut scopes: BTreeMap<Option<&str>, Scope> = BTreeMap::new();
        for workload in world.workloads.values() {
            let scope = scopes.entry(workload.node.as_deref()).or_default();
            scope.subjects.insert(workload.name.clone());
        }
        let nodes = scopes
            .into_iter()
            .map(|(node, mut scope)| {
                scope.this_node = node
                    .and_then(|name| world.nodes.get(name))
                    .map_or_else(BTreeSet::new, |node| node.addresses.clone());
                (node, compile(world, &scope, &BTreeMap::new()))
            })
            .collect();
        Self { world, nodes }
    }
}

impl Evaluator for Everywhere<'_> {
    fn answer(&self, question: &Question) -> Answer {
        let Question {
            subject,
            direction,
            peer,
            protocol,
            port,
            origin,
        } = question;
        let made_here = *origin == Origin::ThisNode;
        let why = self
            .world
            .workloads
            .get(subject)
            .and_then(|workload| self.nodes.get(&workload.node.as_deref()))
            .and_then(|compiled| {
                let verdict =
                    compiled.decide(subject, *direction, *peer, *protocol, *port, made_here)?;
                why(compiled, verdict)
            });
        Answer::because(why.unwrap_or(Why::UnknownSubject))
    }
}

/// The reason behind a verdict of `decide`; `None` for one that only a packet can have.
fn why(compiled: &Compiled, verdict: Verdict) -> Option<Why> {
    Some(match verdict.reason() {
        Reason::Rule => {
            let origin = compiled.rules.get(&verdict.rule().0)?;
            Why::Rule {
                policy: origin.policy.clone(),
                direction: origin.direction,
                index: origin.index,
            }
        }
        Reason::NotIsolated => Why::NotIsolated,
        Reason::OwnAddress => Why::ItsOwnAddress,
        Reason::OwnNode => Why::OwnNode,
        Reason::DefaultDeny => Why::DefaultDeny,
        _ => return None,
    })
}
