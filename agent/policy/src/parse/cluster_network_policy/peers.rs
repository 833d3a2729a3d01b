//! `from` and `to` of a rule.

use std::collections::BTreeSet;

use super::{MAX_BLOCKS, MAX_PEERS, namespaced_pods};
use crate::{
    model::{Direction, NamespaceScope, Peer, Selector, TierAction},
    parse::{
        address,
        choice::alternatives,
        domain, form,
        nearest::nearest,
        reader::{Field, Object},
        selector, tier,
    },
};

pub(super) struct PeerList {
    pub(super) listed: Vec<Peer>,
    pub(super) understood: Understood,
    pub(super) port_names: PortNames,
}

/// Whether the ports of every peer can have names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PortNames {
    Possible,
    Impossible,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Understood {
    All,
    /// The API says that a rule with such a peer fails closed.
    NotAll,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Namespaces,
    Pods,
    Nodes,
    Networks,
    DomainNames,
}

const FORMS: [(&str, Form); 5] = [
    ("namespaces", Form::Namespaces),
    ("pods", Form::Pods),
    ("nodes", Form::Nodes),
    ("networks", Form::Networks),
    ("domainNames", Form::DomainNames),
];

impl Form {
    /// The only peers of ingress, and the only ones that name their ports.
    fn is_workloads(self) -> bool {
        matches!(self, Self::Namespaces | Self::Pods)
    }
}

pub(super) fn read(
    field: &Field<'_>,
    direction: Direction,
    action: Option<TierAction>,
) -> Option<PeerList> {
    let mut list = PeerList {
        listed: Vec::new(),
        understood: Understood::All,
        port_names: PortNames::Possible,
    };
    let items = form::items(field, Some(MAX_PEERS))?;
    let listed = form::each(&items, |item| peer(item, direction, action, &mut list))?;
    list.listed = listed.into_iter().flatten().collect();
    Some(list)
}

fn peer(
    field: &Field<'_>,
    direction: Direction,
    action: Option<TierAction>,
    list: &mut PeerList,
) -> Option<Vec<Peer>> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &FORMS);
    if tier::says_nothing(&object) {
        object.deny_unknown();
        refuse_empty(field, direction);
        return None;
    }
    if written.is_empty() && is_from_the_future(&object) {
        object.tolerate_unknown();
        warn_not_understood(field, direction, action);
        list.understood = Understood::NotAll;
        return Some(Vec::new());
    }
    object.deny_unknown();
    let mut read = Vec::new();
    for (form, field) in &written {
        if !form.is_workloads() {
            list.port_names = PortNames::Impossible;
        }
        if !form.is_workloads() && direction == Direction::Ingress {
            let message = format!("`{}` can only be a peer of egress", field.last());
            field.error("egress-only-peer", message);
        }
        if *form == Form::DomainNames && action.is_some_and(|action| action != TierAction::Accept) {
            let message = "`domainNames` can only stand in a rule with the action `Accept`";
            field.error_with_hint(
                "domain-not-accepted",
                message,
                "deny every peer in a later rule, and accept names before it",
            );
        }
        read.push(one(*form, field));
    }
    form::only(field, "peer-form", &FORMS, read)
}

/// Nothing that looks like a slip: a field of a newer API.
fn is_from_the_future(object: &Object<'_>) -> bool {
    let known = FORMS.map(|(name, _)| name);
    let unknown = object.unknown();
    !unknown.iter().any(|key| nearest(key, &known).is_some())
}

/// The peers that a direction can have.
fn names(direction: Direction) -> Vec<&'static str> {
    let possible = |form: Form| direction == Direction::Egress || form.is_workloads();
    let forms = FORMS.iter().filter(|(_, form)| possible(*form));
    forms.map(|(name, _)| *name).collect()
}

/// As the API server does (`minProperties`).
fn refuse_empty(field: &Field<'_>, direction: Direction) {
    let names = names(direction);
    let message = format!(
        "{} names no peer: expected exactly one of {}",
        field.name(),
        alternatives(&names, "and")
    );
    let hint = match direction {
        Direction::Ingress => "every workload is `namespaces: {}`",
        Direction::Egress => "every address is `networks: [0.0.0.0/0, \"::/0\"]`",
    };
    field.error_with_hint("empty-peer", message, hint);
}

fn warn_not_understood(field: &Field<'_>, direction: Direction, action: Option<TierAction>) {
    let effect = match action {
        None => "is not understood",
        Some(TierAction::Accept) => "matches nothing",
        Some(TierAction::Deny | TierAction::Pass) => "denies everything",
    };
    field.warn(
        "peer-not-understood",
        format!(
            "{} names no peer that is known here: the rule {effect}",
            field.name()
        ),
        format!("expected {}", alternatives(&names(direction), "or")),
    );
}

fn one(form: Form, field: &Field<'_>) -> Option<Vec<Peer>> {
    match form {
        Form::Namespaces => {
            selector::read(field).map(|namespaces| vec![workloads(namespaces, Selector::default())])
        }
        Form::Pods => {
            namespaced_pods(field).map(|(namespaces, pods)| vec![workloads(namespaces, pods)])
        }
        Form::Nodes => selector::read(field).map(|nodes| vec![Peer::Nodes(nodes)]),
        Form::Networks => set(field, |item| {
            address::prefix(item).map(|cidr| Peer::Block {
                cidr,
                except: Vec::new(),
            })
        }),
        Form::DomainNames => set(field, |item| domain::pattern(item).map(Peer::Domain)),
    }
}

fn workloads(namespaces: Selector, workloads: Selector) -> Peer {
    Peer::Workloads {
        namespaces: NamespaceScope::Matching(namespaces),
        workloads,
    }
}

/// The API takes each item once.
fn set(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Option<Peer>) -> Option<Vec<Peer>> {
    let mut peers = Vec::new();
    let mut seen = BTreeSet::new();
    let mut broken = false;
    for item in form::items(field, Some(MAX_BLOCKS))? {
        let Some(peer) = read(&item) else {
            broken = true;
            continue;
        };
        if !seen.insert(peer.clone()) {
            item.error("duplicate-peer", format!("{} is listed twice", item.name()));
        }
        peers.push(peer);
    }
    (!broken).then_some(peers)
}
