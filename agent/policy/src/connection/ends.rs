//! The ends of a connection, as people name them, and the addresses that stand for them.

use std::{collections::BTreeSet, fmt, net::IpAddr};

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
        if let Ok(address) = text.parse() {
            return Self::from_address(world, address, text);
        }
        let malformed = || ConnectionError::End {
            seen: text.to_owned(),
        };
        let (namespace, name) = text.split_once('/').ok_or_else(malformed)?;
        if let ("service", Some((namespace, name))) = (namespace, name.split_once('/')) {
            return Self::service(world, ObjectName::new(namespace, name), text);
        }
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(malformed());
        }
        let workload = ObjectName::new(namespace, name);
        if world.workloads.contains_key(&workload) {
            return Ok(Self::Workload(workload));
        }
        let seen = text.to_owned();
        if namespace == "node" {
            if world.nodes.contains_key(name) {
                return Ok(Self::Node(name.to_owned()));
            }
            let known = world.nodes.keys().map(|node| format!("node/{node}"));
            return Err(ConnectionError::UnknownNode {
                near: nearest(text, known),
                seen,
            });
        }
        let known = world.workloads.keys().map(ToString::to_string);
        Err(ConnectionError::UnknownWorkload {
            near: nearest(text, known),
            seen,
        })
    }

    fn service(world: &World, name: ObjectName, text: &str) -> Result<Self, ConnectionError> {
        if world.services.contains_key(&name) {
            return Ok(Self::Service(name));
        }
        let known = world.services.keys().map(|name| format!("service/{name}"));
        Err(ConnectionError::UnknownService {
            near: nearest(text, known),
            seen: text.to_owned(),
        })
    }

    fn from_address(world: &World, address: IpAddr, text: &str) -> Result<Self, ConnectionError> {
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let seen = text.to_owned();
            return Err(ConnectionError::MappedAddress { seen, v4 });
        }
        Ok(Self::Address(address).resolved(world))
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
    pub(super) fn subject(&self, world: &World) -> Option<SubjectName> {
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
