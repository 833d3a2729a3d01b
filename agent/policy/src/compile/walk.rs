//! The steps of a program that have a say about one peer, found by port.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    ports::{Place, Range, ResolvedPorts, prefixes},
    program::{Effect, Step},
    timeline::{Moment, Outcome, Spell},
    timing::Timing,
};
use crate::model::Time;

pub(super) struct Walk<'p> {
    /// In order of rank.
    steps: Vec<Concerned<'p>>,
    /// `None` where there is so little that looking through it costs less.
    by_port: Option<ByPort>,
}

pub(super) struct Concerned<'p> {
    /// Its number in the program.
    pub(super) index: usize,
    pub(super) step: &'p Step,
    pub(super) ports: Cow<'p, ResolvedPorts>,
}

/// Positions of steps, in order.
#[derive(Default)]
struct ByPort {
    every: Vec<usize>,
    /// By aligned blocks that make up the ranges: protocol, bits of the port that count, first port.
    blocks: BTreeMap<(u8, u32, u16), Vec<usize>>,
}

/// Ranges and steps up to which all of them are looked at.
const FEW: usize = 64;

/// Bits of a port.
const BITS: u32 = u16::BITS;

impl<'p> Walk<'p> {
    pub(super) fn new(steps: Vec<Concerned<'p>>) -> Self {
        let size = steps.iter().map(|step| 1 + step.ports.ranges().len());
        let by_port = (size.sum::<usize>() > FEW).then(|| ByPort::of(&steps));
        Self { steps, by_port }
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> {
        let ports = self.steps.iter().map(|step| step.ports.ranges());
        ports.flatten().copied()
    }

    pub(super) fn timings(&self) -> impl Iterator<Item = &Timing> + Clone {
        let steps = self.steps.iter();
        steps.filter_map(|concerned| concerned.step.timing.as_deref())
    }

    pub(super) fn spell(&self, place: Place, moment: Moment) -> Spell {
        let at_place = self.by_port.as_ref().map(|by_port| by_port.at(place));
        let mut until: Option<Time> = None;
        let mut from = 0;
        // The last step of a program decides.
        while let Some((position, Concerned { step, .. })) =
            self.next(place, at_place.as_deref(), from)
        {
            from = position + 1;
            let holds = match (&step.timing, moment, step.effect) {
                (None, ..) => true,
                (Some(timing), Moment::At(at), _) => {
                    until = earliest(until, timing.next_flip(at));
                    timing.holds(at)
                }
                // It may not be there.
                (Some(_), Moment::Whenever, Effect::Decide(outcome)) if outcome.allows() => false,
                // It may be there, and then permits nothing.
                (Some(_), Moment::Whenever, _) => break,
            };
            match step.effect {
                Effect::Decide(outcome) if holds => return Spell { outcome, until },
                Effect::Leave(to) if holds => {
                    from = self.steps.partition_point(|step| step.index < to);
                }
                Effect::Decide(_) | Effect::Leave(_) => {}
            }
        }
        Spell {
            outcome: Outcome::CLOSED,
            until,
        }
    }

    /// The first step at a position or behind it that covers a place.
    fn next(
        &self,
        place: Place,
        at_place: Option<&[&[usize]]>,
        from: usize,
    ) -> Option<(usize, &Concerned<'p>)> {
        let position = if let Some(lists) = at_place {
            lists
                .iter()
                .filter_map(|list| list.get(list.partition_point(|position| *position < from)))
                .min()
                .copied()?
        } else {
            let rest = self.steps.get(from..)?;
            from + rest.iter().position(|step| step.ports.covers(place))?
        };
        Some((position, self.steps.get(position)?))
    }
}

impl ByPort {
    fn of(steps: &[Concerned<'_>]) -> Self {
        let mut found = Self::default();
        for (position, Concerned { ports, .. }) in steps.iter().enumerate() {
            let ResolvedPorts::Ranges(ranges) = &**ports else {
                found.every.push(position);
                continue;
            };
            for range in ranges {
                prefixes(range.first, range.last, |port, bits| {
                    let block = (range.protocol, bits, port);
                    found.blocks.entry(block).or_default().push(position);
                });
            }
        }
        found
    }

    /// What covers a place, block by block; each in order.
    fn at(&self, place: Place) -> Vec<&[usize]> {
        let mut found = vec![self.every.as_slice()];
        if let Place::Port { protocol, port } = place {
            let around = (0..=BITS).filter_map(|bits| {
                let first = port & !u16::MAX.checked_shr(bits).unwrap_or_default();
                self.blocks.get(&(protocol, bits, first))
            });
            found.extend(around.map(Vec::as_slice));
        }
        found
    }
}

pub(super) fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use agent_common::verdict::Action;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::compile::{ports::joined, program::StepPorts};

    const PLACES: [u16; 7] = [0, 1, 79, 80, 81, 1000, u16::MAX];

    fn range() -> impl Strategy<Value = Range> {
        let port = || prop::sample::select(&PLACES[..]);
        (prop::sample::select(vec![6_u8, 17]), port(), port()).prop_map(|(protocol, a, b)| Range {
            protocol,
            first: a.min(b),
            last: a.max(b),
        })
    }

    /// Steps that decide by their number, and those that leave for one behind them.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let ports = prop_oneof![
            1 => Just(ResolvedPorts::Every),
            5 => vec(range(), 1..3).prop_map(|ranges| ResolvedPorts::Ranges(joined(ranges))),
        ];
        vec((ports, prop::option::weighted(0.3, 1..4_usize)), 0..12).prop_map(|steps| {
            let step = |(index, (ports, leaves)): (usize, (ResolvedPorts, Option<usize>))| Step {
                list: None,
                ports: StepPorts::Resolved(ports),
                timing: None,
                effect: leaves.map_or(
                    Effect::Decide(Outcome {
                        action: Action::Allow,
                        rule: u32::try_from(index).unwrap(),
                    }),
                    |by| Effect::Leave(index + by),
                ),
            };
            steps.into_iter().enumerate().map(step).collect()
        })
    }

    fn concerned(steps: &[Step]) -> Vec<Concerned<'_>> {
        let each = steps.iter().enumerate().map(|(index, step)| {
            let StepPorts::Resolved(ports) = &step.ports else {
                unreachable!("no step asks for names")
            };
            let ports = Cow::Borrowed(ports);
            Concerned { index, step, ports }
        });
        each.collect()
    }

    proptest! {
        #[test]
        fn steps_found_by_port_are_those_that_cover_it(steps in steps()) {
            let by_port = Some(ByPort::of(&concerned(&steps)));
            let found = Walk { steps: concerned(&steps), by_port };
            let looked_through = Walk { steps: concerned(&steps), by_port: None };
            let ports = [6, 17, 58].into_iter().flat_map(|protocol| {
                PLACES.map(|port| Place::Port { protocol, port })
            });
            for place in ports.chain([Place::Unnamed]) {
                let at = Moment::At(Time::default());
                prop_assert_eq!(
                    found.spell(place, at).outcome,
                    looked_through.spell(place, at).outcome,
                    "{:?}",
                    place
                );
            }
        }
    }
}
