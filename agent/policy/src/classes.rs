//! Who cannot be told apart: the equivalence classes of compiled tables.
//!
//! Two addresses are the same peer if every table gives them the same identity, two subjects are the
//! same if one node judges both by the same policy set. Between the borders of a port table nothing
//! changes. So an answer for one pair of classes and one interval holds for all of them, and who
//! asks about each has asked about everything: `diff` and `verify` sample nothing.
//!
//! The answers themselves come from `decide`, as everybody's do. Imports the compiled tables and the
//! connection.

mod judge;
mod ports;
mod regions;
mod universe;

use std::{collections::BTreeSet, net::IpAddr};

pub(crate) use self::{
    judge::{Judge, Pair},
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
    connection::{Perspective, addresses_of},
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
