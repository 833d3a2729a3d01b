//! Which slot of a word array belongs to which map entry.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
};

use agent_policy::compact::compact;

/// Entries of which it pays to look after the room.
const MANY: usize = 10_000;

/// Slots by the key of the entry that leads to them.
///
/// A freed slot may still be read by a program that found it before its entry was taken out, so it
/// waits in `freed` until [`Slots::recycle`].
#[derive(Debug)]
pub(crate) struct Slots<K> {
    used: BTreeMap<K, u32>,
    /// Those before `fresh` that nobody uses.
    free: Vec<u32>,
    freed: Vec<u32>,
    /// From here on, none has ever been used: most of a table, of which nothing need be kept.
    fresh: Range<u32>,
    /// Since the last call of [`Slots::recycle`].
    taken: usize,
}

impl<K: Ord + Copy> Slots<K> {
    /// All slots below `capacity` that `used` does not have are free.
    pub(crate) fn new(used: BTreeMap<K, u32>, capacity: u32) -> Self {
        let mut taken: Vec<u32> = used.values().copied().collect();
        taken.sort_unstable();
        let fresh = taken.last().map_or(0, |last| last + 1);
        let free = (0..fresh)
            .rev()
            .filter(|slot| taken.binary_search(slot).is_err())
            .collect();
        Self {
            used,
            free,
            freed: Vec::new(),
            fresh: fresh..capacity,
            taken: 0,
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
        let slot = self.free.pop().or_else(|| self.fresh.next())?;
        self.used.insert(key, slot);
        self.taken += 1;
        Some(slot)
    }

    pub(crate) fn release(&mut self, key: &K) {
        self.freed.extend(self.used.remove(key));
    }

    /// Lets freed slots be taken again; a grace period must have passed since the last release. Whether much memory has
    /// been freed by the way.
    pub(crate) fn recycle(&mut self) -> bool {
        self.free.append(&mut self.freed);
        let taken = std::mem::take(&mut self.taken);
        let is_large = taken > MANY && taken > self.used.len() / 2;
        if is_large {
            compact(&mut self.used);
        }
        is_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slots_come_first_and_freed_ones_after_they_are_recycled() {
        let used = BTreeMap::from([("a", 1), ("b", 3)]);
        let mut slots = Slots::new(used, 6);
        assert_eq!([slots.take("c"), slots.take("d")], [Some(0), Some(2)]);
        assert_eq!(slots.take("e"), Some(4));
        slots.release(&"b");
        assert_eq!([slots.take("f"), slots.take("g")], [Some(5), None]);
        slots.recycle();
        assert_eq!(slots.take("g"), Some(3));
        let all: Vec<_> = slots.after(None).collect();
        let expected = [("a", 1), ("c", 0), ("d", 2), ("e", 4), ("f", 5), ("g", 3)];
        assert_eq!(all, expected);
    }
}
