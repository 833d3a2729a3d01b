//! Many differences to few rows, none of which says more than is so.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Change, Family, Group, Kin, Loopback, Meets, Row, Sizes, Turn,
    extent::{Ends, Extent, Path},
    products::{Product, together},
};
use crate::{
    classes::{Judge, Meeting, Member, PortSet, Universe, Who},
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
    /// They share a node in the new world only.
    Met,
    /// They share a node in the old world only.
    Parted,
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

/// Pairs with a difference.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<(Key, Path), Vec<Product>>);

/// A row whose ends are still lists of everybody.
#[derive(Debug)]
pub(super) struct Unnamed {
    key: Key,
    from: Ends,
    to: Ends,
    over: Over,
}

/// The paths that a row is about, of those that its ends have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Over {
    family: Option<Family>,
    loopback: Option<Loopback>,
}

/// Whether a pair's answers amount to something else, and by whom.
pub(super) fn changed(
    judge: &Judge<'_, '_>,
    old: Meets<(u32, u32)>,
    new: Meets<(u32, u32)>,
) -> Option<Answers> {
    let permits = |meets| match meets {
        Meets::At((egress, ingress)) => judge.permits(egress) && judge.permits(ingress),
        Meets::NoWay | Meets::Absent => false,
    };
    let change = match (permits(old), permits(new)) {
        (false, true) => Change::Permitted,
        (true, false) => Change::Denied,
        (true, true) | (false, false) => return None,
    };
    let turned =
        |old: u32, new: u32| (judge.permits(old) != judge.permits(new)).then_some((old, new));
    let (egress, ingress, presence) = match (old, new) {
        (Meets::At((old_egress, old_ingress)), Meets::At((new_egress, new_ingress))) => (
            turned(old_egress, new_egress),
            turned(old_ingress, new_ingress),
            None,
        ),
        (Meets::Absent, _) => (None, None, Some(Presence::New)),
        (Meets::NoWay, _) => (None, None, Some(Presence::Met)),
        (Meets::At(_), Meets::Absent) => (None, None, Some(Presence::Gone)),
        (Meets::At(_), Meets::NoWay) => (None, None, Some(Presence::Parted)),
    };
    Some(Answers {
        change,
        egress,
        ingress,
        presence,
    })
}

// === impl Found ===

impl Found {
    pub(super) fn add(&mut self, answers: &Answers, ports: &PortSet, meeting: &Meeting<'_, Kin>) {
        let key = Key {
            answers: *answers,
            ports: ports.clone(),
            from: meeting.from.tag.clone(),
            to: meeting.to.tag.clone(),
        };
        let one = |member: &Member| {
            let newest = member.places.iter().flatten().next_back()?;
            Some((member.who.clone(), newest.address))
        };
        let from = meeting.sources().filter_map(one).collect();
        let to = meeting.destinations().filter_map(one).collect();
        let pairs = self.0.entry((key, Path::of(meeting.from))).or_default();
        let home = meeting.home().cloned();
        pairs.push(Product { home, from, to });
    }

    pub(super) fn into_rows(self, extent: &Extent<'_>) -> Vec<Unnamed> {
        let mut by_path: BTreeMap<Key, BTreeMap<(Ends, Ends), BTreeSet<Path>>> = BTreeMap::new();
        for ((key, path), products) in self.0 {
            let rows = by_path.entry(key).or_default();
            let pairs = together(products);
            for pair in pairs.iter().flat_map(|pair| extent.split(pair, path)) {
                rows.entry(pair).or_default().insert(path);
            }
        }
        let mut rows = Vec::new();
        for (key, pairs) in by_path {
            let mut outside: BTreeMap<Known, BTreeSet<Who>> = BTreeMap::new();
            for ((from, to), paths) in pairs {
                // The path of an address outside is to be seen: both families belong in one row.
                if let Some((known, who)) = Known::of(&key, &from, &to, &paths) {
                    outside.entry(known).or_default().extend(who);
                    continue;
                }
                rows.extend(
                    over(extent, &key, [&from, &to], &paths).map(|over| Unnamed {
                        key: key.clone(),
                        from: from.clone(),
                        to: to.clone(),
                        over,
                    }),
                );
            }
            let outside = outside.into_iter();
            rows.extend(outside.map(|(known, who)| known.row(&key, who)));
        }
        rows
    }
}

/// The end of a row that is not outside.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    is_destination: bool,
    is_loopback: bool,
    ends: Ends,
}

// === impl Known ===

impl Known {
    /// With those outside.
    fn of(
        key: &Key,
        from: &Ends,
        to: &Ends,
        paths: &BTreeSet<Path>,
    ) -> Option<(Self, BTreeSet<Who>)> {
        let (ends, outside, is_destination) = match (&key.from, &key.to) {
            (Kin::Outside, _) => (to, from, true),
            (_, Kin::Outside) => (from, to, false),
            _ => return None,
        };
        let known = Self {
            is_destination,
            // Who is outside is on loopback with no other addresses.
            is_loopback: paths.first()?.is_loopback,
            ends: ends.clone(),
        };
        Some((known, outside.who.clone()))
    }

    fn row(self, key: &Key, who: BTreeSet<Who>) -> Unnamed {
        let only = BTreeSet::new();
        let (known, all) = (self.ends, Ends { who, only });
        let (from, to) = if self.is_destination {
            (all, known)
        } else {
            (known, all)
        };
        Unnamed {
            key: key.clone(),
            from,
            to,
            over: Over {
                family: None,
                loopback: self.is_loopback.then_some(Loopback::Only),
            },
        }
    }
}

/// One for the network and one for loopback, or one for both.
fn over(
    extent: &Extent<'_>,
    key: &Key,
    [from, to]: [&Ends; 2],
    paths: &BTreeSet<Path>,
) -> impl Iterator<Item = Over> + use<> {
    let of = |is_loopback: bool| {
        let paths = paths.iter().copied();
        let paths: Vec<Path> = paths
            .filter(|path| path.is_loopback == is_loopback)
            .collect();
        let family = extent.only_family(from, to, &paths);
        (!paths.is_empty()).then(|| family.filter(|_| are_of_both_families(&key.ports)))
    };
    let all = match (of(false), of(true)) {
        (Some(family), Some(same)) if family == same => [Some((family, Some(Loopback::Too))), None],
        (network, loopback) => [
            network.map(|family| (family, None)),
            loopback.map(|family| (family, Some(Loopback::Only))),
        ],
    };
    let all = all.into_iter().flatten();
    all.map(|(family, loopback)| Over { family, loopback })
}

/// Not so for ICMP, which has a protocol for each: there, the ports say the family.
fn are_of_both_families(ports: &PortSet) -> bool {
    [true, false].map(|is_v4| ports.over(is_v4).is_empty()) == [false; 2]
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
            over: Over { family, loopback },
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
            family: *family,
            loopback: *loopback,
            ports: ports.clone(),
            turns: egress.into_iter().chain(ingress).collect(),
            presence: answers.presence,
        }
    }
}
