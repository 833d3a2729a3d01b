//! Labels with which a rule names the peer.

use std::{collections::BTreeSet, net::IpAddr};

use super::{super::edit::Edit, owner};
use crate::{
    model::{Labels, Peer, Peers, Requirement, Selector, World},
    reference::matching::{in_scope, selects},
};

/// Each label with which the peer is one of these.
pub(super) fn naming(world: &World, address: IpAddr, peers: &Peers) -> Vec<Edit> {
    let (Some(owner), Peers::Listed(peers)) = (owner(world, address), peers) else {
        return Vec::new();
    };
    let selectors = peers.iter().filter_map(|peer| match peer {
        Peer::Workloads {
            namespaces,
            workloads,
        } => in_scope(world, namespaces, &owner.name.namespace).then_some(workloads),
        Peer::Block { .. } | Peer::Nodes(_) | Peer::OwnNode | Peer::Domain(_) | Peer::Local(_) => {
            None
        }
    });
    selectors
        .flat_map(|selector| missing(selector, &owner.labels))
        .map(|(key, value)| Edit::Label {
            workload: owner.name.clone(),
            key: key.to_owned(),
            value: value.to_owned(),
        })
        .collect()
}

/// Nothing if it takes more than one label, or one less.
fn missing<'s>(selector: &'s Selector, labels: &Labels) -> Vec<(&'s str, &'s str)> {
    let unmet = selector.requirements.iter().filter(|requirement| {
        let alone = Selector {
            requirements: vec![(*requirement).clone()],
        };
        !selects(&alone, labels)
    });
    let keys: BTreeSet<&String> = unmet.map(key).collect();
    let (Some(key), 1) = (keys.first().copied(), keys.len()) else {
        return Vec::new();
    };
    let listed = selector.requirements.iter().find_map(|one| match one {
        Requirement::In { key: of, values } if of == key => Some(values),
        _ => None,
    });
    // What only has to be there, or to be another, may as well be empty.
    let values = listed.map_or_else(
        || vec![""],
        |values| values.iter().map(String::as_str).collect(),
    );
    let mut changed = labels.clone();
    let mut does_it = |value: &str| {
        changed.insert(key.clone(), value.to_owned());
        selects(selector, &changed)
    };
    values
        .into_iter()
        .filter(|value| does_it(value))
        .map(|value| (key.as_str(), value))
        .collect()
}

fn key(requirement: &Requirement) -> &String {
    match requirement {
        Requirement::In { key, .. }
        | Requirement::NotIn { key, .. }
        | Requirement::Exists { key }
        | Requirement::DoesNotExist { key } => key,
    }
}
