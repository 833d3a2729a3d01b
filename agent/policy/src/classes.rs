//! Who cannot be told apart: the equivalence classes of compiled tables.
//!
//! Two addresses are the same peer if every table gives them the same identity, and the same behind
//! which the same answers are; two subjects are the same if they say the same of every peer. Between
//! the borders of a port table nothing changes. So an answer for one pair of classes and one interval
//! holds for all of them, but for a few ends that have answers of their own for each other. Who asks
//! about each has asked about everything: `diff` and `verify` sample nothing.
//!
//! The answers themselves come from `decide`, as everybody's do. Imports the compiled tables and the
//! connection.

mod judge;
mod meetings;
mod places;
mod ports;
mod profiles;
mod regions;
mod universe;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_common::table::Endpoint;

pub(crate) use self::{
    judge::{Judge, Pair},
    meetings::Meeting,
    ports::PortMap,
    regions::{Region, Regions},
    universe::Universe,
};
pub use self::{
    ports::{PortRange, PortSet},
    regions::Block,
};
use crate::{
    compiled::Everywhere,
    connection::{Perspective, Port, addresses_of},
    model::{ObjectName, SubjectName, World},
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
    Workload {
        name: ObjectName,
        /// Whether its addresses lead to it alone, in every state that it is in.
        owns: bool,
    },
    Node(String),
    /// Addresses of nobody known.
    Outside(Region),
    /// Processes that are no workload, by loopback addresses of whichever node.
    Process(Region),
    /// As a destination only.
    Service(ObjectName),
}

/// Those whom neither the tables of any state nor the tag tell apart, by one address of each.
#[derive(Clone, Debug)]
pub(crate) struct Class<T> {
    pub(crate) tag: T,
    pub(crate) is_v4: bool,
    /// By state; `None` where they are not there.
    scopes: Vec<Option<Scope>>,
    pub(crate) members: Vec<Member>,
}

/// One address of somebody.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) who: Who,
    /// By state; `None` where it is not there.
    pub(crate) places: Vec<Option<Place>>,
}

/// Somebody's address in a state, with all that answers can depend on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    scope: Scope,
    judged: Option<Judged>,
    peer: Arc<Peer>,
    /// Where it is told by its socket (§6.7 of the semantics).
    socket: Option<Arc<Socket>>,
    /// Where some of its ports lead elsewhere.
    behind: Option<Arc<Behind>>,
}

/// From where an address is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Network,
    /// From those who share the addresses of a node, be it none that is named.
    Loopback(Option<String>),
    /// From all of those, of every node.
    EveryLoopback,
    /// From nowhere: that of somebody who is on no loopback interface in this state.
    Nowhere,
}

/// How a subject is known to the tables of its node.
#[derive(Clone, Debug)]
struct Judged {
    name: SubjectName,
    /// The position of its node among all.
    tables: usize,
    set: u32,
    flags: u16,
    /// The node that a workload runs on.
    home: Option<String>,
    /// What leads to it alone: what comes from there is not judged.
    own: BTreeSet<IpAddr>,
    /// Whether sockets tell it who is at the other end, over loopback.
    is_told: bool,
}

/// Whose socket is at an address that is shared.
#[derive(Debug)]
struct Socket {
    /// The same for all that are the same, of one state.
    number: usize,
    /// The position of its node among all: nobody else is told.
    tables: usize,
    name: ObjectName,
}

/// What an address is to those at the other end.
#[derive(Debug)]
struct Peer {
    /// The same for all that are the same, of one state.
    number: usize,
    /// One of every node's tables.
    identities: Vec<u32>,
    /// The node whose own stack sends what is sent from here.
    voice: Option<String>,
}

/// What serves behind an address (§2 of the semantics), port by port.
#[derive(Debug)]
struct Behind {
    /// The same for all behind which the same answers are, of one state.
    number: usize,
    /// The same only if the same serve.
    served: usize,
    ports: BTreeMap<Port, Servers>,
    /// Addresses of those who serve behind some port and are not judged for what comes from there.
    own: BTreeSet<IpAddr>,
}

/// What serves behind one port; in order of address and port.
#[derive(Debug)]
struct Servers {
    /// As that of [`Behind`].
    number: usize,
    all: Vec<Server>,
    /// The first ones of each kind. The others have nothing to add for whoever does not serve here.
    distinct: Vec<Server>,
    /// Addresses of their own.
    own: BTreeSet<IpAddr>,
}

