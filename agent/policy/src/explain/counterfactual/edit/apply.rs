//! How an edit is done to a world.

use std::sync::Arc;

use super::{Edit, PeerWords, exactly};
use crate::{
    connection::Perspective,
    model::{
        Change, Direction, Labels, NetworkPolicy, ObjectName, Peer, Peers, PolicyId, PolicyKind,
        PortMatch, Ports, Rule, Source, Subjects, Terms, Tier, TierAction, TierPolicy, TierRule,
        When, World,
    },
    question::RuleId,
};

/// Of the policies that edits add. No object is called so, so that none is replaced; and of those with
/// the same priority it comes first.
const NAME: &str = "(counterfactual)";

impl Edit {
    /// The object that it changes, as it is in this world: what takes the edit back.
    pub(in super::super) fn object(&self, world: &World) -> Option<Change> {
        match self {
            Self::Wait { .. } => None,
            Self::AddPort { rule, .. }
            | Self::RemovePort { rule, .. }
            | Self::AddRule { rule, .. }
            | Self::RemoveRule { rule } => policy(world, &rule.policy),
            Self::RemovePolicy { policy: id } => policy(world, id),
            Self::AddPolicy { .. } => policy(world, &added_policy()),
            Self::Label { workload, .. } => {
                let known = world.workloads.get(workload).cloned();
                Some(Change::Workload(workload.clone(), known))
            }
            Self::Isolate { workload, .. } => {
                policy(world, &PolicyId::network_policy(&added_to(workload)))
            }
        }
    }

    /// Does it. What the edit speaks of must be there; else nothing happens.
    pub fn apply(&self, world: &mut World, perspective: &mut Perspective) {
        match self {
            Self::Wait { until } => perspective.at = *until,
            Self::AddPort { rule, ports, .. } => {
                change_ports(world, rule, |listed| listed.push(ports.clone()));
            }
            Self::RemovePort { rule, position, .. } => change_ports(world, rule, |listed| {
                if *position < listed.len() {
                    listed.remove(*position);
                }
            }),
            Self::Label {
                workload,
                key,
                value,
            } => {
                if let Some(known) = world.workloads.get(workload) {
                    let mut changed = known.as_ref().clone();
                    Arc::make_mut(&mut changed.labels).insert(key.clone(), value.clone());
                    let change = Change::Workload(workload.clone(), Some(Arc::new(changed)));
                    world.apply(&change);
                }
            }
            Self::AddRule {
                rule,
                action,
                peer: PeerWords(peer),
                ports,
                ..
            } => {
                let peers = Peers::listed(vec![peer.clone()]);
                add_rule(world, rule, *action, peers, ports.clone());
            }
            Self::RemoveRule { rule } => remove_rule(world, rule),
            Self::RemovePolicy { policy } => {
                world.tier_policies.remove(policy);
            }
            Self::AddPolicy {
                direction,
                peer: PeerWords(peer),
                ports,
                subjects,
                ..
            } => add_policy(world, *direction, peer, ports, subjects),
            Self::Isolate {
                workload,
                direction,
                labels,
            } => isolate(world, workload, *direction, labels),
        }
    }
}

fn policy(world: &World, id: &PolicyId) -> Option<Change> {
    if id.kind == PolicyKind::NetworkPolicy {
        let name = ObjectName::new(id.namespace.clone()?, id.name.clone());
        let known = world.network_policies.get(&name).cloned();
        return Some(Change::NetworkPolicy(name, known));
    }
    let known = world.tier_policies.get(id).cloned();
    Some(Change::TierPolicy(id.clone(), known))
}

fn added_policy() -> PolicyId {
    PolicyId::cluster_wide(PolicyKind::RingfencePolicy, NAME)
}

fn added_to(workload: &ObjectName) -> ObjectName {
    ObjectName::new(workload.namespace.clone(), NAME)
}

fn source() -> Source {
    let file = Arc::from(NAME);
    Source { file, line: 1 }
}

fn position(rule: &RuleId) -> usize {
    usize::try_from(rule.index).unwrap_or(usize::MAX)
}

