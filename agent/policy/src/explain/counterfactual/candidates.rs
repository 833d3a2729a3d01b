//! What might turn an answer round. Nothing here needs to be right: every proposal is tried. But
//! trials are few, so what can be seen not to help is not proposed.

mod additions;
mod labels;
mod spoken;

use std::net::IpAddr;

use super::edit::Edit;
use crate::{
    connection::{Port, Verdict},
    model::{
        Direction, ObjectName, Peers, PolicyId, PolicyKind, Ports, Tier, TierAction, Workload,
        World,
    },
    question::{Question, RuleId, Why},
    reference::{self, Considered, ConsideredRule, Effect, ports},
};

/// A question whose answer should be another.
#[derive(Clone, Copy)]
struct Case<'a> {
    world: &'a World,
    question: &'a Question,
    wanted: Verdict,
}

/// Edits that might give a question the verdict that it does not have, in order.
pub(super) fn turning(world: &World, question: &Question, why: &Why, wanted: Verdict) -> Vec<Edit> {
    let case = Case {
        world,
        question,
        wanted,
    };
    let decider = match why {
        Why::Rule(rule) => Some(rule),
        Why::NotIsolated | Why::DefaultDeny => None,
        Why::UnknownSubject | Why::ItsOwnAddress | Why::OwnNode | Why::Stale => return Vec::new(),
    };
    let considered = reference::considered(world, question);
    let mut edits = Vec::new();
    for rule in read(&considered, why) {
        if decider == Some(&rule.id) {
            edits.extend(case.rule_before(&rule.id));
            edits.extend(without(world, question, &rule.id));
        } else if !rule.fit.permits() {
            edits.extend(case.made_to_match(rule));
        } else if rule.effect == Effect::Pass {
            edits.extend(without(world, question, &rule.id));
        }
    }
    match wanted {
        Verdict::Allow if *why == Why::DefaultDeny => {
            edits.extend(considered.iter().filter_map(|one| case.one_more_rule(one)));
        }
        Verdict::Allow => {}
        Verdict::Deny => {
            edits.extend(case.isolation().filter(|_| *why == Why::NotIsolated));
            edits.extend(case.denying_policy());
        }
    }
    edits.sort();
    edits.dedup();
    edits
}

/// The rule that decides away: more may stand behind it.
pub(super) fn removal(world: &World, question: &Question, why: &Why) -> Option<Edit> {
    let Why::Rule(rule) = why else {
        return None;
    };
    without(world, question, rule).into_iter().min()
}

/// The rules that were asked before the answer was clear: those behind have no say about it.
fn read<'c, 'w>(considered: &'c [Considered<'w>], why: &Why) -> Vec<&'c ConsideredRule<'w>> {
    let mut read = Vec::new();
    let mut left = None;
    for policy in considered {
        if *why == Why::DefaultDeny && policy.tier == Some(Tier::Baseline) {
            break;
        }
        if policy.tier.is_some() && policy.tier == left {
            continue;
        }
        for rule in &policy.rules {
            read.push(rule);
            if matches!(why, Why::Rule(decides) if *decides == rule.id) {
                return read;
            }
            if rule.effect == Effect::Pass && rule.fit.permits() {
                left = policy.tier;
                break;
            }
        }
    }
    read
}

