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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Workloads,
    Cidr,
    Nodes,
    OwnNode,
    Local,
    /// Of egress only.
    Domain,
}

const FORMS: [(&str, Form); 6] = [
    ("workloads", Form::Workloads),
    ("cidr", Form::Cidr),
    ("nodes", Form::Nodes),
    ("ownNode", Form::OwnNode),
    ("local", Form::Local),
    ("domain", Form::Domain),
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
    let items = form::items_or_hint(field, None, Some(&hint))?;
    form::each(&items, |item| peer(item, rule)).map(Peers::listed)
}

fn peer(field: &Field<'_>, rule: Rule) -> Option<Peer> {
    let mut object = field.object()?;
    let mut forms = FORMS.to_vec();
    let mut refused = without_address(&mut object);
    if rule.direction == Direction::Ingress {
        forms.retain(|(_, form)| *form != Form::Domain);
        if let Some(field) = object.refused("domain") {
            refused = true;
            field.error_with_hint(
                "egress-only-peer",
                "`domain` can only be a peer of egress",
                "use `cidr` or `nodes`",
            );
        }
    }
    let written = form::written(&mut object, &forms);
    object.deny_unknown();
    let read: Vec<_> = written
        .iter()
        .map(|(form, field)| form.read(field, rule))
        .collect();
    if refused && read.is_empty() {
        return None;
    }
    form::only(field, "peer-form", &forms, read)
}

impl Form {
    fn read(self, field: &Field<'_>, rule: Rule) -> Option<Peer> {
        match self {
            Self::Workloads => {
                let (namespaces, workloads) = subject::workloads(field)?;
                Some(Peer::Workloads {
                    namespaces: NamespaceScope::Matching(namespaces),
                    workloads,
                })
            }
            Self::Cidr => block(field),
            Self::Nodes => selector::read(field).map(Peer::Nodes),
            Self::OwnNode => {
                field.object()?.deny_unknown();
                Some(Peer::OwnNode)
            }
            Self::Local => subject::local(field).map(Peer::Local),
            Self::Domain => domain_name(field, rule.action),
        }
    }
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
            "as a peer it is its node: use `nodes` or `ownNode`; within the node, over loopback, `local` \
             has `units`, `cgroups` and `workloads`",
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

fn domain_name(field: &Field<'_>, action: Option<TierAction>) -> Option<Peer> {
    if action.is_some_and(|action| action != TierAction::Accept) {
        field.error_with_hint(
            "domain-not-accepted",
            "`domain` can only stand in a rule with the action `Allow`",
            "deny every peer in a later rule, and allow names before it",
        );
    }
    domain::pattern(field).map(Peer::Domain)
}
