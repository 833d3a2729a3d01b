//! Who cannot be told apart: the equivalence classes of compiled tables.
//!
//! Two addresses are the same peer if every table gives them the same identity, two subjects are the
//! same if one node judges both by the same policy set. Between the borders of a port table nothing
//! changes. So an answer for one pair of classes and one interval holds for all of them, and who
//! asks about each has asked about everything: `diff` and `verify` sample nothing.
//!
//! The answers themselves come from `decide`, as everybody's do. Imports the compiled tables and the
//! connection.

mod ports;
mod regions;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::{PolicyKey, PortKey, THIS_NODE, WORLD};
use ipnet::IpNet;

pub(crate) use self::{
    ports::PortMap,
    regions::{Region, Regions},
};
pub use self::{
    ports::{PortRange, PortSet},
    regions::Block,
};
use crate::{
    compiled::{Compiled, Everywhere, PortTable},
    connection::{Perspective, Reason, Side, Verdict, addresses_of},
    model::{Direction, ObjectName, SubjectName, World},
    question::{Evaluator, Origin, Question},
};

/// A world with its tables, and how it is looked at.
#[derive(Debug)]
pub(crate) struct State<'w> {
    pub(crate) world: &'w World,
    perspective: Perspective,
    tables: Everywhere<'w>,
}

/// Somebody who may be an end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Workload(ObjectName),
    Node(String),
    /// Addresses of nobody known.
    Outside(Region),
    /// An address that a Service is reached at.
    Service(ObjectName, IpAddr),
}

/// Those whom neither the tables of any state nor the tag tell apart, by one address of each.
#[derive(Clone, Debug)]
pub(crate) struct Class<T> {
    pub(crate) tag: T,
    pub(crate) is_v4: bool,
    pub(crate) members: Vec<Member>,
}

/// Somebody with the place in every state; `None` where there is none.
pub(crate) type Member = (Who, Vec<Option<Place>>);

/// Somebody's address in a state, with all that answers can depend on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    judged: Option<Judged>,
    /// One of every node's tables.
    identities: Vec<u32>,
    /// The node whose own stack sends what is sent from here.
    voice: Option<String>,
    /// The node that a workload runs on.
    home: Option<String>,
}

/// How a subject is known to the tables of its node.
#[derive(Clone, Debug)]
struct Judged {
    name: SubjectName,
    /// The position of its node among all.
    tables: usize,
    set: u32,
    flags: u16,
}

/// Everybody, in classes.
#[derive(Debug)]
pub(crate) struct Universe<T> {
    pub(crate) regions: Regions,
    pub(crate) classes: Vec<Class<T>>,
}

/// Answers for pairs of places; each distinct one is asked for once.
#[derive(Debug)]
pub(crate) struct Judge<'s, 'w> {
    states: &'s [State<'w>],
    sides: Interned<Side>,
    maps: Interned<PortMap<u32>>,
    known: BTreeMap<Known, u32>,
}

/// All that a map of answers hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    state: usize,
    tables: usize,
    set: u32,
    flags: u16,
    direction: Direction,
    identity: u32,
    made_here: bool,
}

/// Numbers of the maps that hold a pair's answers: of the source's egress, and of the destination's
/// ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) egress: u32,
    pub(crate) ingress: u32,
}

/// Numbers for distinct values.
#[derive(Debug)]
struct Interned<T> {
    numbers: BTreeMap<T, u32>,
    values: Vec<T>,
}

// === impl State ===

impl<'w> State<'w> {
    pub(crate) fn new(world: &'w World, perspective: Perspective) -> Self {
        let tables = Everywhere::new(world, perspective.at);
        Self {
            world,
            perspective,
            tables,
        }
    }

    /// Every address that somebody has.
    fn inventory(&self) -> impl Iterator<Item = IpAddr> {
        let workloads = self.world.workloads.values();
        let nodes = self.world.nodes.values();
        let of_workloads = workloads.flat_map(|workload| workload.addresses.iter());
        of_workloads
            .chain(nodes.flat_map(|node| node.addresses.iter()))
            .copied()
    }

    fn frontends(&self) -> impl Iterator<Item = (&ObjectName, IpAddr)> {
        self.world.services.values().flat_map(|service| {
            let addresses = service.addresses.iter();
            addresses.map(|address| (&service.name, *address))
        })
    }
}

// === impl Who ===

impl Who {
    /// Nothing comes from the address of a Service.
    fn may_begin(&self) -> bool {
        !matches!(self, Self::Service(..))
    }

    fn addresses(&self, world: &World) -> BTreeSet<IpAddr> {
        match self {
            Self::Workload(name) => world
                .workloads
                .get(name)
                .map(|workload| addresses_of(world, workload)),
            Self::Node(name) => world.nodes.get(name).map(|node| node.addresses.clone()),
            Self::Service(name, address) => world
                .services
                .get(name)
                .filter(|service| service.addresses.contains(address))
                .map(|_| [*address].into()),
            Self::Outside(_) => None,
        }
        .unwrap_or_default()
    }
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

impl<T> Class<T> {
    /// Whether anybody in it is a workload or a node.
    fn is_known(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|(who, _)| matches!(who, Who::Workload(_) | Who::Node(_)))
    }

