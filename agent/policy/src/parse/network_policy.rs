//! `NetworkPolicy` of `networking.k8s.io/v1`. Strict: a field that we do not know may be the one
//! that closes a hole.

use std::sync::Arc;

use super::{
    DEFAULT_NAMESPACE, Declared, Object as Parsed, PortUse, address,
    choice::Choice,
    form,
    metadata::{self, Annotations, Form},
    names, port,
    reader::{Field, Object},
    selector, tier,
};
use crate::model::{
    Direction, NamespaceScope, NetworkPolicy, Peer, Peers, PortMatch, PortSpec, Ports, Rule,
    Selector,
};

const TYPES: Choice<Direction> = Choice::new(
    "policy type",
    "unknown-policy-type",
    &[
        ("Ingress", Direction::Ingress),
        ("Egress", Direction::Egress),
    ],
);

/// What the parts of one policy need to know of the whole.
struct Policy<'p> {
    namespace: &'p str,
    uses: Vec<PortUse>,
}

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let document = object.field().clone();
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::Namespaced(Annotations::Terms),
    );
    let spec = object.require("spec").and_then(|field| field.object());
    object.tolerate(&["status"]);
    object.deny_unknown();

    // A policy without a usable name is still read: for its other problems.
    let namespace = metadata
        .as_ref()
        .map_or(DEFAULT_NAMESPACE, |metadata| &metadata.namespace);
    let mut policy = Policy {
        namespace,
        uses: Vec::new(),
    };
    let spec = read_spec(spec?, &mut policy);
    let uses = policy.uses;
    let (metadata, (subject, ingress, egress)) = (metadata?, spec?);
    let source = document.source();
    let name = metadata.object_name();
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Policy {
            policy: Arc::new(NetworkPolicy {
                name,
                subject,
                ingress,
                egress,
                terms: metadata.terms,
                source,
            }),
            uses,
        },
    })
}

type Spec = (Selector, Option<Vec<Rule>>, Option<Vec<Rule>>);

fn read_spec(mut spec: Object<'_>, policy: &mut Policy<'_>) -> Option<Spec> {
    let place = spec.field().clone();
    let subject = if let Some(field) = spec.get("podSelector") {
        selector::read(&field)
    } else {
        place.warn(
            "no-subject",
            "no `podSelector`: the policy selects every workload of its namespace",
            "write `podSelector: {}` if that is meant",
        );
        Some(Selector::default())
    };
    let types = types(&mut spec);
    let ingress = spec.get("ingress");
    let egress = spec.get("egress");
    spec.deny_unknown();

    let ingress_rules = ingress.as_ref().map(|field| rules(field, "from", policy));
    let egress_rules = egress.as_ref().map(|field| rules(field, "to", policy));
    let some_egress = egress_rules.as_ref().is_some_and(|rules| !rules.is_empty());
    // Defaults: always ingress; egress only where a rule for it is written.
    let (in_force, out_force) = types.unwrap_or((true, some_egress));
    for (field, rules, force, name) in [
        (&ingress, &ingress_rules, in_force, "Ingress"),
        (&egress, &egress_rules, out_force, "Egress"),
    ] {
        if let (Some(field), Some(rules), false) = (field, rules, force)
            && !rules.is_empty()
        {
            field.warn(
                "rules-without-type",
                format!(
                    "{} has no effect: `policyTypes` does not name `{name}`",
                    field.name()
                ),
                format!("add `{name}` to `policyTypes`"),
            );
        }
    }
    Some((
        subject?,
        in_force.then(|| ingress_rules.unwrap_or_default()),
        out_force.then(|| egress_rules.unwrap_or_default()),
    ))
}

/// The directions named (ingress, egress), or `None` where the defaults apply.
fn types(spec: &mut Object<'_>) -> Option<(bool, bool)> {
    let items = form::at_most(&spec.get("policyTypes")?, 2).unwrap_or_default();
    if items.is_empty() {
        return None;
    }
    let mut named = (false, false);
    let mut broken = false;
    for item in items {
        match TYPES.read(&item) {
            Some(direction) => {
                let named = match direction {
                    Direction::Ingress => &mut named.0,
                    Direction::Egress => &mut named.1,
                };
                if std::mem::replace(named, true) {
                    let message = format!("{} is listed twice", item.name());
                    item.warn(
                        "duplicate-policy-type",
                        message,
                        "write each direction once; was the other one meant?",
                    );
                }
            }
            None => broken = true,
        }
    }
    // Which was meant is not known; "has no effect" must not be said of its rules.
    Some(if broken { (true, true) } else { named })
}

/// As many rules as are written, so that an empty list stays distinguishable from a broken one.
fn rules(field: &Field<'_>, peers: &'static str, policy: &mut Policy<'_>) -> Vec<Rule> {
    let items = field.list().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| rule(item, peers, policy))
        .collect()
}

