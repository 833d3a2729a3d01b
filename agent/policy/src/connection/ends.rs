//! The ends of a connection, as people name them, and the addresses that stand for them.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Serialize, Serializer};

use super::{ConnectionError, error::nearest};
use crate::{
    model::{Node, ObjectName, SubjectName, Subjects, Workload, World},
    reference::matching,
};

/// Serialised and printed as it is named: `NAMESPACE/NAME`, `node/NAME`, `service/NAMESPACE/NAME` or
/// an address that nobody known has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Workload(ObjectName),
    Node(String),
    /// As a destination only.
    Service(ObjectName),
    Address(IpAddr),
    /// A name, and the one of its addresses that is meant.
    At(Box<Self>, IpAddr),
}

// === impl End ===

impl End {
    /// Reads an end; an address that a workload owns, or a node has, becomes that one's.
    ///
    /// A namespace called `node` is taken as such if it has a workload of this name.
    ///
    /// # Errors
    ///
    /// If it is no end, or names nothing in this world: then with the nearest name, if one is near.
    pub fn parse(world: &World, text: &str) -> Result<Self, ConnectionError> {
        Self::find(world, text).ok_or_else(|| Self::missing(world, text))
    }

    /// As [`Self::parse`], for whoever does not ask what was meant: that costs a look at every name.
    pub(crate) fn find(world: &World, text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return mapped(address)
                .is_none()
                .then(|| Self::Address(address).resolved(world));
        }
        let (namespace, name) = text.split_once('/')?;
        if let ("service", Some((namespace, name))) = (namespace, name.split_once('/')) {
            let name = ObjectName::new(namespace, name);
            return world
                .services
                .contains_key(&name)
                .then_some(Self::Service(name));
        }
        let workload = ObjectName::new(namespace, name);
        if world.workloads.contains_key(&workload) {
            return Some(Self::Workload(workload));
        }
        (namespace == "node" && world.nodes.contains_key(name)).then(|| Self::Node(name.to_owned()))
    }

    /// Why nothing is called so.
    fn missing(world: &World, text: &str) -> ConnectionError {
        let seen = text.to_owned();
        if let Some(v4) = text.parse().ok().and_then(mapped) {
            return ConnectionError::MappedAddress { seen, v4 };
        }
        match text.split('/').collect::<Vec<_>>()[..] {
            ["service", _, _] => {
                let known = world.services.keys().map(|name| format!("service/{name}"));
                let near = nearest(text, known);
                ConnectionError::UnknownService { seen, near }
            }
            ["node", name] if !name.is_empty() => {
                let known = world.nodes.keys().map(|node| format!("node/{node}"));
                let near = nearest(text, known);
                ConnectionError::UnknownNode { seen, near }
            }
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                let known = world.workloads.keys().map(ToString::to_string);
                let near = nearest(text, known);
                ConnectionError::UnknownWorkload { seen, near }
            }
            _ => ConnectionError::End { seen },
        }
    }

    /// The end with this one of its addresses.
    pub(crate) fn at(&self, address: IpAddr) -> Self {
        match self {
            Self::Workload(_) | Self::Node(_) | Self::Service(_) => {
                Self::At(Box::new(self.clone()), address)
            }
            Self::Address(_) | Self::At(..) => self.clone(),
        }
    }

    /// Says whose an address is: of the workload that owns it, else of the node that has it.
    pub(super) fn resolved(self, world: &World) -> Self {
        let Self::Address(address) = self else {
            return self;
        };
        if let Some(owner) = world.addresses.get(&address) {
            return Self::Workload(owner.clone()).at(address);
        }
        let mut nodes = world.nodes.values();
        match nodes.find(|node| node.addresses.contains(&address)) {
            Some(node) => Self::Node(node.name.clone()).at(address),
            None => self,
        }
    }

    /// Whose policies have a say: a workload's always, a node's if some policy selects it.
    pub(crate) fn subject(&self, world: &World) -> Option<SubjectName> {
        match self {
            Self::Workload(name) => Some(name.clone().into()),
            Self::Node(name) => {
                let node = world.nodes.get(name)?;
                is_selected(world, node).then(|| SubjectName::Node(name.clone()))
            }
            Self::At(name, _) => name.subject(world),
            Self::Address(_) | Self::Service(_) => None,
        }
    }

    pub(super) fn workload(&self) -> Option<&ObjectName> {
        match self {
            Self::Workload(name) => Some(name),
            Self::At(name, _) => name.workload(),
            Self::Node(_) | Self::Address(_) | Self::Service(_) => None,
        }
    }

    pub(super) fn is_service(&self) -> bool {
        match self {
            Self::Service(_) => true,
            Self::At(name, _) => name.is_service(),
            Self::Workload(_) | Self::Node(_) | Self::Address(_) => false,
        }
    }

    /// The node whose own stack sends what this end sends.
    pub(super) fn node_spoken_for<'a>(&'a self, world: &'a World) -> Option<&'a str> {
        match self {
            Self::Node(name) => Some(name),
            Self::Workload(name) => world
                .workloads
                .get(name)
                .filter(|workload| !workload.owns_its_addresses())
                .and_then(|workload| workload.node.as_deref()),
            Self::At(name, _) => name.node_spoken_for(world),
            Self::Address(_) | Self::Service(_) => None,
        }
    }

    pub(super) fn node_of_workload<'a>(&self, world: &'a World) -> Option<&'a str> {
        self.workload()
            .and_then(|name| world.workloads.get(name))?
            .node
            .as_deref()
    }

    /// Those that it stands for.
    pub(super) fn addresses(&self, world: &World) -> Result<BTreeSet<IpAddr>, ConnectionError> {
        let of_node = |name: &str| world.nodes.get(name).map(|node| node.addresses.clone());
        let addresses = match self {
            Self::Address(address) | Self::At(_, address) => [*address].into(),
            Self::Node(name) => of_node(name).ok_or_else(|| self.unknown())?,
            Self::Workload(name) => {
                let workload = world.workloads.get(name).ok_or_else(|| self.unknown())?;
                addresses_of(world, workload)
            }
            Self::Service(name) => {
                let service = world.services.get(name).ok_or_else(|| self.unknown())?;
                service.addresses.clone()
            }
        };
        if addresses.is_empty() {
            return Err(ConnectionError::NoAddress {
                end: self.to_string(),
            });
        }
        Ok(addresses)
    }

    /// With the address, where only one is meant.
    pub(super) fn described(&self) -> String {
        match self {
            Self::At(name, address) => format!("{name} ({address})"),
            Self::Workload(_) | Self::Node(_) | Self::Service(_) | Self::Address(_) => {
                self.to_string()
            }
        }
    }

    fn unknown(&self) -> ConnectionError {
        let (seen, near) = (self.to_string(), None);
        match self {
            Self::Node(_) => ConnectionError::UnknownNode { seen, near },
            Self::Service(_) => ConnectionError::UnknownService { seen, near },
            Self::Workload(_) | Self::Address(_) => ConnectionError::UnknownWorkload { seen, near },
            Self::At(name, _) => name.unknown(),
        }
    }
}

/// A workload on its node's network need not list the node's addresses to have them.
pub(crate) fn addresses_of(world: &World, workload: &Workload) -> BTreeSet<IpAddr> {
    let node = workload
        .node
        .as_ref()
        .and_then(|name| world.nodes.get(name));
    match node {
        Some(node) if workload.addresses.is_empty() && !workload.owns_its_addresses() => {
            node.addresses.clone()
        }
        _ => workload.addresses.clone(),
    }
}

/// What such an address is in a packet. Nobody has it as it is written.
fn mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

fn is_selected(world: &World, node: &Node) -> bool {
    world
        .tier_policies
        .values()
        .any(|policy| match &policy.subjects {
            Subjects::Nodes(selector) => matching::selects(selector, &node.labels),
            Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_) => false,
        })
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name) => name.fmt(f),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Address(address) => address.fmt(f),
            Self::At(name, _) => name.fmt(f),
        }
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
