//! What might turn an answer round. Nothing here needs to be right: every proposal is tried.

use std::net::IpAddr;

use super::edit::{Edit, PeerWords, exactly};
use crate::{
    compiled::host_prefix,
    connection::Port,
    load::NAMESPACE_NAME_LABEL,
    model::{
        Direction, EndpointSpec, IcmpVersion, Labels, NamespaceScope, Peer, Peers, PolicyId,
        PolicyKind, PortMatch, PortSpec, Ports, Protocol, Requirement, Selector, SubjectName,
        Subjects, Tier, TierAction, TierPolicy, Workload, World,
    },
    question::{Question, RuleId, Why},
    reference::matching::selects,
};

/// Edits that might permit what is denied.
pub(super) fn permitting(world: &World, question: &Question, why: &Why) -> Vec<Edit> {
    let mut edits = Vec::new();
    if let Why::Rule(rule) = why {
        edits.extend(instead_of(world, question, rule, TierAction::Accept));
    }
    for (rule, peers, ports) in accepting(world, question) {
        if let (Ports::Listed(_), Some((port, listed))) = (ports, port_for(&rule.policy, question))
        {
            edits.push(Edit::AddPort {
                rule: rule.clone(),
                port,
                ports: listed,
            });
        }
        edits.extend(labels_for(world, question.peer, peers));
    }
    if *why == Why::DefaultDeny {
        for policy in selecting(world, question) {
            edits.extend(one_more_rule(world, question, policy));
        }
    }
    edits
}

/// Edits that might deny what is permitted.
pub(super) fn denying(world: &World, question: &Question, why: &Why) -> Vec<Edit> {
    let mut edits = Vec::new();
    match why {
        Why::Rule(rule) => {
            edits.extend(instead_of(world, question, rule, TierAction::Deny));
            edits.extend(without_port(world, question, rule));
        }
        Why::NotIsolated => edits.extend(isolation(world, question)),
        Why::UnknownSubject | Why::ItsOwnAddress | Why::OwnNode | Why::DefaultDeny | Why::Stale => {
            return edits;
        }
    }
    edits.extend(denying_policy(world, question));
    edits
}

/// A rule of its own before the one that decides, or that one away.
fn instead_of(world: &World, question: &Question, rule: &RuleId, action: TierAction) -> Vec<Edit> {
    match rule.policy.kind {
        PolicyKind::Failsafe => Vec::new(),
        PolicyKind::NetworkPolicy => vec![Edit::RemoveRule { rule: rule.clone() }],
        PolicyKind::ClusterNetworkPolicy | PolicyKind::RingfencePolicy => {
            let tier = world
                .tier_policies
                .get(&rule.policy)
                .map(|known| known.tier);
            if tier == Some(Tier::Quarantine) {
                let policy = rule.policy.clone();
                return vec![Edit::RemovePolicy { policy }];
            }
            let peer = peer_for(world, question.peer, None);
            // The kind of Kubernetes knows no blocks as sources.
            let says_it = rule.policy.kind == PolicyKind::RingfencePolicy
                || rule.direction == Direction::Egress
                || matches!(peer, Peer::Workloads { .. });
            let narrow =
                port_for(&rule.policy, question)
                    .filter(|_| says_it)
                    .map(|(port, ports)| Edit::AddRule {
                        rule: rule.clone(),
                        action,
                        peer: PeerWords(peer),
                        port: Some(port),
                        ports: Ports::Listed(vec![ports]),
                    });
            let removal = Edit::RemoveRule { rule: rule.clone() };
            narrow.into_iter().chain([removal]).collect()
        }
    }
}

/// Every rule that permits something to the subject.
fn accepting<'w>(world: &'w World, question: &Question) -> Vec<(RuleId, &'w Peers, &'w Ports)> {
    let Question {
        subject, direction, ..
    } = question;
    let id = |policy: &PolicyId, index| RuleId {
        policy: policy.clone(),
        direction: *direction,
        index,
    };
    let mut found = Vec::new();
    for policy in selecting(world, question) {
        let rules = world
            .network_policies
            .get(&crate::model::ObjectName::new(
                policy.namespace.clone().unwrap_or_default(),
                policy.name.clone(),
            ))
            .and_then(|known| known.rules(*direction))
            .unwrap_or_default();
        let rules = (0..).zip(rules);
        found.extend(rules.map(|(index, rule)| (id(&policy, index), &rule.peers, &rule.ports)));
    }
    for policy in world.tier_policies.values() {
        if !may_select(world, policy, subject) {
            continue;
        }
        let rules = (0..).zip(policy.rules(*direction));
        found.extend(
            rules
                .filter(|(_, rule)| rule.action == TierAction::Accept)
                .map(|(index, rule)| (id(&policy.id, index), &rule.peers, &rule.ports)),
        );
    }
    found
}

