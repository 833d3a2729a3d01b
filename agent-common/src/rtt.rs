//! Round-trip times of TCP connections, in as little room as a flow has for one.

/// A time with 12 bits of precision and a scale of 4 bits: exact below 4.096 ms, to 0.05 % beyond, up to 134 s.
/// 0 is a time that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip(pub u16);

const PRECISION: u32 = 12;
const SIGNIFICANT: u32 = (1 << PRECISION) - 1;
const SCALES: u32 = 15;

impl RoundTrip {
    /// Of microseconds, rounded down; the longest there is of what is longer.
    #[inline(always)]
    pub const fn of_micros(micros: u32) -> Self {
        let scale = (u32::BITS - PRECISION).saturating_sub(micros.leading_zeros());
        if scale > SCALES {
            return Self(u16::MAX);
        }
        let [low, high, ..] = ((micros >> scale) | scale << PRECISION).to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }

    /// In microseconds.
    #[inline(always)]
    pub const fn micros(self) -> u32 {
        let bits = self.0 as u32;
        (bits & SIGNIFICANT) << (bits >> PRECISION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(micros: u32) -> u32 {
        RoundTrip::of_micros(micros).micros()
    }

    #[test]
    fn short_times_are_exact() {
        for micros in 0..4096 {
            assert_eq!(kept(micros), micros);
        }
        assert_eq!(RoundTrip::default().micros(), 0);
    }

    #[test]
    fn longer_ones_are_right_to_a_two_thousandth() {
        for micros in (4096..134_184_960).step_by(997) {
            let kept = kept(micros);
            assert!(
                kept <= micros && micros - kept <= micros / 2048,
                "{micros} is {kept}"
            );
        }
    }

    #[test]
    fn what_is_longer_still_is_the_longest() {
        let longest = RoundTrip(u16::MAX).micros();
        assert_eq!(longest, 134_184_960);
        for micros in [longest, longest + 1, u32::MAX] {
            assert_eq!(kept(micros), longest);
        }
    }
}
