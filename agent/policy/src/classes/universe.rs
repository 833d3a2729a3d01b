//! Sorting everybody into classes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::WORLD;
use ipnet::IpNet;

use super::{Class, Judged, Place, Regions, State, Who};
use crate::{
    compiled::Compiled,
    model::{SubjectName, World},
};

/// Everybody, in classes.
#[derive(Debug)]
pub(crate) struct Universe<T> {
    pub(crate) regions: Regions,
    pub(crate) classes: Vec<Class<T>>,
}

// === impl Universe ===

impl<T: Clone + Ord> Universe<T> {
    /// Sorts everybody of all states. What `tag` tells apart by address must be cut at `borders`.
    pub(crate) fn new(
        states: &[State<'_>],
        borders: impl IntoIterator<Item = IpNet>,
        tag: impl Fn(&Who, IpAddr) -> T,
    ) -> Self {
        let finders: Vec<Finder<'_>> = states.iter().map(Finder::new).collect();
        let mut inventory: BTreeSet<IpAddr> = states.iter().flat_map(State::inventory).collect();
        inventory.extend(
            states
                .iter()
                .flat_map(State::frontends)
                .map(|(_, address)| address),
        );
        let mut prefixes: BTreeSet<IpNet> = borders.into_iter().collect();
        for state in states {
            prefixes.extend(
                state
                    .tables
                    .nodes()
                    .flat_map(|(_, tables)| tables.prefixes.keys()),
            );
        }
        let regions = Regions::new(prefixes, &inventory);

        let mut sorting = Sorting::default();
        let mut everybody = BTreeSet::new();
        for state in states {
            let World {
                workloads, nodes, ..
            } = state.world;
            everybody.extend(workloads.keys().cloned().map(Who::Workload));
            everybody.extend(nodes.keys().cloned().map(Who::Node));
            let frontends = state.frontends();
            everybody.extend(frontends.map(|(name, address)| Who::Service(name.clone(), address)));
        }
        for who in everybody {
            for is_v4 in [true, false] {
                // Whoever got another address is still the same: its first for its first.
                let of_family = |finder: &Finder<'_>| -> Vec<IpAddr> {
                    let all = who.addresses(finder.state.world).into_iter();
                    all.filter(|address| address.is_ipv4() == is_v4).collect()
                };
                let addresses: Vec<_> = finders.iter().map(of_family).collect();
                let count = addresses.iter().map(Vec::len).max().unwrap_or(0);
                for number in 0..count {
                    let places: Vec<Option<Place>> = finders
                        .iter()
                        .zip(&addresses)
                        .map(|(finder, addresses)| {
                            Some(finder.place(&who, *addresses.get(number)?))
                        })
                        .collect();
                    let newest = places.iter().flatten().next_back();
                    if let Some(address) = newest.map(|place| place.address) {
                        sorting.add(tag(&who, address), &who, is_v4, places);
                    }
                }
            }
        }
        for (region, address) in regions.samples() {
            let who = Who::Outside(region);
            let places = finders
                .iter()
                .map(|finder| Some(finder.place(&who, address)))
                .collect();
            sorting.add(tag(&who, address), &who, address.is_ipv4(), places);
        }
        let classes = sorting.classes.into_values().collect();
        Self { regions, classes }
    }

    /// All pairs of classes that could be ends of one connection, at least one of them known.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Class<T>, &Class<T>)> {
        self.classes.iter().flat_map(move |from| {
            let is_source = from.members.iter().any(|(who, _)| who.may_begin());
            let to = self.classes.iter().filter(move |to| {
                is_source && from.is_v4 == to.is_v4 && (from.is_known() || to.is_known())
            });
            to.map(move |to| (from, to))
        })
    }
}

/// What tells two members of a class apart, for sorting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Marks {
    /// The tables, the policy set and the flags.
    judged: Option<(usize, u32, u16)>,
    identities: Vec<u32>,
    voice: Option<String>,
}

/// By tag, IPv4 first, then by what tells them apart in each state.
type Sort<T> = (T, bool, Vec<Option<Marks>>);

struct Sorting<T> {
    classes: BTreeMap<Sort<T>, Class<T>>,
}

