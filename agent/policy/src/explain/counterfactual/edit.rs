//! What can be changed, how it is done to a world, and how it is said.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    compiled::Rank,
    connection::{Perspective, Port, rule_name},
    load::NAMESPACE_NAME_LABEL,
    model::{
        Change, Direction, Labels, NamespaceScope, NetworkPolicy, ObjectName, Peer, Peers,
        PolicyId, PolicyKind, PortMatch, Ports, Requirement, Rule, Selector, Source, SubjectName,
        Subjects, Terms, Tier, TierAction, TierPolicy, TierRule, Time, When, World,
    },
    question::RuleId,
};

/// Sorts from the smallest to the largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Edit {
    /// Change nothing, and ask again then.
    Wait {
        until: Time,
    },
    /// One more port in a rule.
    AddPort {
        rule: RuleId,
        port: Port,
        #[serde(skip)]
        ports: PortMatch,
    },
    Label {
        workload: ObjectName,
        key: String,
        value: String,
    },
    /// One of the ports of a rule.
    RemovePort {
        rule: RuleId,
        port: Port,
        #[serde(skip)]
        position: usize,
    },
    AddRule {
        /// Where it comes to stand; what is there now comes behind it.
        rule: RuleId,
        action: TierAction,
        #[serde(serialize_with = "as_text")]
        peer: PeerWords,
        /// `null`: every port.
        port: Option<Port>,
        #[serde(skip)]
        ports: Ports,
    },
    RemoveRule {
        rule: RuleId,
    },
    RemovePolicy {
        policy: PolicyId,
    },
    /// A `RingfencePolicy` of tier Admin with one rule.
    AddPolicy {
        subject: SubjectName,
        direction: Direction,
        #[serde(serialize_with = "as_text")]
        peer: PeerWords,
        port: Port,
        #[serde(skip)]
        ports: PortMatch,
        #[serde(skip)]
        subjects: Subjects,
    },
    /// A `NetworkPolicy` that permits nothing in a direction.
    Isolate {
        workload: ObjectName,
        direction: Direction,
        #[serde(skip)]
        labels: Labels,
    },
}

/// A peer of a new rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerWords(pub Peer);

fn as_text<S: serde::Serializer>(peer: &PeerWords, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

// === impl Edit ===

impl Edit {
    pub(super) fn removes(&self) -> bool {
        matches!(
            self,
            Self::RemovePort { .. } | Self::RemoveRule { .. } | Self::RemovePolicy { .. }
        )
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
                    changed.labels.insert(key.clone(), value.clone());
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
                let peers = Peers::Listed(vec![peer.clone()]);
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

fn source() -> Source {
    let file = Arc::from("counterfactual");
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
    let id = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "counterfactual");
    let rules = vec![tier_rule(
        TierAction::Deny,
        Peers::Listed(vec![peer.clone()]),
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
    let name = ObjectName::new(workload.namespace.clone(), "counterfactual");
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

pub(super) fn exactly(labels: &Labels) -> Selector {
    let one = |(key, value): (&String, &String)| Requirement::In {
        key: key.clone(),
        values: [value.clone()].into(),
    };
    Selector {
        requirements: labels.iter().map(one).collect(),
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait { until } => write!(f, "wait until {until}"),
            Self::AddPort { rule, port, .. } => {
                write!(f, "add to {} the port {port}", Place(rule))
            }
            Self::Label {
                workload,
                key,
                value,
            } => write!(f, "label {workload} with {key}={value}"),
            Self::RemovePort { rule, port, .. } => {
                write!(f, "remove from {} what lists the port {port}", Place(rule))
            }
            Self::AddRule {
                rule,
                action,
                peer,
                port,
                ..
            } => {
                let RuleId {
                    policy, direction, ..
                } = rule;
                if policy.kind == PolicyKind::NetworkPolicy {
                    let kind = policy.kind;
                    write!(f, "add to {kind} {policy} an {direction} rule")?;
                } else {
                    write!(f, "put before {} a rule {}", Place(rule), word(*action))?;
                }
                write!(f, " {} {peer}", toward(*direction))?;
                match port {
                    Some(port) => write!(f, " on {port}"),
                    None => f.write_str(" on every port"),
                }
            }
            Self::RemoveRule { rule } => {
                let RuleId {
                    policy,
                    direction,
                    index,
                } = rule;
                let (name, kind) = (rule_name(*direction, *index), policy.kind);
                write!(f, "remove rule {name} of {kind} {policy}")
            }
            Self::RemovePolicy { policy } => write!(f, "remove {} {policy}", policy.kind),
            Self::AddPolicy {
                subject,
                direction,
                peer,
                port,
                ..
            } => write!(
                f,
                "add a RingfencePolicy of tier {} and priority 0 that denies {subject} {direction} \
                 {} {peer} on {port}",
                Rank::Admin,
                toward(*direction)
            ),
            Self::Isolate {
                workload,
                direction,
                ..
            } => write!(
                f,
                "add a NetworkPolicy that selects {workload} for {direction} and does not permit it"
            ),
        }
    }
}

/// `NetworkPolicy shop/db ingress[0]`.
struct Place<'a>(&'a RuleId);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(RuleId {
            policy,
            direction,
            index,
        }) = self;
        let kind = policy.kind;
        write!(f, "{kind} {policy} {}", rule_name(*direction, *index))
    }
}

fn toward(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

fn word(action: TierAction) -> &'static str {
    match action {
        TierAction::Accept => "Accept",
        TierAction::Deny => "Deny",
        TierAction::Pass => "Pass",
    }
}

impl fmt::Display for PeerWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Peer::Block { cidr, .. } => cidr.fmt(f),
            Peer::Workloads {
                namespaces,
                workloads,
            } => {
                f.write_str(&labels(workloads))?;
                match namespaces {
                    NamespaceScope::Named(name) => write!(f, " of namespace {name}"),
                    NamespaceScope::Matching(selector) if name_of(selector).is_some() => {
                        write!(f, " of namespace {}", name_of(selector).unwrap_or_default())
                    }
                    NamespaceScope::Matching(selector) => {
                        write!(f, " of namespaces with {}", labels(selector))
                    }
                }
            }
            Peer::Nodes(selector) => write!(f, "nodes with {}", labels(selector)),
            Peer::OwnNode => f.write_str("its own node"),
            Peer::Domain(name) => f.write_str(name),
            Peer::Local(_) => f.write_str("somebody over loopback"),
        }
    }
}

/// The name of the one namespace that a selector asks for.
fn name_of(selector: &Selector) -> Option<&str> {
    match selector.requirements.as_slice() {
        [Requirement::In { key, values }] if key == NAMESPACE_NAME_LABEL && values.len() == 1 => {
            values.first().map(String::as_str)
        }
        _ => None,
    }
}

fn labels(selector: &Selector) -> String {
    let words: Vec<String> = selector
        .requirements
        .iter()
        .map(|requirement| match requirement {
            Requirement::In { key, values } => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                format!("{key}={}", values.join("|"))
            }
            Requirement::NotIn { key, values } => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                format!("{key}!={}", values.join("|"))
            }
            Requirement::Exists { key } => key.clone(),
            Requirement::DoesNotExist { key } => format!("!{key}"),
        })
        .collect();
    if words.is_empty() {
        "everything".to_owned()
    } else {
        words.join(",")
    }
}
