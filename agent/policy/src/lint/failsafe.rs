//! `denies-failsafe`: rules that deny what stays permitted all the same.
//!
//! Failsafe ranks above every policy, for subjects that share their node's addresses. A rule that
//! names ports of a failsafe, or peers where the failsafe names them too, means something that does
//! not happen, and gets a warning. One that is only wide enough to meet it (all ports of a block, and
//! DHCP from anywhere) means "all the rest", and gets a note. Once for each policy. A quarantine is
//! exempt: that it leaves the failsafe is what it is for.

use ipnet::IpNet;

use super::{
    findings::Findings,
    inventory::Inventory,
    peers::blocks_meet,
    policy::{Policy, RuleAt},
    ports,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Failsafe, Node, Peer, Peers, Ports, Subjects, Tier, TierAction, TierPolicy},
};

pub(super) fn run(inventory: &Inventory<'_>, findings: &mut Findings<'_>) {
    let world = inventory.world;
    if world.failsafe.is_empty() {
        return;
    }
    for policy in world.tier_policies.values() {
        if policy.tier == Tier::Quarantine || !may_share_addresses(inventory, &policy.subjects) {
            continue;
        }
        let rules = Policy::Tier(policy).all_rules();
        let meeting = rules
            .filter(|rule| rule.action == TierAction::Deny)
            .flat_map(|rule| {
                let met = world.failsafe.iter();
                met.filter(move |failsafe| meets(inventory, &rule, failsafe))
                    .map(move |failsafe| found(policy, &rule, failsafe))
            });
        // The graver first: which rule of several it is matters less.
        if let Some(found) = meeting.min_by_key(|found| found.severity) {
            findings.push(found);
        }
    }
}

fn found(policy: &TierPolicy, rule: &RuleAt<'_>, failsafe: &Failsafe) -> Diagnostic {
    let names_peers = *rule.peers != Peers::Every && failsafe.peers != Peers::Every;
    let severity = if names_peers || *rule.ports != Ports::Every {
        Severity::Warning
    } else {
        Severity::Note
    };
    let message = format!(
        "{} of `{}` denies what the failsafe `{}` still permits",
        rule.title(),
        policy.id,
        failsafe.name
    );
    Findings::at(severity, rule.source, "denies-failsafe", message)
        .at_path(rule.path())
        .with_hint("no policy takes a failsafe away; change `failsafe` in the agent's settings")
}

fn may_share_addresses(inventory: &Inventory<'_>, subjects: &Subjects) -> bool {
    match subjects {
        Subjects::Nodes(_) | Subjects::Units(_) | Subjects::Cgroups(_) => true,
        // Labels alone do not tell.
        Subjects::Workloads { .. } => inventory.shares_addresses(&inventory.selected(subjects)),
    }
}

fn meets(inventory: &Inventory<'_>, rule: &RuleAt<'_>, failsafe: &Failsafe) -> bool {
    let Failsafe {
        name: _,
        direction,
        peers,
        ports,
        source: _,
    } = failsafe;
    rule.direction == *direction
        && ports::meet(rule.ports, ports)
        && peers_meet(inventory, rule.peers, peers)
}

fn peers_meet(inventory: &Inventory<'_>, rule: &Peers, failsafe: &Peers) -> bool {
    match (rule, failsafe) {
        (Peers::Every, Peers::Every) => true,
        (Peers::Every, Peers::Listed(peers)) | (Peers::Listed(peers), Peers::Every) => {
            !peers.is_empty()
        }
        (Peers::Listed(rule), Peers::Listed(failsafe)) => failsafe.iter().any(|failsafe| {
            let Peer::Block { cidr, except } = failsafe else {
                return false;
            };
            rule.iter()
                .any(|peer| peer_meets(inventory, peer, (*cidr, except)))
        }),
    }
}

fn peer_meets(inventory: &Inventory<'_>, peer: &Peer, block: (IpNet, &[IpNet])) -> bool {
    let within = |node: &Node| {
        let (cidr, except) = block;
        node.addresses.iter().any(|address| {
            cidr.contains(address) && !except.iter().any(|hole| hole.contains(address))
        })
    };
    match peer {
        Peer::Block { cidr, except } => blocks_meet((*cidr, except), block),
        Peer::Nodes(selector) => inventory.nodes(selector).any(within),
        Peer::OwnNode => inventory.world.nodes.values().any(|node| within(node)),
        // Those who manage hosts are seldom pods of theirs; and names are for allowing only.
        // Nor are they on the host already.
        Peer::Workloads { .. } | Peer::Domain(_) | Peer::Local(_) => false,
    }
}