impl<T> Default for Sorting<T> {
    fn default() -> Self {
        let classes = BTreeMap::new();
        Self { classes }
    }
}

impl<T: Clone + Ord> Sorting<T> {
    fn add(&mut self, tag: T, who: &Who, is_v4: bool, places: Vec<Option<Place>>) {
        let marks: Vec<Option<Marks>> = places
            .iter()
            .map(|place| place.as_ref().map(Place::marks))
            .collect();
        let class = self
            .classes
            .entry((tag.clone(), !is_v4, marks))
            .or_insert_with(|| Class {
                tag,
                is_v4,
                members: Vec::new(),
            });
        class.members.push((who.clone(), places));
    }
}

/// Finds the places of a state.
struct Finder<'s> {
    state: &'s State<'s>,
    nodes: Vec<NodeTables<'s>>,
}

/// The tables of a node, and the lengths of prefixes that they have.
struct NodeTables<'s> {
    name: Option<&'s str>,
    tables: &'s Compiled,
    v4: BTreeSet<u8>,
    v6: BTreeSet<u8>,
}

impl<'s> Finder<'s> {
    fn new(state: &'s State<'_>) -> Self {
        let lengths = |tables: &Compiled, is_v4: bool| {
            let prefixes = tables.prefixes.keys();
            let of_family = prefixes.filter(|prefix| prefix.addr().is_ipv4() == is_v4);
            of_family.map(IpNet::prefix_len).collect()
        };
        let nodes = state.tables.nodes();
        Self {
            state,
            nodes: nodes
                .map(|(name, tables)| NodeTables {
                    name,
                    tables,
                    v4: lengths(tables, true),
                    v6: lengths(tables, false),
                })
                .collect(),
        }
    }

    fn place(&self, who: &Who, address: IpAddr) -> Place {
        let world = self.state.world;
        let (subject, voice, home) = match who {
            Who::Workload(name) => {
                let workload = world.workloads.get(name);
                let home = workload.and_then(|workload| workload.node.clone());
                let shares = workload.is_some_and(|workload| !workload.owns_its_addresses());
                let voice = home.clone().filter(|_| shares);
                (Some(SubjectName::Workload(name.clone())), voice, home)
            }
            Who::Node(name) => {
                let subject = SubjectName::Node(name.clone());
                (Some(subject), Some(name.clone()), None)
            }
            Who::Outside(_) | Who::Service(..) => (None, None, None),
        };
        Place {
            address,
            judged: subject.and_then(|name| self.judged(name)),
            identities: self.identities(address),
            voice,
            home,
        }
    }

    fn judged(&self, name: SubjectName) -> Option<Judged> {
        let node = match &name {
            SubjectName::Workload(name) => self.state.world.workloads.get(name)?.node.as_deref(),
            SubjectName::Node(name) => Some(name.as_str()),
        };
        let tables = self.nodes.iter().position(|known| known.name == node)?;
        let subject = self.nodes.get(tables)?.tables.subjects.get(&name)?;
        Some(Judged {
            tables,
            set: subject.set_of(self.state.perspective.view),
            flags: subject.flags,
            name,
        })
    }

    fn identities(&self, address: IpAddr) -> Vec<u32> {
        let identity = |node: &NodeTables<'_>| {
            let lengths = if address.is_ipv4() {
                &node.v4
            } else {
                &node.v6
            };
            lengths
                .iter()
                .rev()
                .filter_map(|bits| IpNet::new(address, *bits).ok())
                .find_map(|prefix| node.tables.prefixes.get(&prefix.trunc()).copied())
                .unwrap_or(WORLD)
        };
        self.nodes.iter().map(identity).collect()
    }
}

// === impl Place ===

impl Place {
    fn marks(&self) -> Marks {
        let Self {
            address: _,
            judged,
            identities,
            voice,
            // Only a subject's matters, and its tables are those of its home.
            home: _,
        } = self;
        let judged = judged.as_ref().map(|judged| {
            let Judged {
                name: _,
                tables,
                set,
                flags,
            } = judged;
            (*tables, *set, *flags)
        });
        Marks {
            judged,
            identities: identities.clone(),
            voice: voice.clone(),
        }
    }
}
