//! Whether somebody is meant with all addresses, or with some.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Family, Kin};
use crate::classes::{Class, Universe, Who};

/// Each by one address: that of the newest world that it is in.
pub(super) type Members = BTreeSet<(Who, IpAddr)>;
/// What packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    pub(super) is_loopback: bool,
    pub(super) is_v4: bool,
}

/// An end of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) who: BTreeSet<Who>,
    /// The addresses of theirs that are meant; empty if all are.
    pub(super) only: BTreeSet<IpAddr>,
}

/// How many addresses everybody has for a path.
pub(super) struct Extent<'u>(BTreeMap<(&'u Who, Path), usize>);

/// Members who are all there with each of their addresses of a family, or with some.
#[derive(Debug)]
enum Portion {
    Whole(Members),
    Partial(Members),
}

/// The workload, if it is the only one of all.
pub(super) fn only_workload<'w>(mut all: impl Iterator<Item = &'w Who>) -> Option<&'w Who> {
    let first = all.next()?;
    all.chain([first])
        .all(|who| who.is_itself(first))
        .then_some(first)
}

// === impl Extent ===

impl<'u> Extent<'u> {
    pub(super) fn of(universe: &'u Universe<Kin>) -> Self {
        let mut counts = BTreeMap::new();
        for class in &universe.classes {
            let path = Path::of(class);
            for member in &class.members {
                *counts.entry((&member.who, path)).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// Whoever is meant with all addresses, and whoever is not, in rows of their own.
    pub(super) fn split(&self, (from, to): &(Members, Members), path: Path) -> Vec<(Ends, Ends)> {
        let (sources, destinations) = (self.parted(from, path), self.parted(to, path));
        let pairs = sources.iter().flat_map(|from| {
            let to = destinations.iter();
            to.filter_map(move |to| Some((from.ends()?, to.without(from).ends()?)))
        });
        pairs.collect()
    }

    fn parted(&self, members: &Members, path: Path) -> [Portion; 2] {
        let mut counts: BTreeMap<&Who, usize> = BTreeMap::new();
        for (who, _) in members {
            *counts.entry(who).or_default() += 1;
        }
        let is_whole = |who: &Who| counts.get(who) == self.0.get(&(who, path));
        let all = members.iter().cloned();
        let (whole, some) = all.partition(|(who, _)| is_whole(who));
        [Portion::Whole(whole), Portion::Partial(some)]
    }

    /// The only family, where both ends have the other one too.
    pub(super) fn only_family(&self, from: &Ends, to: &Ends, paths: &[Path]) -> Option<Family> {
        let [path] = paths else {
            return None;
        };
        let other = Path {
            is_v4: !path.is_v4,
            ..*path
        };
        let has_other = |ends: &Ends| {
            let mut all = ends.who.iter();
            all.any(|who| self.0.contains_key(&(who, other)))
        };
        let family = if path.is_v4 {
            Family::IPv4
        } else {
            Family::IPv6
        };
        (has_other(from) && has_other(to)).then_some(family)
    }
}

// === impl Path ===

impl Path {
    pub(super) fn of<T>(class: &Class<T>) -> Self {
        Self {
            is_loopback: class.is_on_loopback(),
            is_v4: class.is_v4,
        }
    }
}

// === impl Portion ===

impl Portion {
    /// Somebody else than a workload to itself.
    fn without(&self, source: &Self) -> Self {
        let (Self::Whole(sources) | Self::Partial(sources)) = source;
        let only = only_workload(sources.iter().map(|(who, _)| who));
        let others = |members: &Members| {
            let is_other = |who: &Who| only.is_none_or(|only| !who.is_itself(only));
            let members = members.iter().filter(|(who, _)| is_other(who));
            members.cloned().collect()
        };
        match self {
            Self::Whole(members) => Self::Whole(others(members)),
            Self::Partial(members) => Self::Partial(others(members)),
        }
    }

    /// `None` if there is nobody.
    fn ends(&self) -> Option<Ends> {
        let (Self::Whole(members) | Self::Partial(members)) = self;
        let (who, addresses): (BTreeSet<Who>, BTreeSet<IpAddr>) = members.iter().cloned().unzip();
        let only = match self {
            Self::Whole(_) => BTreeSet::new(),
            Self::Partial(_) => addresses,
        };
        (!who.is_empty()).then_some(Ends { who, only })
    }
}