fn rule(field: &Field<'_>, side: &'static str, policy: &mut Policy<'_>) -> Option<Rule> {
    let mut object = field.object()?;
    let open = object.is_empty() && side == "from";
    for (name, what) in [(side, "peer"), ("ports", "port")] {
        if let Some(field) = object.null(name) {
            warn_empty(&field, what);
        }
    }
    let peers = object.get(side);
    let ports = object.get("ports");
    let direction = match side {
        "from" => Direction::Ingress,
        _ => Direction::Egress,
    };
    object.deny_unknown_with(|entry| tier::other_side(entry, direction));
    if open {
        field.warn(
            "open-to-all",
            format!("{} allows every port from anywhere", field.name()),
            "name the peers in `from`, or the ports in `ports`",
        );
    }
    // Both before either can fail: all problems of the rule are wanted.
    let peers = peers.map_or(Some(Peers::Every), |field| read_peers(&field, side, policy));
    let ports = ports.map_or(Some(Ports::Every), |field| read_ports(&field, policy));
    Some(Rule {
        peers: peers?,
        ports: ports?,
        source: field.source(),
    })
}

fn read_peers(field: &Field<'_>, side: &str, policy: &Policy<'_>) -> Option<Peers> {
    let items = field.list()?;
    if items.is_empty() {
        warn_empty(field, "peer");
        return Some(Peers::Every);
    }
    let peers = items.iter().filter_map(|item| peer(item, side, policy));
    Some(Peers::Listed(peers.collect()))
}

fn read_ports(field: &Field<'_>, policy: &mut Policy<'_>) -> Option<Ports> {
    let items = field.list()?;
    if items.is_empty() {
        warn_empty(field, "port");
        return Some(Ports::Every);
    }
    let mut listed = Vec::new();
    for item in items {
        let Some(port) = port::port_match(&item) else {
            continue;
        };
        if let PortMatch::Transport {
            protocol,
            port: PortSpec::Name(name),
        } = &port
        {
            let (name, protocol) = (name.clone(), *protocol);
            policy.uses.push(PortUse {
                at: item.at(),
                path: item.path(),
                name,
                protocol: Some(protocol),
            });
        }
        listed.push(port);
    }
    Some(Ports::Listed(listed))
}

/// Whoever writes an empty list mostly means "none"; the API means "all".
fn warn_empty(field: &Field<'_>, what: &str) {
    let message = format!("{} is empty, which allows every {what}", field.name());
    field.warn(
        "empty-list",
        message,
        "leave the field out if that is meant",
    );
}

fn peer(field: &Field<'_>, side: &str, policy: &Policy<'_>) -> Option<Peer> {
    let mut object = field.object()?;
    let block = object.get("ipBlock");
    let namespaces = object.get("namespaceSelector");
    let workloads = object.get("podSelector");
    let bare = object.is_empty() || object.only_nulls();
    object.deny_unknown();
    if bare {
        field.error_with_hint(
            "empty-peer",
            format!(
                "{} names no peer: expected `podSelector`, `namespaceSelector` or `ipBlock`",
                field.name()
            ),
            format!("leave `{side}` out to allow every peer"),
        );
        return None;
    }
    if let Some(block) = block {
        if namespaces.is_some() || workloads.is_some() {
            block.error_with_hint(
                "peer-conflict",
                "`ipBlock` can not stand together with `podSelector` or `namespaceSelector`",
                "make them two items of the list",
            );
        }
        let read = ip_block(&block);
        // For their problems; the peer is broken already if they are there.
        for field in namespaces.iter().chain(&workloads) {
            selector::read(field);
        }
        return read;
    }
    let namespace_selector = namespaces.as_ref().map(selector::read);
    let workload_selector = workloads.as_ref().map(selector::read);
    if side == "from"
        && let Some(Some(Selector { requirements })) = &namespace_selector
        && requirements.is_empty()
        && workload_selector.as_ref().is_none_or(|selector| {
            selector
                .as_ref()
                .is_some_and(|selector| selector.requirements.is_empty())
        })
    {
        field.warn(
            "open-to-all-namespaces",
            format!("{} allows every workload of every namespace", field.name()),
            "select namespaces by label, such as `kubernetes.io/metadata.name`",
        );
    }
    let namespaces = match namespace_selector {
        None => NamespaceScope::Named(policy.namespace.to_owned()),
        Some(selector) => NamespaceScope::Matching(selector?),
    };
    let workloads = match workload_selector {
        None if namespaces_missing(&namespaces) => return None,
        None => Selector::default(),
        Some(selector) => selector?,
    };
    Some(Peer::Workloads {
        namespaces,
        workloads,
    })
}

/// Neither selector: the peer has only unknown fields, which have been reported.
fn namespaces_missing(scope: &NamespaceScope) -> bool {
    matches!(scope, NamespaceScope::Named(_))
}

fn ip_block(field: &Field<'_>) -> Option<Peer> {
    let mut object = field.object()?;
    let cidr = object.require("cidr");
    let except = object.items("except");
    object.deny_unknown();
    address::block(cidr, &except)
}