fn network_policy<'w>(world: &'w mut World, id: &PolicyId) -> Option<&'w mut NetworkPolicy> {
    let name = ObjectName::new(id.namespace.clone()?, id.name.clone());
    world.network_policies.get_mut(&name).map(Arc::make_mut)
}

fn tier_rules<'w>(world: &'w mut World, rule: &RuleId) -> Option<&'w mut Vec<TierRule>> {
    let policy = Arc::make_mut(world.tier_policies.get_mut(&rule.policy)?);
    Some(match rule.direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    })
}

fn rules<'w>(world: &'w mut World, rule: &RuleId) -> Option<&'w mut Vec<Rule>> {
    let policy = network_policy(world, &rule.policy)?;
    match rule.direction {
        Direction::Ingress => policy.ingress.as_mut(),
        Direction::Egress => policy.egress.as_mut(),
    }
}

fn change_ports(world: &mut World, rule: &RuleId, change: impl FnOnce(&mut Vec<PortMatch>)) {
    let ports = if rule.policy.kind == PolicyKind::NetworkPolicy {
        rules(world, rule).and_then(|rules| Some(&mut rules.get_mut(position(rule))?.ports))
    } else {
        tier_rules(world, rule).and_then(|rules| Some(&mut rules.get_mut(position(rule))?.ports))
    };
    if let Some(Ports::Listed(listed)) = ports {
        change(listed);
    }
}

fn add_rule(world: &mut World, rule: &RuleId, action: TierAction, peers: Peers, ports: Ports) {
    if rule.policy.kind == PolicyKind::NetworkPolicy {
        if let Some(rules) = rules(world, rule) {
            let at = position(rule).min(rules.len());
            let source = source();
            rules.insert(
                at,
                Rule {
                    peers,
                    ports,
                    source,
                },
            );
        }
    } else if let Some(rules) = tier_rules(world, rule) {
        let at = position(rule).min(rules.len());
        rules.insert(at, tier_rule(action, peers, ports));
    }
}

fn tier_rule(action: TierAction, peers: Peers, ports: Ports) -> TierRule {
    TierRule {
        name: None,
        action,
        peers,
        ports,
        when: When::default(),
        source: source(),
    }
}

fn remove_rule(world: &mut World, rule: &RuleId) {
    let at = position(rule);
    if rule.policy.kind == PolicyKind::NetworkPolicy {
        if let Some(rules) = rules(world, rule).filter(|rules| at < rules.len()) {
            rules.remove(at);
        }
    } else if let Some(rules) = tier_rules(world, rule).filter(|rules| at < rules.len()) {
        rules.remove(at);
    }
}

fn add_policy(
    world: &mut World,
    direction: Direction,
    peer: &Peer,
    ports: &PortMatch,
    subjects: &Subjects,
) {
    let id = added_policy();
    let rules = vec![tier_rule(
        TierAction::Deny,
        Peers::listed(vec![peer.clone()]),
        Ports::Listed(vec![ports.clone()]),
    )];
    let (ingress, egress) = match direction {
        Direction::Ingress => (rules, Vec::new()),
        Direction::Egress => (Vec::new(), rules),
    };
    let policy = TierPolicy {
        id: id.clone(),
        tier: Tier::Admin,
        priority: 0,
        subjects: subjects.clone(),
        ingress,
        egress,
        when: When::default(),
        terms: Terms::default(),
        source: source(),
    };
    world.tier_policies.insert(id, Arc::new(policy));
}

fn isolate(world: &mut World, workload: &ObjectName, direction: Direction, labels: &Labels) {
    let name = added_to(workload);
    let closed = |one: Direction| (one == direction).then(Vec::new);
    let policy = NetworkPolicy {
        name: name.clone(),
        subject: exactly(labels),
        ingress: closed(Direction::Ingress),
        egress: closed(Direction::Egress),
        terms: Terms::default(),
        source: source(),
    };
    world.network_policies.insert(name, Arc::new(policy));
}
