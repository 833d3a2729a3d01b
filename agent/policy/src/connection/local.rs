//! Two that share the addresses of their node, and find each other's socket over loopback (§6.7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::End;
use crate::model::{Workload, World};

/// The addresses that every node has for itself.
pub(super) const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Whether both ends are the same workload, at addresses that lead to it alone.
pub(super) fn is_itself(world: &World, from: &End, to: &End) -> bool {
    from.workload() == to.workload()
        && workload(world, from).is_some_and(Workload::owns_its_addresses)
}

/// Whether two workloads share the addresses of one node.
pub(crate) fn share_a_node(world: &World, from: &End, to: &End) -> bool {
    let (Some(from), Some(to)) = (workload(world, from), workload(world, to)) else {
        return false;
    };
    let share = [from, to].iter().all(|one| !one.owns_its_addresses());
    share && from.node == to.node
}

/// Whether they find each other's socket at an address.
pub(super) fn meet(world: &World, from: &End, to: &End, address: IpAddr) -> bool {
    let of_node = || {
        let name = workload(world, from)?.node.as_ref()?;
        Some(world.nodes.get(name)?.addresses.contains(&address))
    };
    share_a_node(world, from, to) && (address.is_loopback() || of_node().unwrap_or_default())
}

fn workload<'w>(world: &'w World, end: &End) -> Option<&'w Workload> {
    let workload = world.workloads.get(end.workload()?)?;
    Some(workload)
}
