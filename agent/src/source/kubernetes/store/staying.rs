//! What stays of an object that the API has no more.

use std::sync::Arc;

use agent_policy::model::{Change, Workload};

use super::Inner;
use crate::source::kubernetes::kind::{Key, Kind};

impl Inner {
    /// A pod whose sandbox is still there stays what it was.
    pub(super) fn delete(&mut self, key: &Key) {
        let Some(entry) = self.objects.get_mut(key) else {
            return;
        };
        let is_placed = self.placements.contains_key(&*entry.uid);
        if is_placed && self.pods.get(&entry.uid) == Some(key) {
            entry.is_gone = true;
            self.claim(key);
        } else {
            self.remove(key);
        }
    }

    /// Makes room for another object of the same name. What is there of the old one goes by another name.
    pub(super) fn leave(&mut self, key: &Key) {
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
            if self.pods.get(&entry.uid) == Some(key) {
                self.pods.remove(&entry.uid);
            }
        }
    }

    /// Takes away what is not to stay of a kind.
    pub(super) fn retain(&mut self, kind: Kind, is_there: impl Fn(&Key) -> bool) {
        let gone = self.objects.iter();
        let gone = gone.filter(|(key, entry)| key.kind == kind && !entry.is_gone && !is_there(key));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.delete(&key);
        }
    }
}
