//! Interfaces of a pod beside the one that the cluster's network gave it.
//!
//! Each is an endpoint of its own, of the same labels: what policy says of the pod holds at all of them. The API says
//! nothing of them, so what each has when it is first seen is what it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_policy::model::{Change, EndpointSpec, Workload};

use super::{Entry, Inner, conflicts::UNVOUCHED};
use crate::source::kubernetes::{
    kind::Key,
    placement::{Placement, name_beside},
};

/// The addresses that a sandbox had at first.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstSeen {
    pub(super) own: BTreeSet<IpAddr>,
    beside: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl Inner {
    /// Remembers what a sandbox has at first.
    pub(super) fn see(&mut self, uid: &str, placement: &Placement) {
        let before = self.placements.get(uid);
        let is_same = before.is_some_and(|before| before.endpoint == placement.endpoint);
        let first = self.first_seen.entry(uid.to_owned()).or_default();
        if !is_same || first.own.is_empty() {
            first.own.clone_from(&placement.addresses);
        }
        let beside = &placement.beside;
        first.beside.retain(|index, _| beside.contains_key(index));
        for (index, interface) in beside {
            let first = first.beside.entry(*index).or_default();
            if first.is_empty() {
                first.clone_from(&interface.addresses);
            }
        }
    }

    /// What a pod is at its interfaces beside. No Service leads there.
    pub(super) fn wanted_beside(&self, key: &Key, entry: &Entry) -> Vec<Arc<Workload>> {
        let Some(Change::Workload(_, Some(pod))) = entry.changes.first() else {
            return Vec::new();
        };
        let placement = self.placements.get(&*entry.uid);
        let placement = placement.filter(|_| self.is_placed(key, entry) && !pod.host_network);
        let first = self.first_seen.get(&*entry.uid);
        let beside = placement
            .into_iter()
            .flat_map(|placement| &placement.beside);
        let own = self.wanted(key, entry);
        // An address leads to one of them.
        let mut taken = own.map_or_else(BTreeSet::new, |own| own.addresses.clone());
        beside
            .map(|(index, beside)| {
                let first = first.and_then(|first| first.beside.get(index));
                let still = first.into_iter().flatten().filter(|address| {
                    beside.addresses.contains(*address) && !taken.contains(*address)
                });
                let addresses: BTreeSet<IpAddr> = still.take(UNVOUCHED).copied().collect();
                taken.extend(&addresses);
                Arc::new(Workload {
                    name: name_beside(&pod.name, &beside.interface),
                    addresses,
                    endpoint: Some(EndpointSpec::Interface(beside.interface.clone())),
                    node: Some(self.node.clone()),
                    ready: false,
                    ..Workload::clone(pod)
                })
            })
            .collect()
    }
}
