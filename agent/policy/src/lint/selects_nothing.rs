//! `selects-nothing`: a policy about nobody, or a rule with a peer that nobody is.
//!
//! Said only of what the input could know: a folder of policies alone is no mistake, its inventory
//! comes from elsewhere. What no label can ever satisfy is said without an inventory too.

use std::{cell::OnceCell, collections::HashMap};

use super::{
    findings::Findings,
    inventory::{Found, Inventory},
    labels::LabelSet,
    policy::{self, Policy, RuleAt, subject_path},
};
use crate::{
    diagnostic::Severity,
    model::{EndpointSpec, NetworkPolicy, Peer, Peers, Selector, Subjects, TierPolicy},
};

pub(super) const CODE: &str = "selects-nothing";

pub(super) fn run(inventory: &Inventory<'_>, findings: &mut Findings<'_>) {
    let mut peers = PeersSeen::default();
    for policy in policy::all(inventory.world) {
        match policy {
            Policy::Network(network) => subject_of_network_policy(inventory, network, findings),
            Policy::Tier(tier) => subjects_of_tier(inventory, tier, findings),
        }
        let met = OnceCell::new();
        let is_met = || *met.get_or_init(|| meets_sockets(inventory, policy));
        for rule in policy.all_rules() {
            peers_of(inventory, (policy, &rule), &is_met, &mut peers, findings);
        }
    }
}

/// What is wrong with each peer that was met, because thousands of rules name the same.
type PeersSeen<'a> = HashMap<&'a Peer, Option<&'static str>>;

pub(super) const UNSATISFIABLE: &str = "its requirements contradict one another";

fn subject_of_network_policy(
    inventory: &Inventory<'_>,
    policy: &NetworkPolicy,
    findings: &mut Findings<'_>,
) {
    let NetworkPolicy { name, subject, .. } = policy;
    let hint = if LabelSet::of(subject).is_empty() {
        UNSATISFIABLE
    } else if inventory.has_workloads() && !inventory.selects_workload(&name.namespace, subject) {
        "check the namespace and the labels of `podSelector`"
    } else {
        return;
    };
    let message = format!("policy `{name}` selects no workload");
    let found = findings.about(Policy::Network(policy), Severity::Warning, CODE, message);
    findings.push(found.at_path("spec.podSelector").with_hint(hint));
}

fn subjects_of_tier<'a>(
    inventory: &Inventory<'a>,
    policy: &'a TierPolicy,
    findings: &mut Findings<'_>,
) {
    let TierPolicy { id, subjects, .. } = policy;
    let mut say = |message: String, hint: &str| {
        let found = findings.about(Policy::Tier(policy), Severity::Warning, CODE, message);
        findings.push(found.at_path(subject_path(subjects)).with_hint(hint));
    };
    let whom = match subjects {
        Subjects::Nodes(_) => "node",
        Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_) => "workload",
    };
    if contradicts(subjects) {
        say(format!("policy `{id}` selects no {whom}"), UNSATISFIABLE);
    } else if !inventory.knows(subjects) {
        // Whoever it is about, they are declared elsewhere.
    } else if !inventory.selects(subjects) {
        let hint = match subjects {
            Subjects::Workloads {
                host_network: false,
                ..
            } => "check the labels; pods on the host network are no subjects of this kind",
            Subjects::Workloads { .. } | Subjects::Nodes(_) => "check the labels",
            Subjects::Units(_) | Subjects::Cgroups(_) => {
                "declare them as `Workload`, with that `endpoint`"
            }
        };
        say(format!("policy `{id}` selects no {whom}"), hint);
    } else {
        for name in undeclared(inventory, subjects) {
            say(
                format!("policy `{id}` names {name}, which no workload is"),
                "declare it as a `Workload`, with that `endpoint`",
            );
        }
    }
}

fn contradicts(subjects: &Subjects) -> bool {
    let nobody = |selector: &Selector| LabelSet::of(selector).is_empty();
    match subjects {
        Subjects::Workloads {
            namespaces,
            workloads,
            host_network: _,
        } => nobody(namespaces) || nobody(workloads),
        Subjects::Nodes(nodes) => nobody(nodes),
        Subjects::Units(_) | Subjects::Cgroups(_) => false,
    }
}

