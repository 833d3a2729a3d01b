//! Numbers for things, taken from what they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use agent_common::table::{ID_LIMIT, THIS_NODE, TRANSLATED};

/// Gives each content a number: its hash, or the next free number where two hashes meet.
///
/// A content keeps its number for as long as it is not released.
#[derive(Clone, Debug)]
pub(super) struct Ids<T> {
    limit: u32,
    numbers: BTreeMap<T, u32>,
    taken: BTreeSet<u32>,
}

impl<T: Clone + Ord + Hash> Ids<T> {
    pub(super) fn below(limit: u32) -> Self {
        Self {
            limit,
            numbers: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// The bits above say what addresses are, see [`Self::number_with`] and [`THIS_NODE`].
    pub(super) fn for_identities() -> Self {
        const { assert!(TRANSLATED < THIS_NODE) };
        Self::below(TRANSLATED)
    }

    pub(super) fn for_tables() -> Self {
        Self::below(ID_LIMIT)
    }

    /// Never 0, which means "none" everywhere.
    pub(super) fn number(&mut self, content: &T) -> u32 {
        self.number_unless(content, |_| false)
    }

    /// As [`Self::number`], and none that `refused` does not want.
    pub(super) fn number_unless(&mut self, content: &T, refused: impl Fn(u32) -> bool) -> u32 {
        self.choose(content, 0, refused)
    }

    /// As [`Self::number`], with these bits above the limit.
    pub(super) fn number_with(&mut self, content: &T, bits: u32) -> u32 {
        self.choose(content, bits, |_| false)
    }

    fn choose(&mut self, content: &T, bits: u32, refused: impl Fn(u32) -> bool) -> u32 {
        if let Some(number) = self.numbers.get(content) {
            return *number;
        }
        let mut low = bounded(hash(content), self.limit);
        let mut number = bits | low;
        while self.taken.contains(&number) || refused(number) {
            low = if low + 1 < self.limit { low + 1 } else { 1 };
            number = bits | low;
        }
        self.taken.insert(number);
        self.numbers.insert(content.clone(), number);
        number
    }

    pub(super) fn get(&self, content: &T) -> Option<u32> {
        self.numbers.get(content).copied()
    }

    pub(super) fn release(&mut self, content: &T) {
        if let Some(number) = self.numbers.remove(content) {
            self.taken.remove(&number);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below a 32-bit limit")]
fn bounded(hash: u64, limit: u32) -> u32 {
    (hash % u64::from(limit - 1)) as u32 + 1
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    content.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a with a final mix. Not against an attacker: whoever writes policies decides anyway.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The low bits of FNV are weak, and numbers are taken from them.
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}
