//! Who there is to be asked about, and at which ports; and worlds with more of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample};

use crate::{
    connection::{End, LOOPBACK, Port, addresses_of},
    model::{IcmpVersion, ObjectName, World},
    strategies::Borders,
};

/// Those who have a name in a world, with their addresses.
pub(crate) type Inventory = BTreeMap<End, BTreeSet<IpAddr>>;

/// With those of loopback, where somebody is to be found there.
pub(crate) fn inventory(world: &World) -> Inventory {
    let here = |mut addresses: BTreeSet<IpAddr>| {
        addresses.extend(LOOPBACK);
        addresses
    };
    let workloads = world.workloads.values().map(|one| {
        let mut addresses = addresses_of(world, one);
        if !one.owns_its_addresses() {
            addresses = here(addresses);
        }
        (End::Workload(one.name.clone()), addresses)
    });
    let nodes = world.nodes.values();
    let nodes = nodes.map(|one| (End::Node(one.name.clone()), here(one.addresses.clone())));
    let services = world.services.values();
    let services = services.map(|one| (End::Service(one.name.clone()), one.addresses.clone()));
    workloads.chain(nodes).chain(services).collect()
}

/// Ports between which nothing changes, of each protocol that counts; of one family.
pub(crate) fn ports(worlds: &[&World], is_v4: bool) -> Vec<Port> {
    let (mut numbers, mut icmp) = (BTreeSet::new(), BTreeSet::new());
    for world in worlds {
        let borders = Borders::of(world);
        numbers.extend(borders.ports);
        numbers.extend(borders.frontends.iter().map(|(_, _, port)| *port));
        icmp.extend(borders.icmp);
    }
    let beside: Vec<u16> = numbers
        .iter()
        .flat_map(|port| [port.saturating_sub(1), port.saturating_add(1)])
        .collect();
    numbers.extend(beside);
    let version = if is_v4 {
        IcmpVersion::V4
    } else {
        IcmpVersion::V6
    };
    let of = |protocol, numbers: &BTreeSet<u16>| {
        let numbers = numbers.iter().copied();
        numbers
            .map(|number| Port { protocol, number })
            .collect::<Vec<_>>()
    };
    let transports = [6, 17, 132].map(|protocol| of(protocol, &numbers));
    let others = [47, 0].map(|protocol| Port {
        protocol,
        number: 0,
    });
    let icmp = of(version.number(), &icmp);
    transports
        .into_iter()
        .flatten()
        .chain(icmp)
        .chain(others)
        .collect()
}

/// Addresses that nobody has, at the borders of all blocks; and of loopback, for whoever is there and is
/// nobody known.
pub(crate) fn outside<'b>(
    worlds: &[&World],
    blocks: impl IntoIterator<Item = &'b IpNet>,
) -> BTreeSet<IpAddr> {
    let mut all: BTreeSet<IpAddr> = ["8.8.8.8", "2600::1", "192.168.7.7", "fe80::7"]
        .map(|text| text.parse().unwrap())
        .into();
    for world in worlds {
        all.extend(Borders::of(world).peers);
    }
    all.extend(blocks.into_iter().flat_map(|block| {
        let (first, last) = (block.network(), block.broadcast());
        [beside(first, -1), first, last, beside(last, 1)]
    }));
    for addresses in worlds
        .iter()
        .flat_map(|world| inventory(world).into_values())
    {
        all.retain(|address| !addresses.contains(address));
    }
    // Processes that are no workload.
    all.extend(LOOPBACK);
    all
}

fn beside(address: IpAddr, step: i8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from_bits(address.to_bits().saturating_add_signed(step.into())).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits().saturating_add_signed(step.into())).into()
        }
    }
}

/// What gives some workloads and nodes more addresses.
pub(crate) fn more_addresses() -> impl Strategy<Value = Vec<(bool, sample::Index, u8)>> {
    vec(
        (prop::bool::weighted(0.8), any::<sample::Index>(), 0u8..16),
        0..=4,
    )
}

/// Worlds have one address a family for each: most of what is wrong with several goes unseen there.
pub(crate) fn with_more_addresses(world: &mut World, more: &[(bool, sample::Index, u8)]) {
    for (is_workload, index, slot) in more {
        if *is_workload {
            let names: Vec<ObjectName> = world.workloads.keys().cloned().collect();
            let address = IpAddr::from([10, 1, 0, *slot]);
            let mut workload = world.workloads[index.get(&names)].as_ref().clone();
            if !world.addresses.contains_key(&address) && workload.owns_its_addresses() {
                workload.addresses.insert(address);
                let change =
                    crate::model::Change::Workload(workload.name.clone(), Some(workload.into()));
                world.apply(&change);
            }
        } else {
            let names: Vec<String> = world.nodes.keys().cloned().collect();
            let name = index.get(&names).clone();
            let mut node = world.nodes[&name].as_ref().clone();
            let number = u8::from(name != names[0]);
            node.addresses
                .insert([10, 0, 1, slot % 2 + 2 * number].into());
            world.nodes.insert(name, node.into());
        }
    }
}
