//! Sorting everybody into classes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Class, Judge, Member, Place, Regions, Scope, State, Who,
    meetings::{Apart, Meeting},
    places::Finder,
    profiles::{Marks, Profiles},
};
use crate::{connection::LOOPBACK, model::World};

/// Everybody, in classes.
#[derive(Debug)]
pub(crate) struct Universe<T> {
    pub(crate) regions: Regions,
    pub(crate) classes: Vec<Class<T>>,
    apart: Apart,
}

// === impl Universe ===

impl<T: Clone + Ord> Universe<T> {
    /// Sorts everybody of all states. What `tag` tells apart by address must be cut at `borders`.
    pub(crate) fn new(
        states: &[State<'_>],
        judge: &mut Judge<'_, '_>,
        borders: impl IntoIterator<Item = IpNet>,
        tag: impl Fn(&Who, IpAddr) -> T,
    ) -> Self {
        let mut finders: Vec<Finder<'_>> = states.iter().map(Finder::new).collect();
        let inventory: BTreeSet<IpAddr> = states.iter().flat_map(State::inventory).collect();
        let mut prefixes: BTreeSet<IpNet> = borders.into_iter().collect();
        for state in states {
            let tables = state.tables.nodes().map(|(_, tables)| tables);
            prefixes.extend(tables.flat_map(|tables| tables.prefixes.keys()));
        }
        let regions = Regions::new(prefixes, &inventory);

        let mut members = Vec::new();
        let everybody = everybody(states);
        for who in &everybody {
            let of_state = states.iter().map(|state| who.addresses(state.world));
            for addresses in matched(&of_state.collect::<Vec<_>>()) {
                let places = finders.iter_mut().zip(&addresses);
                let places = places
                    .map(|(finder, address)| Some(finder.place(who, (*address)?)))
                    .collect();
                let who = who.clone();
                members.push(Member { who, places });
            }
        }
        members.extend(on_loopback(&mut finders, &everybody, &regions));
        for (region, address) in regions.samples() {
            let who = Who::Outside(region);
            let places = finders.iter_mut();
            let places = places.map(|finder| Some(finder.place(&who, address)));
            let places = places.collect();
            members.push(Member { who, places });
        }
        let classes = sorted(states, judge, members, tag);
        Self {
            regions,
            apart: Apart::new(&classes),
            classes,
        }
    }

    /// Everybody who could begin a connection with everybody who could be asked for one, at least
    /// one of them known: those together that have the same answers.
    pub(crate) fn meetings(
        &self,
        is_source: impl Fn(&T) -> bool,
        is_destination: impl Fn(&T) -> bool,
    ) -> impl Iterator<Item = Meeting<'_, T>> {
        let numbered = || self.classes.iter().enumerate();
        let sources = numbered().filter(move |(_, from)| is_source(&from.tag));
        let mut destinations: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, to) in numbered().filter(|(_, to)| is_destination(&to.tag)) {
            let alike = destinations.entry((to.is_v4, &to.scopes)).or_default();
            alike.push((number, to));
        }
        sources.flat_map(move |(source, from)| {
            let there_is_a_way = |(is_v4, scopes): &(bool, &Vec<Option<Scope>>)| {
                let mut states = from.scopes.iter().zip(scopes.iter());
                let both = |(from, to): (&Option<Scope>, &Option<Scope>)| {
                    Some(from.as_ref()?.reaches(to.as_ref()?))
                };
                from.is_v4 == *is_v4 && states.any(|both_ends| both(both_ends) == Some(true))
            };
            let meetings: Vec<_> = destinations
                .iter()
                .filter(|(to, _)| there_is_a_way(to))
                .flat_map(|(_, alike)| alike)
                .filter(|(_, to)| !(from.is_outside() && to.is_outside()))
                .flat_map(|(destination, to)| {
                    self.apart.meetings((source, from), (*destination, to))
                })
                .collect();
            meetings
        })
    }
}

