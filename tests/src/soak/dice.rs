//! Chance that can be had again: the same seed throws the same numbers, on every machine.

/// `SplitMix64`.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, and without, `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        let scaled = u128::from(self.throw()) * u128::from(end);
        u32::try_from(scaled >> 64).unwrap_or_default()
    }

    pub(super) fn one_in(&mut self, number: u32) -> bool {
        self.below(number) == 0
    }

    /// # Panics
    /// If there is nothing to pick from.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let end = u32::try_from(from.len()).expect("a short list");
        let index = usize::try_from(self.below(end)).expect("32 bits");
        *from.get(index).expect("something to pick from")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_throws_the_same_again_and_reaches_everything() {
        let (mut one, mut other) = (Dice::new(7), Dice::new(7));
        let mut seen = [false; 6];
        for _ in 0..200 {
            let number = one.below(6);
            assert_eq!(number, other.below(6));
            seen[usize::try_from(number).expect("below 6")] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_ne!(Dice::new(7).throw(), Dice::new(8).throw());
    }
}