/// The `NetworkPolicy` objects that isolate the subject.
fn selecting(world: &World, question: &Question) -> Vec<PolicyId> {
    let Some(workload) = subject(world, question) else {
        return Vec::new();
    };
    world
        .network_policies
        .values()
        .filter(|policy| {
            policy.name.namespace == workload.name.namespace
                && policy.rules(question.direction).is_some()
                && selects(&policy.subject, &workload.labels)
        })
        .map(|policy| PolicyId::network_policy(&policy.name))
        .collect()
}

fn subject<'w>(world: &'w World, question: &Question) -> Option<&'w Workload> {
    let name = question.subject.workload()?;
    world.workloads.get(name).map(AsRef::as_ref)
}

fn may_select(world: &World, policy: &TierPolicy, subject: &SubjectName) -> bool {
    let nothing = Labels::new();
    match (&policy.subjects, subject) {
        (
            Subjects::Workloads {
                namespaces,
                workloads,
                host_network: _,
            },
            SubjectName::Workload(name),
        ) => world.workloads.get(name).is_some_and(|workload| {
            let labels = world.namespaces.get(&name.namespace);
            selects(workloads, &workload.labels)
                && selects(namespaces, labels.map_or(&nothing, AsRef::as_ref))
        }),
        (Subjects::Nodes(selector), SubjectName::Node(name)) => world
            .nodes
            .get(name)
            .is_some_and(|node| selects(selector, &node.labels)),
        (Subjects::Units(_) | Subjects::Cgroups(_), SubjectName::Workload(_)) => true,
        _ => false,
    }
}

/// The port as a rule of this kind can say it.
fn port_for(policy: &PolicyId, question: &Question) -> Option<(Port, PortMatch)> {
    let port = Port {
        protocol: question.protocol,
        number: question.port,
    };
    let [kind, code] = port.number.to_be_bytes();
    let icmp = |version| PortMatch::Icmp {
        version,
        kind: Some(kind),
        code: Some(code),
    };
    let transport = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.number() == port.protocol);
    let ours = policy.kind == PolicyKind::RingfencePolicy;
    let said = match transport {
        Some(protocol) if port.number > 0 => PortMatch::Transport {
            protocol,
            port: PortSpec::Range {
                first: port.number,
                last: port.number,
            },
        },
        Some(_) => return None,
        None if !ours => return None,
        None if port.protocol == IcmpVersion::V4.number() => icmp(IcmpVersion::V4),
        None if port.protocol == IcmpVersion::V6.number() => icmp(IcmpVersion::V6),
        None => PortMatch::Protocol(port.protocol),
    };
    Some((port, said))
}

/// The peer as a rule can say it: by its labels if a workload owns the address.
fn peer_for(world: &World, address: IpAddr, own_namespace: Option<&str>) -> Peer {
    let owner = world.addresses.get(&address);
    let labelled = owner
        .and_then(|name| world.workloads.get(name))
        .filter(|workload| !workload.labels.is_empty());
    match labelled {
        Some(workload) => {
            let namespace = workload.name.namespace.clone();
            Peer::Workloads {
                namespaces: if own_namespace == Some(namespace.as_str()) {
                    NamespaceScope::Named(namespace)
                } else {
                    NamespaceScope::Matching(namespace_called(namespace))
                },
                workloads: exactly(&workload.labels),
            }
        }
        None => Peer::Block {
            cidr: host_prefix(address),
            except: Vec::new(),
        },
    }
}

fn namespace_called(name: String) -> Selector {
    let key = NAMESPACE_NAME_LABEL.to_owned();
    Selector {
        requirements: vec![Requirement::In {
            key,
            values: [name].into(),
        }],
    }
}