impl Case<'_> {
    /// What a rule lacks that would do, if it is one thing alone.
    fn made_to_match(self, rule: &ConsideredRule<'_>) -> Vec<Edit> {
        let RuleId { policy, .. } = &rule.id;
        let does_it = match self.wanted {
            Verdict::Allow => Effect::Allow,
            Verdict::Deny => Effect::Deny,
        };
        // What leaves a tier may do so for the better.
        let may_help = [does_it, Effect::Pass].contains(&rule.effect);
        if !may_help || !rule.fit.time || policy.kind == PolicyKind::Failsafe {
            return Vec::new();
        }
        match (rule.fit.peer, rule.fit.port) {
            (true, false) => spoken::port(policy.kind, self.question)
                .map(|(port, ports)| Edit::AddPort {
                    rule: rule.id.clone(),
                    port,
                    ports,
                })
                .into_iter()
                .collect(),
            (false, true) => rule_of(self.world, &rule.id)
                .map(|(peers, _)| labels::naming(self.world, self.question.peer, peers))
                .unwrap_or_default(),
            (true, true) | (false, false) => Vec::new(),
        }
    }

    /// One of its own before the one that decides.
    fn rule_before(self, decider: &RuleId) -> Option<Edit> {
        let tier = self.world.tier_policies.get(&decider.policy)?.tier;
        let action = match self.wanted {
            Verdict::Allow => TierAction::Accept,
            Verdict::Deny => TierAction::Deny,
        };
        (tier != Tier::Quarantine).then(|| self.new_rule(decider, action))?
    }
}

/// A rule that matches no longer, or not there. Nobody can do without failsafe, and a quarantine
/// has no rules that people see.
fn without(world: &World, question: &Question, rule: &RuleId) -> Vec<Edit> {
    let RuleId { policy, .. } = rule;
    if policy.kind == PolicyKind::Failsafe {
        return Vec::new();
    }
    let ranked = world.tier_policies.get(policy);
    if ranked.is_some_and(|ranked| ranked.tier == Tier::Quarantine) {
        let policy = policy.clone();
        return vec![Edit::RemovePolicy { policy }];
    }
    let rule = rule.clone();
    let port = without_port(world, question, &rule);
    port.into_iter()
        .chain([Edit::RemoveRule { rule }])
        .collect()
}

/// The one item of the rule's ports that includes what is asked for, where there are others.
fn without_port(world: &World, question: &Question, rule: &RuleId) -> Option<Edit> {
    let (_, Ports::Listed(listed)) = rule_of(world, rule)? else {
        return None;
    };
    let destination = match question.direction {
        Direction::Ingress => subject(world, question),
        Direction::Egress => owner(world, question.peer),
    };
    let named = destination.map_or(&[][..], |workload| &workload.ports);
    let mut including = (0..)
        .zip(listed)
        .filter(|(_, item)| ports::includes(item, question, named));
    let ((position, _), None) = (including.next()?, including.next()) else {
        return None;
    };
    (listed.len() > 1).then(|| Edit::RemovePort {
        rule: rule.clone(),
        port: asked_port(question),
        position,
    })
}

fn rule_of<'w>(world: &'w World, rule: &RuleId) -> Option<(&'w Peers, &'w Ports)> {
    let RuleId {
        policy,
        direction,
        index,
    } = rule;
    let at = usize::try_from(*index).ok()?;
    if let Some(policy) = network_policy(policy).and_then(|name| world.network_policies.get(&name))
    {
        let rule = policy.rules(*direction)?.get(at)?;
        return Some((&rule.peers, &rule.ports));
    }
    let rule = world.tier_policies.get(policy)?.rules(*direction).get(at)?;
    Some((&rule.peers, &rule.ports))
}

fn network_policy(policy: &PolicyId) -> Option<ObjectName> {
    let namespace = policy.namespace.clone()?;
    let is_one = policy.kind == PolicyKind::NetworkPolicy;
    is_one.then(|| ObjectName::new(namespace, policy.name.clone()))
}

fn subject<'w>(world: &'w World, question: &Question) -> Option<&'w Workload> {
    let name = question.subject.workload()?;
    world.workloads.get(name).map(AsRef::as_ref)
}

fn owner(world: &World, address: IpAddr) -> Option<&Workload> {
    let name = world.addresses.get(&address)?;
    world.workloads.get(name).map(AsRef::as_ref)
}

fn asked_port(question: &Question) -> Port {
    Port {
        protocol: question.protocol,
        number: question.port,
    }
}
