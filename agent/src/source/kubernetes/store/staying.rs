//! What stays of an object that the API has no more.

use std::{collections::BTreeSet, sync::Arc};

use agent_policy::model::{Change, Workload};

use super::{Entry, Inner, Store};
use crate::source::kubernetes::{
    kind::{Key, Kind},
    object::Observed,
};

impl Store {
    /// The node has been looked through for its pods: of those that are gone, what was not found is there no more.
    pub(crate) fn looked(&self) {
        let mut inner = self.lock();
        inner.has_looked = true;
        let objects = inner.objects.iter();
        let over = objects.filter(|(key, entry)| entry.is_gone && !inner.stays(key, entry));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        for key in &over {
            inner.remove(key);
        }
        drop(inner);
        if !over.is_empty() {
            self.tell();
        }
    }
}

impl Inner {
    /// A pod whose sandbox is still there stays what it was, and its namespace with it: without that, it would have
    /// other labels in its last moments.
    pub(super) fn delete(&mut self, key: &Key) {
        self.is_revised |= key.kind.is_policy();
        let Some(entry) = self.objects.get(key) else {
            return;
        };
        if self.stays(key, entry) {
            self.is_gone(key);
        } else {
            self.remove(key);
        }
    }

    /// What was gone when it was kept.
    pub(super) fn put_gone(&mut self, object: Observed) {
        let key = object.key.clone();
        self.put(object);
        self.is_gone(&key);
    }

    fn is_gone(&mut self, key: &Key) {
        if let Some(entry) = self.objects.get_mut(key) {
            entry.is_gone = true;
            self.claim(key);
        }
    }

    fn stays(&self, key: &Key, entry: &Entry) -> bool {
        if key.kind == Kind::Namespace {
            return self.members(&key.name).next().is_some();
        }
        let is_placed = self.placements.contains_key(&*entry.uid);
        key.kind == Kind::Pod
            && self.pods.get(&entry.uid) == Some(key)
            && (is_placed || self.may_be_found(entry))
    }

    /// Whether its sandbox may be on this node, where nobody has looked yet.
    fn may_be_found(&self, entry: &Entry) -> bool {
        !self.has_looked && (entry.is_gone || entry.node() == Some(&self.node))
    }

    /// Who has the labels of a namespace.
    pub(super) fn members(&self, namespace: &str) -> impl Iterator<Item = &Key> {
        [Kind::Pod, Kind::Workload]
            .into_iter()
            .flat_map(move |kind| {
                let first = Key {
                    kind,
                    namespace: namespace.to_owned(),
                    name: String::new(),
                };
                let keys = self.objects.range(first..).map(|(key, _)| key);
                keys.take_while(move |key| key.kind == kind && key.namespace == namespace)
            })
    }

    /// Makes room for another object of the same name. What is there of the old one goes by another name.
    pub(super) fn leave(&mut self, key: &Key) {
        if key.kind == Kind::Namespace {
            self.remove(key);
            return;
        }
        self.delete(key);
        let Some(mut entry) = self.objects.remove(key) else {
            return;
        };
        self.unclaim(key, &entry);
        let aside = Key {
            name: format!("{}.{}", key.name, entry.uid),
            ..key.clone()
        };
        for change in &mut entry.changes {
            if let Change::Workload(name, Some(workload)) = change {
                let mut other = Workload::clone(workload);
                other.name.name.clone_from(&aside.name);
                *name = other.name.clone();
                *workload = Arc::new(other);
            }
        }
        self.pods.insert(Arc::clone(&entry.uid), aside.clone());
        self.objects.insert(aside.clone(), entry);
        self.claim(&aside);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.objects.remove(key) {
            self.unclaim(key, &entry);
            if key.kind == Kind::EndpointSlice {
                self.put_slice(key, None);
            }
            if self.pods.get(&entry.uid) == Some(key) {
                self.pods.remove(&entry.uid);
            }
        }
        let namespace = Key::namespace(&key.namespace);
        let is_over = self
            .objects
            .get(&namespace)
            .is_some_and(|entry| entry.is_gone && !self.stays(&namespace, entry));
        if is_over {
            self.remove(&namespace);
        }
    }

    /// Takes away what is not to stay of a kind.
    pub(super) fn retain(&mut self, kind: Kind, is_there: impl Fn(&Key) -> bool) {
        let gone = self.objects.iter();
        let gone = gone.filter(|(key, entry)| key.kind == kind && !entry.is_gone && !is_there(key));
        let gone: BTreeSet<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.delete(&key);
        }
    }
}
