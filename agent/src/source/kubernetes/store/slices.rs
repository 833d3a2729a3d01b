//! Which objects `EndpointSlice` there are of each Service.

use std::{collections::BTreeMap, sync::Arc};

use agent_policy::model::{Change, Service};

use super::{Entry, Inner};
use crate::source::kubernetes::{
    kind::{Key, Kind},
    slice::Slice,
};

/// So many backends slices give a Service at most: its ports times their addresses are more than a node has memory for,
/// and whoever may write in one namespace may write both.
pub(super) const BACKENDS: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Slices {
    /// By their Services, which need not be there.
    of: BTreeMap<Key, BTreeMap<String, Slice>>,
    /// The Service of each.
    services: BTreeMap<Key, Key>,
}

impl Slices {
    /// The Services of which something else is said from now on.
    fn put(&mut self, key: &Key, slice: Option<Slice>) -> [Option<(Key, Slice)>; 2] {
        let before = self.services.remove(key).and_then(|service| {
            let slices = self.of.get_mut(&service)?;
            let before = slices.remove(&key.name)?;
            if slices.is_empty() {
                self.of.remove(&service);
            }
            Some((service, before))
        });
        let now = slice.map(|slice| {
            let service = Key {
                kind: Kind::Service,
                namespace: key.namespace.clone(),
                name: slice.service.clone(),
            };
            self.services.insert(key.clone(), service.clone());
            let slices = self.of.entry(service.clone()).or_default();
            slices.insert(key.name.clone(), slice.clone());
            (service, slice)
        });
        [before, now]
    }

    fn all(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        self.of.get(service).into_iter().flat_map(BTreeMap::values)
    }
}

impl Inner {
    /// Whether it makes a difference to somebody.
    pub(super) fn put_slice(&mut self, key: &Key, slice: Option<Slice>) -> bool {
        let mut counts = false;
        for (service, slice) in self.slices.put(key, slice).into_iter().flatten() {
            let known = self.objects.get(&service).and_then(service_of);
            if known.is_some_and(|known| slice.counts_for(known)) {
                self.dirty.insert(service);
                counts = true;
            }
        }
        counts
    }

    /// What an object says, with the backends that slices give a Service, as far as there are not too many.
    pub(super) fn with_slices(
        &self,
        key: &Key,
        entry: &Entry,
        errors: &mut Vec<String>,
    ) -> Vec<Change> {
        let mut changes = entry.changes.to_vec();
        if key.kind != Kind::Service {
            return changes;
        }
        for change in &mut changes {
            let Change::Service(_, Some(service)) = change else {
                continue;
            };
            let counting = self.slices.all(key);
            let counting = counting.filter(|slice| slice.counts_for(service));
            let mut by_hand = service.by_hand.clone();
            let mut backends = counting.flat_map(|slice| slice.backends(service));
            by_hand.extend(backends.by_ref().take(BACKENDS));
            let are_more = backends.next().is_some();
            drop(backends);
            if are_more {
                errors.push(format!(
                    "EndpointSlices give it more than {BACKENDS} backends: the first of them count"
                ));
            }
            if by_hand != service.by_hand {
                Arc::make_mut(service).by_hand = by_hand;
            }
        }
        changes
    }
}

fn service_of(entry: &Entry) -> Option<&Service> {
    match entry.changes.first() {
        Some(Change::Service(_, Some(service))) => Some(service),
        _ => None,
    }
}
