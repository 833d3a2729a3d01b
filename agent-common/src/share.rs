//! How many flows of a table one endpoint may hold.
//!
//! Up to twice as many as there is room left for: a dynamic threshold, as switches share their buffers by
//! (Choudhury, Hahne: Dynamic queue length thresholds, IEEE/ACM Transactions on Networking 6(2), 1998). So
//! one endpoint can have two thirds of the table, and the next that takes all it can two thirds of what is
//! left; as their flows end, `n` of them come to leave one part in `2n + 1` to the others. Nobody has to
//! say how many there will be.

use crate::protocol::Address;

/// Flows that an endpoint may hold, for each that there is room left for.
const SHARE: i64 = 2;

/// Whether one more flow is the endpoint's due, that holds so many; `free` more find room.
///
/// Both are counted by several processors at once, and may be off by as many.
#[inline(always)]
pub const fn may_hold_more(held: u64, free: u64) -> bool {
    let (held, free) = (held.cast_signed(), free.cast_signed());
    free > 0 && held < free.saturating_mul(SHARE)
}

/// Where the flows of a family that an endpoint holds are counted; of endpoint 0, which is nobody, how many
/// more find room.
#[inline(always)]
pub const fn slot_of<A: Address>(endpoint: u16) -> u32 {
    endpoint as u32 * FAMILIES + (A::FAMILY == 6) as u32
}

/// Slots of each endpoint.
pub const FAMILIES: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes flows until it is refused; how many it holds.
    fn greedy(held: &mut u64, free: &mut u64) {
        while may_hold_more(*held, *free) {
            *held += 1;
            *free -= 1;
        }
    }

    #[test]
    fn those_that_take_all_they_can_leave_room_for_others() {
        let mut free = 90_000;
        let mut all = [0; 4];
        for held in &mut all {
            let before = free;
            greedy(held, &mut free);
            assert!(free >= before / 3, "it left {free} of {before}");
        }
        assert_eq!(all[0], 60_000);
        // The flows of each end in turn, and it takes what it can again.
        for turn in 0..400 {
            let held = &mut all[turn % 4];
            free += *held / 2;
            *held -= *held / 2;
            greedy(held, &mut free);
        }
        assert!(free >= 90_000 / 9 - 4, "{all:?} leave {free}");
    }

    #[test]
    fn nobody_takes_what_is_not_there() {
        assert!(may_hold_more(0, 1));
        assert!(!may_hold_more(0, 0));
        // Counted twice by two processors.
        assert!(!may_hold_more(0, u64::MAX));
        assert!(may_hold_more(u64::MAX, 1));
    }

    #[test]
    fn every_endpoint_has_its_slots() {
        assert_eq!(slot_of::<[u8; 4]>(0), 0);
        assert_eq!(slot_of::<[u8; 16]>(0), 1);
        assert_eq!(slot_of::<[u8; 16]>(u16::MAX), 131_071);
    }
}
