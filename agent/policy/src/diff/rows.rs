//! Many differences to few rows, none of which says more than is so.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Change, Family, Group, Kin, Row, Sizes, Turn};
use crate::{
    classes::{Class, Judge, PortSet, Universe, Who},
    model::Direction,
};

/// Why a row has no two answers to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// An end is only in the new world.
    New,
    /// An end is only in the old world.
    Gone,
}

/// What was answered in both worlds, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answers {
    change: Change,
    /// Of those that turned: before and after.
    egress: Option<(u32, u32)>,
    ingress: Option<(u32, u32)>,
    presence: Option<Presence>,
}

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    answers: Answers,
    ports: PortSet,
    from: Kin,
    to: Kin,
}

/// Pairs with a difference. Every member of `from` differs to every other member of `to`.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<(Key, bool), Vec<(Ends, Ends)>>);

type Ends = BTreeSet<Who>;
/// IPv4 or not, or both.
type Families = BTreeSet<bool>;

/// A row whose ends are still lists of everybody.
#[derive(Debug)]
pub(super) struct Unnamed {
    key: Key,
    from: Ends,
    to: Ends,
    families: Families,
}

/// Whether a pair's answers amount to something else, and by whom.
pub(super) fn changed(
    judge: &Judge<'_, '_>,
    old: Option<(u32, u32)>,
    new: Option<(u32, u32)>,
) -> Option<Answers> {
    let permits = |(egress, ingress): (u32, u32)| judge.permits(egress) && judge.permits(ingress);
    let change = match (old.is_some_and(permits), new.is_some_and(permits)) {
        (false, true) => Change::Permitted,
        (true, false) => Change::Denied,
        (true, true) | (false, false) => return None,
    };
    let turned =
        |old: u32, new: u32| (judge.permits(old) != judge.permits(new)).then_some((old, new));
    Some(match (old, new) {
        (Some((old_egress, old_ingress)), Some((new_egress, new_ingress))) => Answers {
            change,
            egress: turned(old_egress, new_egress),
            ingress: turned(old_ingress, new_ingress),
            presence: None,
        },
        (old, _) => Answers {
            change,
            egress: None,
            ingress: None,
            presence: Some(if old.is_none() {
                Presence::New
            } else {
                Presence::Gone
            }),
        },
    })
}

// === impl Found ===

impl Found {
    pub(super) fn add(
        &mut self,
        answers: &Answers,
        ports: &PortSet,
        from: &Class<Kin>,
        to: &Class<Kin>,
    ) {
        let key = Key {
            answers: *answers,
            ports: ports.clone(),
            from: from.tag.clone(),
            to: to.tag.clone(),
        };
        let all = |class: &Class<Kin>| class.members.iter().map(|(who, _)| who.clone()).collect();
        let pairs = self.0.entry((key, from.is_v4)).or_default();
        pairs.push((all(from), all(to)));
    }

    pub(super) fn into_rows(self) -> Vec<Unnamed> {
        let mut by_family: BTreeMap<Key, BTreeMap<(Ends, Ends), Families>> = BTreeMap::new();
        for ((key, is_v4), pairs) in self.0 {
            let rows = by_family.entry(key).or_default();
            for pair in joined(pairs) {
                rows.entry(pair).or_default().insert(is_v4);
            }
        }
        let mut rows = Vec::new();
        for (key, pairs) in by_family {
            let mut outside: BTreeMap<(bool, Ends), Ends> = BTreeMap::new();
            for ((from, to), families) in pairs {
                // The family of an address outside is to be seen: both belong in one row.
                match (&key.from, &key.to) {
                    (Kin::Outside, _) => {
                        outside.entry((true, to)).or_default().extend(from);
                    }
                    (_, Kin::Outside) => {
                        outside.entry((false, from)).or_default().extend(to);
                    }
                    _ => rows.push(Unnamed {
                        key: key.clone(),
                        from,
                        to,
                        families,
                    }),
                }
            }
            rows.extend(outside.into_iter().map(|((is_source, known), all)| {
                let (from, to) = if is_source {
                    (all, known)
                } else {
                    (known, all)
                };
                Unnamed {
                    key: key.clone(),
                    from,
                    to,
                    families: [true, false].into(),
                }
            }));
        }
        rows
    }
}

/// The same pairs in fewer products: sources with the same destinations together, and the other
/// way round.
fn joined(pairs: Vec<(Ends, Ends)>) -> impl Iterator<Item = (Ends, Ends)> {
    let mut by_source: BTreeMap<Ends, Ends> = BTreeMap::new();
    for (from, to) in pairs {
        by_source.entry(from).or_default().extend(to);
    }
    let mut by_destination: BTreeMap<Ends, Ends> = BTreeMap::new();
    for (from, mut to) in by_source {
        if from.len() == 1 {
            // It is not among "everybody else", so that it may stand there: as the others have it.
            to.extend(from.iter().cloned());
        }
        by_destination.entry(to).or_default().extend(from);
    }
    by_destination.into_iter().map(|(mut to, from)| {
        if from.len() == 1 {
            to.retain(|who| !from.contains(who));
        }
        (from, to)
    })
}

// === impl Unnamed ===

impl Unnamed {
    pub(super) fn named(
        &self,
        judge: &Judge<'_, '_>,
        universe: &Universe<Kin>,
        sizes: &Sizes,
    ) -> Row {
        let Self {
            key:
                Key {
                    answers,
                    ports,
                    from: source,
                    to: destination,
                },
            from,
            to,
            families,
        } = self;
        let turn = |direction, turned: Option<(u32, u32)>| {
            let (old, new) = turned?;
            Some(Turn {
                direction,
                old: judge.side(old)?.clone(),
                new: judge.side(new)?.clone(),
            })
        };
        let egress = turn(Direction::Egress, answers.egress);
        let ingress = turn(Direction::Ingress, answers.ingress);
        Row {
            change: answers.change,
            from: Group::new(source, from, universe, sizes),
            to: Group::new(destination, to, universe, sizes),
            family: self.only_family(families, universe),
            ports: ports.clone(),
            turns: egress.into_iter().chain(ingress).collect(),
            presence: answers.presence,
        }
    }

    /// The only family, where both ends have the other one too.
    fn only_family(&self, families: &Families, universe: &Universe<Kin>) -> Option<Family> {
        let is_v4 = *families.first().filter(|_| families.len() == 1)?;
        let has_other = |ends: &Ends| {
            let mut others = universe.classes.iter().filter(|class| class.is_v4 != is_v4);
            others.any(|class| class.members.iter().any(|(who, _)| ends.contains(who)))
        };
        let family = if is_v4 { Family::IPv4 } else { Family::IPv6 };
        (has_other(&self.from) && has_other(&self.to)).then_some(family)
    }
}
