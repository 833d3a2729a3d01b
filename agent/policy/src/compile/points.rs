//! Where answers may change in the space of addresses, and who is at each of these places.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use agent_common::table::{THIS_NODE, WORLD};
use ipnet::{IpNet, Ipv4Net};

use crate::{
    compact::compact,
    compile::{
        blocks::{Blocks, Held, outwards},
        classes::{Base, Class, Classes},
        lists::PeerLists,
        ports::NamedPorts,
        services::{Backends, FrontendPort, Frontends},
    },
    compiled::host_prefix,
    model::{ObjectName, Service, World},
};

/// Where too many places are to be looked at one by one, all are.
const MANY: usize = 2_000;

#[derive(Debug)]
pub(super) struct Points {
    pub(super) blocks: Blocks,
    pub(super) classes: Classes,
    hosts: BTreeMap<IpAddr, Host>,
    places: BTreeMap<IpNet, Point>,
    /// Services with a backend at an address.
    served_by: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
}

/// An address that some object has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Host {
    nodes: BTreeSet<String>,
    names: BTreeSet<String>,
    is_this_node: bool,
    is_owned: bool,
    frontends: BTreeMap<ObjectName, BTreeMap<FrontendPort, Backends>>,
}

/// A prefix from which on another class may hold.
#[derive(Debug, Default)]
struct Point {
    base: Arc<Base>,
    /// With [`THIS_NODE`] beside it.
    identity: u32,
}

/// Where something has changed.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) hosts: BTreeSet<IpAddr>,
    pub(super) prefixes: BTreeSet<IpNet>,
}

/// What everybody may be asked.
pub(super) struct Facts<'a> {
    pub(super) world: &'a World,
    pub(super) lists: &'a PeerLists,
    /// Names of ports that egress rules use: peers that resolve them differently are told apart.
    pub(super) port_names: &'a BTreeMap<String, usize>,
}

impl Points {
    pub(super) fn new() -> Self {
        Self {
            blocks: Blocks::default(),
            classes: Classes::new(),
            hosts: BTreeMap::new(),
            places: BTreeMap::new(),
            served_by: BTreeMap::new(),
        }
    }

    pub(super) fn own(&mut self, address: IpAddr, is_owned: bool) {
        self.change(address, |host| host.is_owned = is_owned);
    }

    pub(super) fn this_node(&mut self, address: IpAddr, is_this_node: bool) {
        self.change(address, |host| host.is_this_node = is_this_node);
    }

    pub(super) fn node(&mut self, address: IpAddr, name: &str, is_there: bool) {
        self.change(address, |host| toggle(&mut host.nodes, name, is_there));
    }

    pub(super) fn name(&mut self, address: IpAddr, name: &str, is_there: bool) {
        self.change(address, |host| toggle(&mut host.names, name, is_there));
    }

