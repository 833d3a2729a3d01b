//! Maps without the room that filling them has left.

use std::collections::BTreeMap;

/// Gives back what a map has no use for. One that is filled in the order of its keys splits each node as it
/// becomes full, and never comes back to the first half: nearly half of its room stays empty.
///
/// Takes time with all of the map, so it is for after a change of much of it.
pub fn compact<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}
