//! The list of edits in the documentation, spelled out without a thought for what may help.

use std::collections::BTreeSet;

use super::{super::super::edit::PeerWords, *};
use crate::{
    connection::Need,
    model::{Peer, PortMatch, PortSpec, Protocol, Requirement, Time, Workload},
    question::{RuleId, Why},
    reference,
};

/// A rule of any kind.
struct Written<'w> {
    id: RuleId,
    peers: &'w Peers,
    ports: &'w Ports,
}

/// Every rule of a direction, but those of quarantines, which nobody wrote.
fn written(world: &World, direction: Direction) -> Vec<Written<'_>> {
    let id = |policy: &PolicyId, index| RuleId {
        policy: policy.clone(),
        direction,
        index,
    };
    let mut all = Vec::new();
    for policy in world.network_policies.values() {
        let of = PolicyId::network_policy(&policy.name);
        for (index, rule) in (0..).zip(policy.rules(direction).unwrap_or_default()) {
            let (id, peers, ports) = (id(&of, index), &rule.peers, &rule.ports);
            all.push(Written { id, peers, ports });
        }
    }
    for policy in world.tier_policies.values() {
        if policy.tier == Tier::Quarantine {
            continue;
        }
        for (index, rule) in (0..).zip(policy.rules(direction)) {
            let (id, peers, ports) = (id(&policy.id, index), &rule.peers, &rule.ports);
            all.push(Written { id, peers, ports });
        }
    }
    all
}

/// TCP, UDP or SCTP alone, which every kind can list.
fn transport(port: Port) -> Option<PortMatch> {
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.number() == port.protocol && port.number > 0)?;
    let (first, last) = (port.number, port.number);
    let port = PortSpec::Range { first, last };
    Some(PortMatch::Transport { protocol, port })
}

/// Every label that some selector among these asks of a workload.
fn labels_asked(peers: &Peers, workload: &Workload) -> Vec<Edit> {
    let Peers::Listed(peers) = peers else {
        return Vec::new();
    };
    let requirements = peers.iter().flat_map(|peer| match peer {
        Peer::Workloads { workloads, .. } => workloads.requirements.as_slice(),
        _ => &[],
    });
    let label = |key: &String, value: &str| Edit::Label {
        workload: workload.name.clone(),
        key: key.clone(),
        value: value.to_owned(),
    };
    requirements
        .flat_map(|requirement| match requirement {
            Requirement::In { key, values } => values.iter().map(|one| label(key, one)).collect(),
            Requirement::Exists { key } => vec![label(key, "")],
            _ => Vec::new(),
        })
        .collect()
}

/// The edits of the list that are about one answer, each with what undoes it where it might work by
/// an accident: a label is meant to let a rule name the peer, whatever else it does.
pub(super) fn about(world: &World, need: &Need, why: &Why) -> Vec<(Edit, Option<Edit>)> {
    let question = &need.about;
    let port = Port {
        protocol: question.protocol,
        number: question.port,
    };
    let owner = world
        .addresses
        .get(&question.peer)
        .and_then(|name| world.workloads.get(name));
    let named = naming(world, question);
    let mut edits = Vec::new();
    for Written { id, peers, ports } in written(world, question.direction) {
        let rule = || id.clone();
        let removal = Edit::RemoveRule { rule: rule() };
        if let Ports::Listed(listed) = ports {
            let longer = transport(port).map(|ports| Edit::AddPort {
                rule: rule(),
                port,
                ports,
            });
            edits.extend(longer.map(|edit| (edit, None)));
            let shorter = (0..listed.len()).filter(|_| listed.len() > 1);
            edits.extend(shorter.map(|position| {
                let rule = rule();
                let edit = Edit::RemovePort {
                    rule,
                    port,
                    position,
                };
                (edit, None)
            }));
        }
        let others = owner.filter(|_| !named.contains(&id));
        let labels = others.map(|workload| labels_asked(peers, workload));
        let does_it = |label: &Edit| naming(&after(world, label), question).contains(&id);
        let labels = labels.into_iter().flatten().filter(does_it);
        edits.extend(labels.map(|edit| (edit, Some(removal.clone()))));
        edits.push((removal, None));
    }
    for policy in world.tier_policies.values() {
        if policy.tier == Tier::Quarantine {
            let policy = policy.id.clone();
            edits.push((Edit::RemovePolicy { policy }, None));
        }
    }
    edits.extend(new_rules(world, question, why).map(|edit| (edit, None)));
    edits
}

fn after(world: &World, edit: &Edit) -> World {
    let mut changed = world.clone();
    edit.apply(&mut changed, &mut Perspective::default());
    changed
}

/// The rules that may have a say and name the peer.
fn naming(world: &World, question: &Question) -> BTreeSet<RuleId> {
    let rules = reference::considered(world, question)
        .into_iter()
        .flat_map(|policy| policy.rules);
    let naming = rules.filter(|rule| rule.fit.peer);
    naming.map(|rule| rule.id).collect()
}

/// One more in a `NetworkPolicy`, or before the rule of a ranked policy that decides now.
fn new_rules(world: &World, question: &Question, why: &Why) -> impl Iterator<Item = Edit> {
    let port = Port {
        protocol: question.protocol,
        number: question.port,
    };
    let direction = question.direction;
    let mut places: Vec<RuleId> = Vec::new();
    for policy in world.network_policies.values() {
        let rules = policy.rules(direction).map(<[_]>::len);
        places.extend(rules.map(|index| RuleId {
            policy: PolicyId::network_policy(&policy.name),
            direction,
            index: u32::try_from(index).unwrap(),
        }));
    }
    if let Why::Rule(decider) = why {
        // That of Kubernetes knows no blocks as sources.
        let knows_blocks = decider.policy.kind == PolicyKind::RingfencePolicy
            || decider.direction == Direction::Egress;
        let tier = world.tier_policies.get(&decider.policy).map(|one| one.tier);
        let is_written = tier.is_some_and(|tier| tier != Tier::Quarantine);
        places.extend((knows_blocks && is_written).then(|| decider.clone()));
    }
    let peer = Peer::Block {
        cidr: question.peer.into(),
        except: Vec::new(),
    };
    let ports = transport(port);
    let rule = move |(rule, action, ports): (&RuleId, TierAction, PortMatch)| Edit::AddRule {
        rule: rule.clone(),
        action,
        peer: PeerWords(peer.clone()),
        port: Some(port),
        ports: Ports::Listed(vec![ports]),
    };
    let mut edits = Vec::new();
    for place in &places {
        for action in [TierAction::Accept, TierAction::Deny] {
            let is_said =
                action == TierAction::Accept || place.policy.kind != PolicyKind::NetworkPolicy;
            let ports = ports.clone().filter(|_| is_said);
            edits.extend(ports.map(|ports| rule((place, action, ports))));
        }
    }
    edits.into_iter()
}

/// Every half an hour of the next seven days.
pub(super) fn half_hours(now: Time) -> impl Iterator<Item = Edit> {
    let later = (1..=7 * 48).map(move |number| Time::from_unix(now.unix() + number * 1_800));
    later.map(|until| Edit::Wait { until })
}