    /// Puts the frontends of a Service in the place of those it had; gives the addresses of both.
    pub(super) fn serve(
        &mut self,
        service: &ObjectName,
        old: &Frontends,
        new: &Frontends,
    ) -> BTreeSet<IpAddr> {
        let backends = |frontends: &Frontends| -> BTreeSet<IpAddr> {
            let ports = frontends.values().flat_map(BTreeMap::values);
            ports.flatten().map(|(address, _)| *address).collect()
        };
        for address in backends(old) {
            if let Some(services) = self.served_by.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.served_by.remove(&address);
                }
            }
        }
        for address in backends(new) {
            let services = self.served_by.entry(address).or_default();
            services.insert(service.clone());
        }
        let touched: BTreeSet<IpAddr> = old.keys().chain(new.keys()).copied().collect();
        for address in &touched {
            self.change(*address, |host| match new.get(address) {
                Some(ports) => {
                    host.frontends.insert(service.clone(), ports.clone());
                }
                None => {
                    host.frontends.remove(service);
                }
            });
        }
        touched
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Host)) {
        let host = self.hosts.entry(address).or_default();
        change(host);
        if *host == Host::default() {
            self.hosts.remove(&address);
        }
    }

    /// Looks again at all that may have changed, and puts the identities into `prefixes`.
    pub(super) fn refresh(
        &mut self,
        facts: &Facts<'_>,
        dirty: Dirty,
        prefixes: &mut BTreeMap<IpNet, u32>,
    ) -> BTreeSet<IpNet> {
        let Dirty {
            hosts,
            prefixes: mut looked_at,
        } = dirty;
        looked_at.extend(hosts.into_iter().map(host_prefix));
        let mut changed = BTreeSet::new();
        for place in &looked_at {
            if self.is_point(place) {
                self.places.entry(*place).or_default();
            } else if let Some(gone) = self.places.remove(place) {
                self.classes.give_back(gone.identity & !THIS_NODE);
                if prefixes.remove(place).is_some() {
                    changed.insert(*place);
                }
            }
        }
        // Bases first: what is translated is known by the bases of its backends.
        let mut moved = looked_at.clone();
        for root in roots(&looked_at) {
            self.rebase(facts, root, &mut moved);
        }
        let served = self.served(facts.world, &moved);
        let mut fronts: BTreeSet<IpNet> = served
            .iter()
            .flat_map(|service| &service.addresses)
            .copied()
            .map(host_prefix)
            .collect();
        let by_nodes =
            |service: &&Service| service.ports.iter().any(|port| port.node_port.is_some());
        if served.iter().any(by_nodes) {
            let nodes = self.hosts.iter().filter(|(_, host)| !host.nodes.is_empty());
            fronts.extend(nodes.map(|(address, _)| host_prefix(*address)));
        }
        moved.extend(
            fronts
                .into_iter()
                .filter(|front| self.places.contains_key(front)),
        );
        for place in &moved {
            self.identify(place);
        }
        for root in roots(&moved) {
            self.keep(root, prefixes, &mut changed);
        }
        if changed.len() > MANY {
            // All was looked at: this takes no longer.
            self.blocks.compact();
            compact(&mut self.hosts);
            compact(&mut self.places);
            compact(prefixes);
        }
        changed
    }

    /// Services with a backend whose base may be another: at a place that moved, or below one and
    /// no place itself, as what served last and is gone.
    fn served<'w>(&self, world: &'w World, moved: &BTreeSet<IpNet>) -> Vec<&'w Service> {
        let mut names: BTreeSet<&ObjectName> = BTreeSet::new();
        for root in roots(moved) {
            for (address, services) in root.addresses(&self.served_by) {
                let place = host_prefix(*address);
                if moved.contains(&place) || !self.places.contains_key(&place) {
                    names.extend(services);
                }
            }
        }
        let services = names
            .into_iter()
            .filter_map(|name| world.services.get(name));
        services.map(AsRef::as_ref).collect()
    }

    fn is_point(&self, place: &IpNet) -> bool {
        let is_host = place.prefix_len() == place.max_prefix_len();
        self.blocks.is_border(place) || (is_host && self.hosts.contains_key(&place.addr()))
    }

    /// Works out the bases of a prefix and of all that it covers.
    fn rebase(&mut self, facts: &Facts<'_>, root: Root, moved: &mut BTreeSet<IpNet>) {
        let mut held = match root {
            Root::All => Held::default(),
            Root::Below(root) => self.blocks.around(&root),
        };
        let mut stack: Vec<IpNet> = Vec::new();
        let mut fresh = Vec::new();
        // Most of many places have one of a few bases.
        let mut known: HashSet<Arc<Base>> = HashSet::new();
        for (place, point) in root.range(&self.places) {
            while let Some(left) = stack.pop_if(|outer| !outer.contains(place)) {
                held.leave(self.blocks.at(&left));
            }
            if self.blocks.is_border(place) {
                held.enter(self.blocks.at(place));
                stack.push(*place);
            }
            let base = self.base(facts, place, &held);
            if base != *point.base {
                let base = known.get(&base).map_or_else(|| Arc::new(base), Arc::clone);
                known.insert(Arc::clone(&base));
                fresh.push((*place, base));
            }
        }
        for (place, base) in fresh {
            if let Some(point) = self.places.get_mut(&place) {
                point.base = base;
            }
            moved.insert(place);
        }
    }

    fn base(&self, facts: &Facts<'_>, place: &IpNet, held: &Held) -> Base {
        let mut lists: Vec<u32> = held.lists().collect();
        let mut named = NamedPorts::default();
        let is_host = place.prefix_len() == place.max_prefix_len();
        if let Some(host) = self.hosts.get(&place.addr()).filter(|_| is_host) {
            let Facts {
                world,
                lists: peers,
                port_names,
            } = facts;
            let owner = world
                .addresses
                .get(&place.addr())
                .and_then(|name| world.workloads.get(name));
            if let Some(owner) = owner {
                lists.extend(peers.of_workload(owner));
                named = NamedPorts::of(owner, |name| port_names.contains_key(name));
            }
            lists.extend(host.nodes.iter().flat_map(|node| peers.of_node(node)));
            lists.extend(host.names.iter().flat_map(|name| peers.of_name(name)));
            if host.is_this_node {
                lists.extend(&peers.own_node);
            }
        }
        lists.sort_unstable();
        lists.dedup();
        Base { lists, named }
    }

    /// Gives a place the number of its class.
    fn identify(&mut self, place: &IpNet) {
        let Some(point) = self.places.get(place) else {
            return;
        };
        let is_host = place.prefix_len() == place.max_prefix_len();
        let host = self.hosts.get(&place.addr()).filter(|_| is_host);
        let mut frontends: BTreeMap<FrontendPort, Backends> = BTreeMap::new();
        for (port, backends) in host
            .iter()
            .flat_map(|host| host.frontends.values().flatten())
        {
            frontends.entry(*port).or_default().extend(backends);
        }
        let class = Arc::new(Class {
            base: Arc::clone(&point.base),
            frontends: frontends
                .into_iter()
                .map(|(port, backends)| (port, self.bases_of(&backends)))
                .collect(),
        });
        let old = point.identity & !THIS_NODE;
        let mut identity = self.classes.take(&class);
        self.classes.give_back(old);
        if host.is_some_and(|host| host.is_this_node) {
            identity |= THIS_NODE;
        }
        let base = self.classes.get(identity & !THIS_NODE);
        let base = base.map(|class| Arc::clone(&class.base));
        if let Some(point) = self.places.get_mut(place) {
            point.identity = identity;
            // The same, once for the whole class.
            if let Some(base) = base {
                point.base = base;
            }
        }
    }

    /// In the order of addresses, each distinct one once: more of the same changes no answer.
    fn bases_of(&self, backends: &Backends) -> Vec<(Arc<Base>, u16)> {
        let mut known = BTreeSet::new();
        let mut bases = Vec::new();
        for (address, port) in backends {
            let one = (self.base_at(*address), *port);
            if known.insert(one.clone()) {
                bases.push(one);
            }
        }
        bases
    }

    /// The classes of the addresses at which those who share them meet: loopback's, and this node's.
    pub(super) fn of_this_node(&self, this_node: &BTreeSet<IpAddr>) -> BTreeMap<u32, Arc<Class>> {
        let loopback = [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            host_prefix(Ipv6Addr::LOCALHOST.into()),
        ];
        let places = loopback
            .into_iter()
            .chain(this_node.iter().copied().map(host_prefix));
        let mut found = BTreeMap::new();
        for place in places {
            let around = self.point_at(place).map_or(WORLD, |point| point.identity);
            let within = Root::Below(place).range(&self.places);
            let identities = within.map(|(_, point)| point.identity);
            for identity in std::iter::once(around).chain(identities) {
                let identity = identity & !THIS_NODE;
                let class = self.classes.get(identity).cloned().unwrap_or_default();
                found.insert(identity, class);
            }
        }
        found
    }

    fn base_at(&self, address: IpAddr) -> Arc<Base> {
        self.point_at(host_prefix(address))
            .map(|point| Arc::clone(&point.base))
            .unwrap_or_default()
    }

    /// The point that holds at a prefix: its own, or else that of the narrowest around it.
    fn point_at(&self, place: IpNet) -> Option<&Point> {
        std::iter::once(place)
            .chain(outwards(&place).rev())
            .find_map(|place| self.places.get(&place))
    }

    /// A prefix stands in the tables only if the prefix around it says otherwise.
    fn keep(&self, root: Root, prefixes: &mut BTreeMap<IpNet, u32>, changed: &mut BTreeSet<IpNet>) {
        let around = match root {
            Root::All => WORLD,
            Root::Below(root) => outwards(&root)
                .rev()
                .find_map(|place| self.places.get(&place))
                .map_or(WORLD, |point| point.identity),
        };
        let mut stack: Vec<(IpNet, u32)> = Vec::new();
        for (place, point) in root.range(&self.places) {
            while stack
                .last()
                .is_some_and(|(outer, _)| !outer.contains(place))
            {
                stack.pop();
            }
            let outer = stack.last().map_or(around, |(_, identity)| *identity);
            let before = if point.identity == outer {
                prefixes.remove(place)
            } else {
                prefixes.insert(*place, point.identity)
            };
            let after = (point.identity != outer).then_some(point.identity);
            if before != after {
                changed.insert(*place);
            }
            stack.push((*place, point.identity));
        }
    }
}

