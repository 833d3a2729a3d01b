//! Which slot of a word array belongs to which map entry.

use std::{collections::BTreeMap, ops::Bound};

/// Slots by the key of the entry that leads to them.
///
/// A freed slot may still be read by a program that found it before its entry was taken out, so it
/// waits in `freed` until [`Slots::recycle`].
#[derive(Debug)]
pub(crate) struct Slots<K> {
    used: BTreeMap<K, u32>,
    free: Vec<u32>,
    freed: Vec<u32>,
}

impl<K: Ord + Copy> Slots<K> {
    /// All slots below `capacity` that `used` does not have are free.
    pub(crate) fn new(used: BTreeMap<K, u32>, capacity: u32) -> Self {
        let mut taken: Vec<u32> = used.values().copied().collect();
        taken.sort_unstable();
        let free = (0..capacity)
            .rev()
            .filter(|slot| taken.binary_search(slot).is_err())
            .collect();
        Self {
            used,
            free,
            freed: Vec::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<u32> {
        self.used.get(key).copied()
    }

    /// Entries with their slots, in order, from the one that follows `key`.
    pub(crate) fn after(&self, key: Option<K>) -> impl Iterator<Item = (K, u32)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let used = self.used.range((from, Bound::Unbounded));
        used.map(|(key, slot)| (*key, *slot))
    }

    pub(crate) fn take(&mut self, key: K) -> Option<u32> {
        let slot = self.free.pop()?;
        self.used.insert(key, slot);
        Some(slot)
    }

    pub(crate) fn release(&mut self, key: &K) {
        self.freed.extend(self.used.remove(key));
    }

    /// Lets freed slots be taken again; a grace period must have passed since the last release.
    pub(crate) fn recycle(&mut self) {
        self.free.append(&mut self.freed);
    }
}
