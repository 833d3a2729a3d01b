//! `from` and `to` of a rule.

use super::subject;
use crate::{
    model::{Direction, NamespaceScope, Peer, Peers, TierAction},
    parse::{
        address, domain, form,
        reader::{Field, Object},
        selector, tier,
    },
};

/// What a peer depends on beside itself.
#[derive(Clone, Copy)]
struct Rule {
    direction: Direction,
    /// `None`: what it is could not be read.
    action: Option<TierAction>,
}

type Read = fn(&Field<'_>, Rule) -> Option<Peer>;

const FORMS: [(&str, Read); 5] = [
    ("workloads", |field, _| {
        let (namespaces, workloads) = subject::workloads(field)?;
        Some(Peer::Workloads {
            namespaces: NamespaceScope::Matching(namespaces),
            workloads,
        })
    }),
    ("cidr", |field, _| block(field)),
    ("nodes", |field, _| selector::read(field).map(Peer::Nodes)),
    ("ownNode", |field, _| {
        field.object()?.deny_unknown();
        Some(Peer::OwnNode)
    }),
    ("domain", domain_name),
];

/// What shares its node's addresses, under the names that people try.
const WITHOUT_ADDRESS: [&str; 7] = [
    "unit",
    "units",
    "systemdUnit",
    "cgroup",
    "cgroups",
    "hostNetwork",
    "hostNetworkPods",
];

pub(super) fn read(
    field: &Field<'_>,
    direction: Direction,
    action: Option<TierAction>,
) -> Option<Peers> {
    let side = tier::side(direction);
    let hint = format!("leave `{side}` out to match every peer");
    let rule = Rule { direction, action };
    let mut peers = Vec::new();
    let mut broken = false;
    for item in form::items_or_hint(field, None, Some(&hint))? {
        match peer(&item, rule) {
            Some(peer) => peers.push(peer),
            None => broken = true,
        }
    }
    (!broken).then_some(Peers::Listed(peers))
}

fn peer(field: &Field<'_>, rule: Rule) -> Option<Peer> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &FORMS);
    let shared = without_address(&mut object);
    object.deny_unknown();
    let read: Vec<_> = written
        .iter()
        .map(|(read, field)| read(field, rule))
        .collect();
    if shared && read.is_empty() {
        return None;
    }
    form::only(field, "peer-form", &FORMS, read)
}

fn without_address(object: &mut Object<'_>) -> bool {
    let mut found = false;
    for name in WITHOUT_ADDRESS {
        let Some(field) = object.refused(name) else {
            continue;
        };
        found = true;
        field.error_with_hint(
            "peer-without-address",
            format!("`{name}` can not be a peer: it shares the addresses of its node"),
            "as a peer it is its node: use `nodes`, or `ownNode` for the subject's own",
        );
    }
    found
}

fn block(field: &Field<'_>) -> Option<Peer> {
    let mut object = field.object()?;
    let block = object.require("block");
    let except = object.items("except");
    object.deny_unknown();
    address::block(block, &except)
}

fn domain_name(field: &Field<'_>, rule: Rule) -> Option<Peer> {
    let Rule { direction, action } = rule;
    if direction == Direction::Ingress {
        field.error_with_hint(
            "egress-only-peer",
            "`domain` can only be a peer of egress",
            "use `cidr` or `nodes`",
        );
    }
    if action.is_some_and(|action| action != TierAction::Accept) {
        field.error_with_hint(
            "domain-not-accepted",
            "`domain` can only stand in a rule with the action `Allow`",
            "deny every peer in a later rule, and allow names before it",
        );
    }
    domain::pattern(field).map(Peer::Domain)
}
