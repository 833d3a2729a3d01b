//! How an edit is said.

use std::fmt;

use super::{Edit, PeerWords};
use crate::{
    compiled::Rank,
    connection::rule_name,
    load::NAMESPACE_NAME_LABEL,
    model::{
        Direction, NamespaceScope, Peer, PolicyKind, Requirement, Selector, Subjects, TierAction,
    },
    question::RuleId,
};

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
            Peer::Local(who) => match who {
                Subjects::Units(names) | Subjects::Cgroups(names) => {
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    write!(f, "{} over loopback", names.join(", "))
                }
                Subjects::Workloads { workloads, .. } => {
                    write!(f, "{} over loopback", labels(workloads))
                }
                Subjects::Nodes(_) => f.write_str("nobody"),
            },
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