fn everybody(states: &[State<'_>]) -> BTreeSet<Who> {
    let mut all = BTreeSet::new();
    for state in states {
        let World {
            workloads,
            nodes,
            services,
            ..
        } = state.world;
        for name in workloads.keys().cloned() {
            let mut everywhere = states
                .iter()
                .filter_map(|one| one.world.workloads.get(&name));
            let owns = everywhere.all(|workload| workload.owns_its_addresses());
            all.insert(Who::Workload { name, owns });
        }
        all.extend(nodes.keys().cloned().map(Who::Node));
        all.extend(services.keys().cloned().map(Who::Service));
    }
    all
}

/// Those who share the addresses of nodes, by the addresses of loopback; and whoever else is there.
fn on_loopback(
    finders: &mut [Finder<'_>],
    everybody: &BTreeSet<Who>,
    regions: &Regions,
) -> Vec<Member> {
    let mut member = |who: &Who, address| {
        let places = finders.iter_mut();
        let places = places.map(|finder| finder.on_loopback(who, address));
        let places: Vec<Option<Place>> = places.collect();
        let is_there = places.iter().any(Option::is_some);
        let who = who.clone();
        is_there.then_some(Member { who, places })
    };
    let mut members = Vec::new();
    for who in everybody {
        members.extend(
            LOOPBACK
                .into_iter()
                .filter_map(|address| member(who, address)),
        );
    }
    if !members.is_empty() {
        for (region, address) in regions.on_loopback() {
            members.extend(member(&Who::Process(region), address));
        }
    }
    members
}

/// Somebody's addresses by state, each with those that it was or will be in the others.
///
/// Whoever got another address is still the same: the first new one for the first old one.
fn matched(of_state: &[BTreeSet<IpAddr>]) -> Vec<Vec<Option<IpAddr>>> {
    let kept = of_state.iter().cloned().reduce(|all, one| &all & &one);
    let kept = kept.unwrap_or_default();
    let same = |address: &IpAddr| of_state.iter().map(|_| Some(*address)).collect();
    let mut all: Vec<Vec<Option<IpAddr>>> = kept.iter().map(same).collect();
    for is_v4 in [true, false] {
        let others: Vec<Vec<IpAddr>> = of_state
            .iter()
            .map(|addresses| {
                let others = addresses.difference(&kept).copied();
                others.filter(|one| one.is_ipv4() == is_v4).collect()
            })
            .collect();
        let count = others.iter().map(Vec::len).max().unwrap_or(0);
        let nth = |number| others.iter().map(|one| one.get(number).copied()).collect();
        all.extend((0..count).map(nth));
    }
    all
}

/// By tag, IPv4 first, then by what tells them apart in each state. Whoever is outside is in no
/// class with others, because two of them do not meet.
type Sort<T> = (T, bool, Vec<Option<Scope>>, bool, Vec<Option<Marks>>);

fn scopes(states: &[State<'_>], member: &Member) -> Vec<Option<Scope>> {
    let mut places = member.places.iter().flatten();
    let is_on_loopback = places.any(|place| place.scope != Scope::Network);
    let nowhere = |state: &State<'_>| {
        let is_there = is_on_loopback && member.who.exists(state.world);
        is_there.then_some(Scope::Nowhere)
    };
    let both = states.iter().zip(&member.places);
    both.map(|(state, place)| match place {
        Some(place) => Some(place.scope.clone()),
        None => nowhere(state),
    })
    .collect()
}

fn sorted<T: Clone + Ord>(
    states: &[State<'_>],
    judge: &mut Judge<'_, '_>,
    members: Vec<Member>,
    tag: impl Fn(&Who, IpAddr) -> T,
) -> Vec<Class<T>> {
    let profiles: Vec<Profiles> = (0..states.len())
        .map(|state| {
            let places = members
                .iter()
                .filter_map(|one| one.places.get(state)?.as_ref());
            Profiles::new(judge, state, places)
        })
        .collect();
    let mut classes: BTreeMap<Sort<T>, Class<T>> = BTreeMap::new();
    for member in members {
        let Some(newest) = member.places.iter().flatten().next_back() else {
            continue;
        };
        let (tag, is_v4) = (tag(&member.who, newest.address), newest.address.is_ipv4());
        let marks = profiles.iter().zip(&member.places);
        let marks = marks.map(|(profiles, place)| Some(profiles.marks(place.as_ref()?)));
        let scopes = scopes(states, &member);
        let sort = (
            tag.clone(),
            !is_v4,
            scopes.clone(),
            member.who.is_outside(),
            marks.collect(),
        );
        let class = classes.entry(sort).or_insert_with(|| Class {
            tag,
            is_v4,
            scopes,
            members: Vec::new(),
        });
        class.members.push(member);
    }
    classes.into_values().collect()
}