    /// A member that may begin a connection, and one of the other class that is not the same.
    ///
    /// A member stands in a class once for each of its addresses, so that two of them may be one.
    pub(crate) fn example<'c, U>(&'c self, to: &'c Class<U>) -> Option<(&'c Member, &'c Member)> {
        let mut sources = self.members.iter().filter(|(who, _)| who.may_begin());
        let first = sources.next()?;
        if let Some(other) = to.members.iter().find(|to| to.0 != first.0) {
            return Some((first, other));
        }
        // All of the other class is that one: anybody else will do.
        let other = sources.find(|from| from.0 != first.0)?;
        Some((other, to.members.first()?))
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

// === impl Judge ===

impl<'s, 'w> Judge<'s, 'w> {
    pub(crate) fn new(states: &'s [State<'w>]) -> Self {
        Self {
            states,
            sides: Interned::default(),
            maps: Interned::default(),
            known: BTreeMap::new(),
        }
    }

    /// The answers for a connection in a state, where both ends are there.
    pub(crate) fn pair(&mut self, state: usize, from: &Place, to: &Place) -> Pair {
        let is_own_node = from.voice.is_some() && from.voice == to.home;
        let origin = if is_own_node {
            Origin::ThisNode
        } else {
            Origin::Forwarded
        };
        Pair {
            egress: self.answers(state, Direction::Egress, from, to, Origin::Forwarded),
            ingress: self.answers(state, Direction::Ingress, to, from, origin),
        }
    }

    pub(crate) fn ports(&self, pair: Pair) -> PortMap<(u32, u32)> {
        let nothing = PortMap::constant(u32::MAX);
        let map = |number| self.maps.get(number).unwrap_or(&nothing);
        map(pair.egress).zip(map(pair.ingress), |egress, ingress| (*egress, *ingress))
    }

    pub(crate) fn side(&self, number: u32) -> Option<&Side> {
        self.sides.get(number)
    }

    pub(crate) fn permits(&self, number: u32) -> bool {
        let side = self.side(number);
        side.is_some_and(|side| side.verdict == Verdict::Allow)
    }

    fn answers(
        &mut self,
        state: usize,
        direction: Direction,
        subject: &Place,
        peer: &Place,
        origin: Origin,
    ) -> u32 {
        let known = subject.judged.as_ref().and_then(|judged| {
            let identity = *peer.identities.get(judged.tables)?;
            let Judged {
                name: _,
                tables,
                set,
                flags,
            } = *judged;
            let known = Known {
                state,
                tables,
                set,
                flags,
                direction,
                identity,
                made_here: origin == Origin::ThisNode,
            };
            Some((known, judged.name.clone()))
        });
        let Some((known, name)) = known else {
            let nobody = Side::without_rule(Verdict::Allow, Reason::NoSubject);
            let side = self.sides.number(nobody);
            return self.maps.number(PortMap::constant(side));
        };
        if let Some(number) = self.known.get(&known) {
            return *number;
        }
        let map = self.ask(known, &name, peer.address, origin);
        let number = self.maps.number(map);
        self.known.insert(known, number);
        number
    }

    fn ask(
        &mut self,
        known: Known,
        subject: &SubjectName,
        peer: IpAddr,
        origin: Origin,
    ) -> PortMap<u32> {
        let Some(state) = self.states.get(known.state) else {
            return PortMap::constant(u32::MAX);
        };
        let Some((_, tables)) = state.tables.nodes().nth(known.tables) else {
            return PortMap::constant(u32::MAX);
        };
        let Perspective { view, at } = state.perspective;
        let sides = PortMap::ask(&borders(tables, known), |port| {
            let answer = state.tables.answer(&Question {
                subject: subject.clone(),
                direction: known.direction,
                peer,
                protocol: port.protocol,
                port: port.number,
                origin,
                view,
                at,
            });
            Side::new(state.world, &answer)
        });
        let mut numbers = BTreeMap::new();
        for side in sides.values() {
            numbers.insert(side.clone(), self.sides.number(side.clone()));
        }
        sides.map(|side| numbers.get(side).copied().unwrap_or(u32::MAX))
    }
}

/// Where answers may change: in the table of the identity, of the node as such, or of the world.
fn borders(tables: &Compiled, known: Known) -> BTreeMap<u8, BTreeSet<u16>> {
    let way = match known.direction {
        Direction::Ingress => agent_common::table::Direction::Ingress,
        Direction::Egress => agent_common::table::Direction::Egress,
    };
    let mut borders: BTreeMap<u8, BTreeSet<u16>> = BTreeMap::new();
    for identity in [known.identity & !THIS_NODE, THIS_NODE, WORLD] {
        let key = PolicyKey {
            set: known.set,
            direction: way as u32,
            identity,
        };
        let number = tables.policy.get(&key);
        let entries = number.and_then(|number| tables.port_tables.get(number));
        for entry in entries.iter().flat_map(|PortTable(entries)| entries) {
            if entry.bits <= PortKey::TABLE_BITS {
                continue;
            }
            let free = PortKey::PORT_BITS.saturating_sub(entry.bits).min(16);
            let size = 1_u32 << free;
            let first = u32::from(entry.port) / size * size;
            let starts = borders.entry(entry.protocol).or_default();
            starts.extend(u16::try_from(first).ok());
            starts.extend(u16::try_from(first + size).ok());
        }
    }
    borders
}

// === impl Interned ===

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Ord + Clone> Interned<T> {
    fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

impl<T> Interned<T> {
    fn get(&self, number: u32) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)
    }
}
