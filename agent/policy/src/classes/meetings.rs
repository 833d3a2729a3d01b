//! Who of one class and who of another have the same answers for each other.
//!
//! Whoever meets with an address of its own is not judged there: a workload behind a Service, or
//! anybody at the address of another. And a node has a way of its own to the workloads that run on
//! it. All others of two classes have the same answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Class, Judged, Member, Place, Scope};

/// Members that have answers apart from those of their classes: by class of the source and of the
/// destination, for each source with which destinations.
#[derive(Debug, Default)]
pub(super) struct Apart(BTreeMap<(usize, usize), BTreeMap<usize, BTreeSet<usize>>>);

/// Some of one class and some of another. All that can connect have the same answers.
#[derive(Debug)]
pub(crate) struct Meeting<'c, T> {
    pub(crate) from: &'c Class<T>,
    pub(crate) to: &'c Class<T>,
    sources: Part,
    destinations: Part,
}

/// Members of a class, by their places in it.
#[derive(Clone, Debug)]
enum Part {
    All,
    But(BTreeSet<usize>),
    Only(usize),
}

/// A member by the place of its class, and by its own in it.
type Found = (usize, usize);

// === impl Apart ===

impl Apart {
    pub(super) fn new<T>(classes: &[Class<T>]) -> Self {
        let mut all = BTreeMap::new();
        let states = classes.iter().flat_map(|class| &class.members);
        for state in 0..states.map(|one| one.places.len()).max().unwrap_or(0) {
            add(&mut all, classes, state);
        }
        Self(all)
    }

    /// What all of two classes amount to.
    pub(super) fn meetings<'c, T>(
        &self,
        (source, from): (usize, &'c Class<T>),
        (destination, to): (usize, &'c Class<T>),
    ) -> Vec<Meeting<'c, T>> {
        let meeting = |sources, destinations| Meeting {
            from,
            to,
            sources,
            destinations,
        };
        let Some(apart) = self.0.get(&(source, destination)) else {
            return vec![meeting(Part::All, Part::All)];
        };
        let others = apart.keys().copied().collect();
        let mut all = vec![meeting(Part::But(others), Part::All)];
        for (source, with) in apart {
            let alone =
                |destination: &usize| meeting(Part::Only(*source), Part::Only(*destination));
            all.push(meeting(Part::Only(*source), Part::But(with.clone())));
            all.extend(with.iter().map(alone));
        }
        all
    }
}

/// Those of one state.
fn add<T>(
    all: &mut BTreeMap<(usize, usize), BTreeMap<usize, BTreeSet<usize>>>,
    classes: &[Class<T>],
    state: usize,
) {
    let places = || {
        let classes = classes.iter().enumerate();
        // On loopback, nobody has an address of its own.
        let classes = classes.filter(|(_, class)| !class.is_on_loopback());
        classes.flat_map(move |(number, class)| {
            let members = class.members.iter().enumerate();
            members.filter_map(move |(place, member)| {
                let there = member.places.get(state)?.as_ref()?;
                Some(((number, place), member, there))
            })
        })
    };
    let mut at: BTreeMap<IpAddr, Vec<Found>> = BTreeMap::new();
    let mut owned_by: BTreeMap<IpAddr, Vec<Found>> = BTreeMap::new();
    let mut speaks_for: BTreeMap<&str, Vec<Found>> = BTreeMap::new();
    for (found, _, place) in places() {
        at.entry(place.address).or_default().push(found);
        if let Some(node) = &place.peer.voice {
            speaks_for.entry(node).or_default().push(found);
        }
        for address in place.own() {
            owned_by.entry(*address).or_default().push(found);
        }
    }
    for (to, destination, place) in places() {
        let is_apart = |from: &&Found| {
            let class = classes.get(from.0);
            let class = class.filter(|class| class.is_v4 == place.address.is_ipv4());
            class
                .and_then(|class| class.members.get(from.1))
                .is_some_and(|source| {
                    source.who.may_begin() && !source.who.is_itself(&destination.who)
                })
        };
        let behind = place.behind.iter().flat_map(|behind| &behind.own);
        let its_own = place.own().chain(behind);
        let sources = its_own.filter_map(|address| at.get(address));
        let its_node = place.home().and_then(|node| speaks_for.get(node));
        let sources = sources.chain(owned_by.get(&place.address)).chain(its_node);
        for from in sources.flatten().filter(is_apart) {
            let apart = all.entry((from.0, to.0)).or_default();
            apart.entry(from.1).or_default().insert(to.1);
        }
    }
}

// === impl Meeting ===

impl<'c, T> Meeting<'c, T> {
    pub(crate) fn sources(&self) -> impl Iterator<Item = &'c Member> + use<'c, '_, T> {
        let sources = self.sources.of(self.from);
        sources.filter(|member| member.who.may_begin())
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &'c Member> + use<'c, '_, T> {
        self.destinations.of(self.to)
    }

    /// The node on whose loopback interface all of them are, in every state.
    pub(crate) fn home(&self) -> Option<&'c Scope> {
        let mut scopes = self.from.scopes.iter();
        let first = scopes.next()?.as_ref()?;
        let is_node = matches!(first, Scope::Loopback(_));
        let stays = scopes.all(|scope| scope.as_ref() == Some(first));
        (is_node && stays && self.from.scopes == self.to.scopes).then_some(first)
    }

    /// Two who can connect, and whose answers hold for all others; `None` if there are none.
    ///
    /// A member stands in a class once for each of its addresses, so that two of them may be one.
    pub(crate) fn example(&self) -> Option<(&'c Member, &'c Member)> {
        let mut sources = self.sources();
        let first = sources.next()?;
        let is_other = |from: &Member, to: &Member| !from.who.is_itself(&to.who);
        if let Some(other) = self.destinations().find(|to| is_other(first, to)) {
            return Some((first, other));
        }
        // All of the others are that one: anybody else will do.
        let to = self.destinations().next()?;
        let other = sources.find(|from| is_other(from, to))?;
        Some((other, to))
    }
}

impl Part {
    fn of<'c, T>(&self, class: &'c Class<T>) -> impl Iterator<Item = &'c Member> + use<'c, '_, T> {
        let members = class.members.iter().enumerate();
        let is_in = |place| match self {
            Self::All => true,
            Self::But(others) => !others.contains(&place),
            Self::Only(one) => place == *one,
        };
        members
            .filter(move |(place, _)| is_in(*place))
            .map(|(_, member)| member)
    }
}

impl Place {
    fn own(&self) -> impl Iterator<Item = &IpAddr> {
        let judged = self.judged.iter();
        judged.flat_map(|Judged { own, .. }| own)
    }

    /// The node that may reach it whatever policies say.
    fn home(&self) -> Option<&str> {
        let judged = self.judged.as_ref();
        judged.and_then(|judged| judged.home.as_deref())
    }
}

impl<T> Class<T> {
    /// Whether nobody in it is known. Whoever is outside is in no class with others.
    pub(super) fn is_outside(&self) -> bool {
        self.members.iter().all(|member| member.who.is_outside())
    }
}