/// The units and cgroups that are nobody, where others beside them are.
fn undeclared(inventory: &Inventory<'_>, subjects: &Subjects) -> Vec<String> {
    let (names, form): (_, fn(String) -> EndpointSpec) = match subjects {
        Subjects::Units(names) => (names, EndpointSpec::SystemdUnit),
        Subjects::Cgroups(names) => (names, EndpointSpec::Cgroup),
        Subjects::Workloads { .. } | Subjects::Nodes(_) => return Vec::new(),
    };
    let endpoints = names.iter().map(|name| form(name.clone()));
    endpoints
        .filter(|endpoint| !inventory.has_endpoint(endpoint))
        .map(|endpoint| match endpoint {
            EndpointSpec::SystemdUnit(name) => format!("unit `{name}`"),
            EndpointSpec::Cgroup(name)
            | EndpointSpec::Interface(name)
            | EndpointSpec::Netns(name) => format!("cgroup `{name}`"),
        })
        .collect()
}

fn peers_of<'a>(
    inventory: &Inventory<'a>,
    (policy, rule): (Policy<'a>, &RuleAt<'a>),
    is_met: &impl Fn() -> bool,
    seen: &mut PeersSeen<'a>,
    findings: &mut Findings<'_>,
) {
    let Peers::Listed(peers) = rule.peers else {
        return;
    };
    for (index, peer) in peers.iter().enumerate() {
        let wrong = *seen
            .entry(peer)
            .or_insert_with(|| wrong_with(inventory, peer));
        let hint = wrong.or_else(|| {
            let is_in_vain = matches!(peer, Peer::Local(_)) && !is_met();
            is_in_vain.then_some(NEVER_MET)
        });
        let Some(hint) = hint else { continue };
        let whom = match peer {
            Peer::Workloads { .. } | Peer::Local(_) => "workload",
            Peer::Nodes(_) => "node",
            Peer::Domain(_) => "known name",
            Peer::Block { .. } | Peer::OwnNode => "address",
        };
        let path = format!("{}.{}[{index}]", rule.path(), rule.side());
        let message = format!("`{path}` of `{}` matches no {whom}", policy.id());
        let found = Findings::at(Severity::Warning, rule.source, CODE, message);
        findings.push(found.at_path(path).with_hint(hint));
    }
}

/// Sockets are told only to those who share the addresses they are at.
fn meets_sockets(inventory: &Inventory<'_>, policy: Policy<'_>) -> bool {
    let Policy::Tier(TierPolicy { subjects, .. }) = policy else {
        return false;
    };
    match subjects {
        Subjects::Nodes(_) => false,
        Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_) => {
            let selected = inventory.selected(subjects);
            // Nobody at all is told of elsewhere.
            selected.numbers().next().is_none() || inventory.shares_addresses(&selected)
        }
    }
}

const NEVER_MET: &str = "no subject of the policy meets others over loopback: none is a unit, a cgroup or \
                         a pod on the host network";

fn wrong_with<'a>(inventory: &Inventory<'a>, peer: &'a Peer) -> Option<&'static str> {
    match peer {
        Peer::Workloads {
            namespaces,
            workloads,
        } => {
            if LabelSet::of_scope(namespaces).is_empty() || LabelSet::of(workloads).is_empty() {
                return Some(UNSATISFIABLE);
            }
            if !inventory.has_workloads() {
                return None;
            }
            match inventory.peers(namespaces, workloads) {
                Found::Peers => None,
                Found::OnTheirNodes => {
                    Some("whoever shares its node's addresses is that node, as a peer")
                }
                Found::Nobody => Some("check the labels, and the namespace"),
            }
        }
        Peer::Nodes(selector) => {
            if LabelSet::of(selector).is_empty() {
                return Some(UNSATISFIABLE);
            }
            let nobody = inventory.has_nodes() && inventory.node(selector).is_none();
            nobody.then_some("check the labels of the nodes")
        }
        Peer::Domain(pattern) => {
            let nobody = inventory.has_workloads() && !inventory.knows_name(pattern);
            nobody.then_some("give the name its addresses in a `NameTable`")
        }
        Peer::Local(who) => {
            if contradicts(who) {
                return Some(UNSATISFIABLE);
            }
            let nobody =
                inventory.knows(who) && !inventory.shares_addresses(&inventory.selected(who));
            nobody.then_some("over loopback, only who shares its node's addresses can be met")
        }
        Peer::Block { .. } | Peer::OwnNode => None,
    }
}