/// From where on to look.
#[derive(Clone, Copy)]
enum Root {
    All,
    Below(IpNet),
}

impl Root {
    fn range(self, points: &BTreeMap<IpNet, Point>) -> impl Iterator<Item = (&IpNet, &Point)> {
        // The order of prefixes puts each before all that it covers, and these in a row.
        let from = match self {
            Self::All => std::ops::Bound::Unbounded,
            Self::Below(root) => std::ops::Bound::Included(root),
        };
        points
            .range((from, std::ops::Bound::Unbounded))
            .take_while(move |(place, _)| match self {
                Self::All => true,
                Self::Below(root) => root.contains(*place),
            })
    }

    fn addresses<T>(self, all: &BTreeMap<IpAddr, T>) -> impl Iterator<Item = (&IpAddr, &T)> {
        match self {
            Self::All => all.range::<IpAddr, _>(..),
            Self::Below(root) => all.range(root.network()..=root.broadcast()),
        }
    }
}

/// The widest of the places: looking below them looks at all.
fn roots(places: &BTreeSet<IpNet>) -> Vec<Root> {
    if places.len() > MANY {
        return vec![Root::All];
    }
    let mut roots: Vec<IpNet> = Vec::new();
    for place in places {
        if roots.last().is_none_or(|root| !root.contains(place)) {
            roots.push(*place);
        }
    }
    roots.into_iter().map(Root::Below).collect()
}

fn toggle(set: &mut BTreeSet<String>, name: &str, is_there: bool) {
    if is_there {
        set.insert(name.to_owned());
    } else {
        set.remove(name);
    }
}
