//! What a report says of the policies that the API has.

use std::collections::BTreeMap;

use super::{NodeStanding, Reported, State};
use crate::source::kubernetes::{
    kind::{Key, Kind},
    report::{Digest, Held, Known, Policies, Report, Tally},
};

/// Agents say that nothing is new every five to ten minutes.
const STALE: u64 = 15 * 60;

/// Of each node, the worst first.
pub(super) fn judge(
    nodes: &[String],
    reports: &BTreeMap<String, Reported>,
    policies: &Policies,
    about: Option<(&Key, &Known)>,
) -> Vec<NodeStanding> {
    let expected = Expected::of(policies);
    let standing = |name: &String| {
        let Some(Reported { report, age }) = reports.get(name) else {
            return silent(name);
        };
        let (state, messages) = match (*age > STALE, report.enforcing, about) {
            (true, ..) => (
                State::Stale,
                vec!["its agent has said nothing for long".to_owned()],
            ),
            (_, false, _) => (State::NotEnforcing, Vec::new()),
            (_, _, Some((key, known))) => expected.of_one(report, key, known),
            (_, _, None) => expected.of_all(report),
        };
        NodeStanding {
            name: name.clone(),
            state,
            agent_version: Some(report.agent_version.clone()),
            generation: Some(report.generation),
            policies: Some(report.policies),
            errors: Some(report.errors),
            seen_s: Some(*age),
            messages,
        }
    };
    let mut standings: Vec<_> = nodes.iter().map(standing).collect();
    standings.sort_by(|one, other| (one.state, &one.name).cmp(&(other.state, &other.name)));
    standings
}

fn silent(name: &str) -> NodeStanding {
    NodeStanding {
        name: name.to_owned(),
        state: State::Silent,
        agent_version: None,
        generation: None,
        policies: None,
        errors: None,
        seen_s: None,
        messages: vec!["no agent of it has said what it enforces".to_owned()],
    }
}

/// What a node has in force that follows the API.
struct Expected<'p> {
    /// By what reports call an object.
    policies: BTreeMap<String, &'p Known>,
    of_kinds: BTreeMap<Kind, (usize, Digest)>,
}

impl<'p> Expected<'p> {
    fn of(policies: &'p Policies) -> Self {
        let mut of_kinds: BTreeMap<Kind, (usize, Digest)> = BTreeMap::new();
        for (key, known) in policies {
            let (objects, digest) = of_kinds.entry(key.kind).or_default();
            *objects += 1;
            *digest = digest.with(digest_of(known));
        }
        let policies = policies.iter();
        Self {
            policies: policies
                .map(|(key, known)| (key.to_string(), known))
                .collect(),
            of_kinds,
        }
    }

    /// Whether a kind is as the API has it, but for the objects that the report names.
    fn is_followed(&self, kind: Kind, report: &Report) -> bool {
        let (mut objects, mut digest) = self.of_kinds.get(&kind).copied().unwrap_or_default();
        let of_kind = report.held.iter().filter(|held| is_of(held, kind));
        for (held, known) in
            of_kind.filter_map(|held| Some((held, self.policies.get(&held.object)?)))
        {
            digest = digest.without(digest_of(known));
            objects = objects.saturating_sub(1);
            if let Some(version) = &held.in_force {
                digest = digest.with(Digest::of(&known.uid, version));
                objects += 1;
            }
        }
        match report.tally(kind) {
            Some(tally) => (tally.objects, tally.digest) == (objects, digest),
            // Of an agent that does not know the kind.
            None => objects == 0,
        }
    }

    fn of_all(&self, report: &Report) -> (State, Vec<String>) {
        let behind = Kind::POLICIES
            .into_iter()
            .filter(|kind| !self.is_followed(*kind, report));
        let mut messages: Vec<String> = behind.map(|kind| self.difference(kind, report)).collect();
        let held = report.held.iter().map(reason);
        let more = report.errors.saturating_sub(report.held.len());
        let more = (more > 0).then(|| format!("and {more} more are not in force"));
        if let Some(why) = &report.refused {
            messages.push(why.clone());
            return (State::Refused, messages);
        }
        if !messages.is_empty() {
            messages.extend(why_not(report));
            return (State::Lagging, messages);
        }
        let held: Vec<String> = held.chain(more).collect();
        let state = if held.is_empty() {
            State::InForce
        } else {
            State::Held
        };
        (state, held)
    }

    fn of_one(&self, report: &Report, key: &Key, known: &Known) -> (State, Vec<String>) {
        let name = key.to_string();
        if let Some(held) = report.held.iter().find(|held| held.object == name) {
            return (State::Held, vec![reason(held)]);
        }
        let is_named = report.errors <= report.held.len();
        if self.is_followed(key.kind, report)
            || (is_named && has_reached(report.tally(key.kind), known))
        {
            return (State::InForce, Vec::new());
        }
        let mut messages: Vec<String> = why_not(report);
        if !is_named {
            messages.push(format!(
                "it may be among {} policies that are not in force, not all of which are named",
                report.errors
            ));
        }
        let state = if report.refused.is_some() {
            State::Refused
        } else {
            State::Lagging
        };
        (state, messages)
    }

    fn difference(&self, kind: Kind, report: &Report) -> String {
        let there = self.of_kinds.get(&kind).map_or(0, |(objects, _)| *objects);
        let here = report.tally(kind).map_or(0, |tally| tally.objects);
        if there == here {
            format!("{kind}: another version of some of {here}")
        } else {
            format!("{kind}: {here} are in force, the API has {there}")
        }
    }
}

/// All changes of a kind up to a version are heard in their order. Only servers whose versions are numbers have one.
fn has_reached(tally: Option<&Tally>, known: &Known) -> bool {
    let highest = tally.and_then(|tally| tally.resource_version.as_ref()?.parse::<u64>().ok());
    let reached = highest.zip(known.version.number());
    reached.is_some_and(|(highest, version)| highest >= version)
}

fn why_not(report: &Report) -> Vec<String> {
    let kept = "it enforces what it has kept on disk, and has not heard all of the API yet";
    let kept = (!report.complete).then(|| kept.to_owned());
    report.refused.clone().into_iter().chain(kept).collect()
}

fn reason(held: &Held) -> String {
    let Held {
        object,
        in_force,
        message,
        resource_version: _,
        generation: _,
    } = held;
    match in_force {
        Some(version) => {
            format!("{object} is in force as of resource version {version}: {message}")
        }
        None => format!("{object} is not in force: {message}"),
    }
}

fn is_of(held: &Held, kind: Kind) -> bool {
    let of = held.object.split_once('/');
    of.is_some_and(|(name, _)| name == kind.name())
}

fn digest_of(known: &Known) -> Digest {
    Digest::of(&known.uid, &known.version.resource)
}

#[cfg(test)]
mod tests;
