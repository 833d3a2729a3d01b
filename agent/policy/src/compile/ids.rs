//! Numbers for things, taken from what they are.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use agent_common::table::{ID_LIMIT, THIS_NODE};

use crate::compiled::PortTable;

/// Gives each content a number: its hash, or the next free number where two hashes meet.
pub(super) struct Ids<T> {
    limit: u32,
    taken: BTreeMap<u32, T>,
}

impl<T: Clone + Ord + Hash> Ids<T> {
    fn below(limit: u32) -> Self {
        Self {
            limit,
            taken: BTreeMap::new(),
        }
    }

    /// Never 0, which means "none" everywhere.
    pub(super) fn number(&mut self, content: &T) -> u32 {
        let mut number = bounded(hash(content), self.limit);
        loop {
            match self.taken.get(&number) {
                None => {
                    self.taken.insert(number, content.clone());
                    return number;
                }
                Some(known) if known == content => return number,
                Some(_) => {
                    number = if number + 1 < self.limit {
                        number + 1
                    } else {
                        1
                    }
                }
            }
        }
    }
}

impl<T: Clone + Ord + Hash> Ids<T> {
    pub(super) fn for_rules() -> Self {
        Self::below(u32::MAX)
    }

    pub(super) fn for_sets() -> Self {
        Self::below(u32::MAX)
    }

    pub(super) fn for_peer_lists() -> Self {
        Self::below(u32::MAX)
    }

    /// The bit above is that of this node's own addresses.
    pub(super) fn for_identities() -> Self {
        Self::below(THIS_NODE)
    }
}

impl Ids<PortTable> {
    /// Tables are immutable in the kernel: a number keeps its content for as long as it is there.
    pub(super) fn for_tables(held: &BTreeMap<u32, PortTable>) -> Self {
        Self {
            limit: ID_LIMIT,
            taken: held.clone(),
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
