//! What was denied a moment ago, so that the next packet of it costs little.
//!
//! Whoever is denied tries again, and a flood is the same packet a million times. Each processor remembers
//! what policy said of some such flows, at a place that follows from the flow. Only denials are remembered,
//! and none whose time is limited: what was permitted is in the flow table.
//!
//! A place is written in several stores. Should a packet that interrupts another come to be at the same
//! place, it holds a mix of both: [`Refusal::check`] tells.

use crate::{abi::abi, judge::Sight, table::Endpoint, verdict::Verdict};

abi! {
    /// A flow, how it was seen, and what policy said.
    pub struct Refusal: 64 {
        /// A [`crate::flow::FlowKey`]; that of IPv4 fills two words.
        pub key: [u64; 5],
        /// See [`seen`].
        pub seen: u64,
        /// A [`Verdict`], as its bits.
        pub verdict: u64,
        /// [`mixed`] from key and `seen`, xor the verdict.
        pub check: u64,
    }
}

/// The places of each processor.
pub const PLACES: u32 = 1024;

/// Everything but the flow that the verdict follows from: the endpoint's generation in the upper half,
/// then its flags, then the family and how the packet travels.
#[inline(always)]
pub const fn seen(sight: &Sight, family: u8) -> u64 {
    let Endpoint { flags, .. } = sight.endpoint;
    (sight.word.generation() as u64) << 32
        | (flags as u64) << 16
        | (family as u64) << 8
        | (sight.made_here as u64) << 1
        | sight.direction as u64
}

/// A number that says little about what it is made of, but always the same.
///
/// It keeps nobody from finding flows with the same place: they take turns there, as if nothing were
/// remembered.
#[inline(always)]
pub fn mixed<const WORDS: usize>(key: &[u64; WORDS], seen: u64) -> u64 {
    // Odd, and half of its bits are set: 2^64 divided by the golden ratio.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = seen.wrapping_mul(SPREAD);
    for word in key {
        mixed = (mixed ^ (mixed >> 32) ^ word).wrapping_mul(SPREAD);
    }
    mixed ^ (mixed >> 32)
}

/// Where a flow is remembered.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cut off is not needed"
)]
pub const fn place(mixed: u64) -> u32 {
    mixed as u32 % PLACES
}

impl Refusal {
    pub const NOTHING: Self = Self {
        key: [0; 5],
        seen: 0,
        verdict: 0,
        check: 0,
    };

    /// The verdict, if it is of this flow, seen so; else 0, which no verdict is.
    #[inline(always)]
    pub fn of<const WORDS: usize>(&self, key: &[u64; WORDS], seen: u64, mixed: u64) -> u64 {
        let mut differs = self.seen ^ seen;
        for (held, asked) in self.key.iter().zip(key) {
            differs |= held ^ asked;
        }
        let is_whole = self.check ^ self.verdict == mixed;
        if differs == 0 && is_whole {
            self.verdict
        } else {
            0
        }
    }

    #[inline(always)]
    pub fn keep<const WORDS: usize>(
        &mut self,
        key: &[u64; WORDS],
        seen: u64,
        mixed: u64,
        verdict: Verdict,
    ) {
        for (held, new) in self.key.iter_mut().zip(key) {
            *held = *new;
        }
        self.seen = seen;
        self.verdict = verdict.to_bits();
        self.check = mixed ^ self.verdict;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        table::{Direction, Word},
        verdict::{Reason, RuleId},
    };

    const KEY: [u64; 5] = [0x0050_1234_0006_0001, 2, 3, 4, 5];
    const SIGHT: Sight = Sight {
        endpoint: Endpoint { id: 1, flags: 1 },
        word: Word::new(7, 9),
        direction: Direction::Egress,
        length: 60,
        made_here: false,
        ifindex: 3,
    };

    fn denied() -> Verdict {
        Verdict::new(Reason::DenyRule, RuleId(7))
    }

    fn kept<const WORDS: usize>(key: &[u64; WORDS], sight: &Sight) -> Refusal {
        let mut refusal = Refusal::NOTHING;
        let seen = seen(sight, 4);
        refusal.keep(key, seen, mixed(key, seen), denied());
        refusal
    }

    fn asked<const WORDS: usize>(refusal: &Refusal, key: &[u64; WORDS], sight: &Sight) -> u64 {
        let seen = seen(sight, 4);
        refusal.of(key, seen, mixed(key, seen))
    }

    #[test]
    fn the_same_packet_gets_the_same_verdict() {
        let [a, b, ..] = KEY;
        assert_eq!(asked(&kept(&KEY, &SIGHT), &KEY, &SIGHT), denied().to_bits());
        assert_eq!(
            asked(&kept(&[a, b], &SIGHT), &[a, b], &SIGHT),
            denied().to_bits()
        );
        assert_eq!(asked(&Refusal::NOTHING, &KEY, &SIGHT), 0);
        assert_eq!(asked(&Refusal::NOTHING, &[0; 5], &SIGHT), 0);
    }

    #[test]
    fn whatever_else_differs_is_asked_anew() {
        let refusal = kept(&KEY, &SIGHT);
        for at in 0..KEY.len() {
            for bit in 0..64 {
                let mut other = KEY;
                other[at] ^= 1 << bit;
                assert_eq!(asked(&refusal, &other, &SIGHT), 0, "{at} {bit}");
            }
        }
        let others = [
            Sight {
                word: Word::new(7, 10),
                ..SIGHT
            },
            Sight {
                endpoint: Endpoint { id: 1, flags: 3 },
                ..SIGHT
            },
            Sight {
                direction: Direction::Ingress,
                ..SIGHT
            },
            Sight {
                made_here: true,
                ..SIGHT
            },
        ];
        for other in others {
            assert_eq!(asked(&refusal, &KEY, &other), 0, "{other:?}");
        }
        let seen = seen(&SIGHT, 6);
        assert_eq!(
            refusal.of(&KEY, seen, mixed(&KEY, seen)),
            0,
            "the other family"
        );
    }

    #[test]
    fn a_mix_of_two_is_of_neither() {
        let one = kept(&KEY, &SIGHT);
        let other = kept(
            &[9, 8, 7, 6, 5],
            &Sight {
                made_here: true,
                ..SIGHT
            },
        );
        let words = |refusal: &Refusal| {
            let mut words = [0; 8];
            words[..5].copy_from_slice(&refusal.key);
            words[5..].copy_from_slice(&[refusal.seen, refusal.verdict ^ 1, refusal.check]);
            words
        };
        let (one_words, other_words) = (words(&one), words(&other));
        for mask in 1..255_u32 {
            let from = |at: usize| {
                if mask >> at & 1 == 0 {
                    one_words[at]
                } else {
                    other_words[at]
                }
            };
            let torn = Refusal {
                key: [from(0), from(1), from(2), from(3), from(4)],
                seen: from(5),
                verdict: from(6),
                check: from(7),
            };
            let answer = torn.of(&torn.key, torn.seen, mixed(&torn.key, torn.seen));
            assert_eq!(answer, 0, "{mask:b}");
        }
    }
}
