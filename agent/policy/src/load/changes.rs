//! What a file says of a world, one object at a time.

use std::sync::Arc;

use super::NAMESPACE_NAME_LABEL;
use crate::{
    model::Change,
    parse::{Declared, ParsedFile},
};

/// What each object of a file adds to a world: for who finds out by other means what is wrong between objects.
///
/// Of tables of names each says a part of what a name stands for; who puts them together is the caller.
pub fn changes(file: &ParsedFile) -> Vec<Change> {
    let objects = file.objects.iter().map(|object| &object.declared);
    objects.flat_map(of_object).collect()
}

fn of_object(declared: &Declared) -> Vec<Change> {
    let change = match declared {
        Declared::Namespace { name, labels } => {
            let mut labels = labels.clone();
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());
            Change::Namespace(name.clone(), Some(Arc::new(labels)))
        }
        Declared::Workload { workload, marks: _ } => {
            Change::Workload(workload.name.clone(), Some(Arc::clone(workload)))
        }
        Declared::Node { node, addresses: _ } => {
            Change::Node(node.name.clone(), Some(Arc::clone(node)))
        }
        Declared::Service { service, marks: _ } => {
            Change::Service(service.name.clone(), Some(Arc::clone(service)))
        }
        Declared::Policy { policy, uses: _ } => {
            Change::NetworkPolicy(policy.name.clone(), Some(Arc::clone(policy)))
        }
        Declared::TierPolicy { policy, uses: _ } => {
            Change::TierPolicy(policy.id.clone(), Some(Arc::clone(policy)))
        }
        Declared::NameTable { name: _, names } => {
            let names = names.iter();
            return names
                .map(|(name, addresses)| Change::Name(name.clone(), Some(addresses.clone().into())))
                .collect();
        }
        Declared::Test(_) => return Vec::new(),
    };
    vec![change]
}