/// The one label that the peer lacks for a rule to name it.
fn labels_for(world: &World, address: IpAddr, peers: &Peers) -> Vec<Edit> {
    let owner = world
        .addresses
        .get(&address)
        .and_then(|name| world.workloads.get(name));
    let (Some(owner), Peers::Listed(peers)) = (owner, peers) else {
        return Vec::new();
    };
    peers
        .iter()
        .filter_map(|peer| {
            let Peer::Workloads { workloads, .. } = peer else {
                return None;
            };
            let mut missing = workloads.requirements.iter().filter(|requirement| {
                let alone = Selector {
                    requirements: vec![(*requirement).clone()],
                };
                !selects(&alone, &owner.labels)
            });
            let (key, value) = match (missing.next()?, missing.next()) {
                (Requirement::In { key, values }, None) => (key, values.first()?.clone()),
                (Requirement::Exists { key }, None) => (key, String::new()),
                _ => return None,
            };
            Some(Edit::Label {
                workload: owner.name.clone(),
                key: key.clone(),
                value,
            })
        })
        .collect()
}

fn one_more_rule(world: &World, question: &Question, policy: PolicyId) -> Option<Edit> {
    let name = crate::model::ObjectName::new(policy.namespace.clone()?, policy.name.clone());
    let rules = world
        .network_policies
        .get(&name)?
        .rules(question.direction)?;
    let (port, ports) = match port_for(&policy, question) {
        Some((port, listed)) => (Some(port), Ports::Listed(vec![listed])),
        // This kind cannot list it: only a rule without ports permits it.
        None => (None, Ports::Every),
    };
    let peer = peer_for(world, question.peer, policy.namespace.as_deref());
    Some(Edit::AddRule {
        rule: RuleId {
            direction: question.direction,
            index: u32::try_from(rules.len()).ok()?,
            policy,
        },
        action: TierAction::Accept,
        peer: PeerWords(peer),
        port,
        ports,
    })
}

/// Each item of the rule's ports, where there are others.
fn without_port(world: &World, question: &Question, rule: &RuleId) -> Vec<Edit> {
    let at = usize::try_from(rule.index).unwrap_or(usize::MAX);
    let ports = if rule.policy.kind == PolicyKind::NetworkPolicy {
        let namespace = rule.policy.namespace.clone().unwrap_or_default();
        let name = crate::model::ObjectName::new(namespace, rule.policy.name.clone());
        let policy = world.network_policies.get(&name);
        policy
            .and_then(|policy| policy.rules(rule.direction)?.get(at))
            .map(|rule| &rule.ports)
    } else {
        let policy = world.tier_policies.get(&rule.policy);
        policy
            .and_then(|policy| policy.rules(rule.direction).get(at))
            .map(|rule| &rule.ports)
    };
    let Some(Ports::Listed(listed)) = ports.filter(|_| rule.policy.kind != PolicyKind::Failsafe)
    else {
        return Vec::new();
    };
    if listed.len() < 2 {
        return Vec::new();
    }
    let edit = |position| Edit::RemovePort {
        rule: rule.clone(),
        port: Port {
            protocol: question.protocol,
            number: question.port,
        },
        position,
    };
    (0..listed.len()).map(edit).collect()
}

fn isolation(world: &World, question: &Question) -> Option<Edit> {
    let workload = subject(world, question)?;
    Some(Edit::Isolate {
        workload: workload.name.clone(),
        direction: question.direction,
        labels: workload.labels.clone(),
    })
}

fn denying_policy(world: &World, question: &Question) -> Option<Edit> {
    let subjects = match &question.subject {
        SubjectName::Node(name) => Subjects::Nodes(exactly(&world.nodes.get(name)?.labels)),
        SubjectName::Workload(name) => {
            let workload = world.workloads.get(name)?;
            match &workload.endpoint {
                Some(EndpointSpec::SystemdUnit(unit)) => Subjects::Units([unit.clone()].into()),
                Some(EndpointSpec::Cgroup(path)) => Subjects::Cgroups([path.clone()].into()),
                Some(EndpointSpec::Interface(_) | EndpointSpec::Netns(_)) | None => {
                    Subjects::Workloads {
                        namespaces: namespace_called(name.namespace.clone()),
                        workloads: exactly(&workload.labels),
                        host_network: true,
                    }
                }
            }
        }
    };
    let ours = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "counterfactual");
    let (port, ports) = port_for(&ours, question)?;
    Some(Edit::AddPolicy {
        subject: question.subject.clone(),
        direction: question.direction,
        peer: PeerWords(peer_for(world, question.peer, None)),
        port,
        ports,
        subjects,
    })
}