/// The end that is not judged, as the other one sees it.
#[derive(Clone, Copy, Debug)]
struct Seen<'p> {
    peer: &'p Peer,
    address: IpAddr,
    socket: Option<&'p Socket>,
}

#[derive(Clone, Debug)]
struct Server {
    judged: Option<Judged>,
    port: u16,
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
        let services = self.world.services.values();
        let of_workloads = workloads.flat_map(|workload| workload.addresses.iter());
        of_workloads
            .chain(nodes.flat_map(|node| node.addresses.iter()))
            .chain(services.flat_map(|service| service.addresses.iter()))
            .copied()
    }
}

// === impl Who ===

impl Who {
    /// Nothing comes from the address of a Service.
    fn may_begin(&self) -> bool {
        !matches!(self, Self::Service(_))
    }

    fn is_outside(&self) -> bool {
        matches!(self, Self::Outside(_) | Self::Process(_))
    }

    /// Whether the two are the same workload that always reaches itself.
    pub(crate) fn is_itself(&self, other: &Self) -> bool {
        matches!(self, Self::Workload { owns: true, .. }) && self == other
    }

    fn exists(&self, world: &World) -> bool {
        match self {
            Self::Workload { name, .. } => world.workloads.contains_key(name),
            Self::Node(name) => world.nodes.contains_key(name),
            Self::Service(name) => world.services.contains_key(name),
            Self::Outside(_) | Self::Process(_) => true,
        }
    }

    fn addresses(&self, world: &World) -> BTreeSet<IpAddr> {
        match self {
            Self::Workload { name, .. } => world
                .workloads
                .get(name)
                .map(|workload| addresses_of(world, workload)),
            Self::Node(name) => world.nodes.get(name).map(|node| node.addresses.clone()),
            Self::Service(name) => world
                .services
                .get(name)
                .map(|service| service.addresses.clone()),
            Self::Outside(_) | Self::Process(_) => None,
        }
        .unwrap_or_default()
    }

    /// Where it is on the loopback interface, in a world.
    fn loopback(&self, world: &World) -> Option<Scope> {
        match self {
            Self::Workload { name, .. } => {
                let workload = world.workloads.get(name)?;
                let node = || Scope::Loopback(workload.node.clone());
                (!workload.owns_its_addresses()).then(node)
            }
            Self::Node(name) => {
                let node = world.nodes.get(name)?;
                Some(Scope::Loopback(Some(node.name.clone())))
            }
            Self::Process(_) => Some(Scope::EveryLoopback),
            Self::Outside(_) | Self::Service(_) => None,
        }
    }
}

// === impl Scope ===

impl Scope {
    fn reaches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nowhere, _) | (_, Self::Nowhere) => false,
            (Self::EveryLoopback, Self::Loopback(_)) | (Self::Loopback(_), Self::EveryLoopback) => {
                true
            }
            _ => self == other,
        }
    }
}

// === impl Place ===

impl Place {
    fn seen(&self) -> Seen<'_> {
        Seen {
            peer: &self.peer,
            address: self.address,
            socket: self.socket.as_deref(),
        }
    }

    /// Whether both are the same workload, at addresses that lead to it alone.
    fn is_itself(&self, other: &Self) -> bool {
        let (Some(one), Some(other)) = (&self.judged, &other.judged) else {
            return false;
        };
        one.name == other.name && one.owns_its_addresses()
    }
}

// === impl Seen ===

impl Seen<'_> {
    fn without_socket(self) -> Self {
        let socket = None;
        Self { socket, ..self }
    }
}

// === impl Judged ===

impl Judged {
    fn owns_its_addresses(&self) -> bool {
        self.flags & Endpoint::OWNS_ADDRESSES != 0
    }
}

// === impl Class ===

impl<T> Class<T> {
    pub(crate) fn is_on_loopback(&self) -> bool {
        let mut scopes = self.scopes.iter().flatten();
        scopes.any(|scope| *scope != Scope::Network)
    }

    /// Whether they exist in a state, at these addresses or, on loopback, at all.
    pub(crate) fn exists(&self, state: usize) -> bool {
        self.scopes.get(state).is_some_and(Option::is_some)
    }
}

#[cfg(test)]
mod tests;
