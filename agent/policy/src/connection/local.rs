//! Two that share the addresses of their node, and find each other's socket over loopback (§6.7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::End;
use crate::model::{Protocol, Workload, World};

/// The addresses that every node has for itself.
pub(crate) const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The protocols whose sockets are told.
pub(crate) const TOLD: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Whether both ends are the same workload, at addresses that lead to it alone.
pub(super) fn is_itself(world: &World, from: &End, to: &End) -> bool {
    from.workload() == to.workload()
        && workload(world, from).is_some_and(Workload::owns_its_addresses)
}

/// Whether it shares the addresses of a node, or is one.
pub(super) fn is_on_loopback(world: &World, end: &End) -> bool {
    loopback_of(world, end).is_some()
}

/// Whether both share the addresses of one node: workloads, and the node itself.
pub(super) fn share_a_node(world: &World, from: &End, to: &End) -> bool {
    let ours = loopback_of(world, from);
    ours.is_some() && ours == loopback_of(world, to)
}

/// Whether the two are workloads that find each other's socket at an address, by a protocol.
pub(super) fn meet(world: &World, from: &End, to: &End, address: IpAddr, protocol: u8) -> bool {
    let of_node = || {
        let name = workload(world, from)?.node.as_ref()?;
        Some(world.nodes.get(name)?.addresses.contains(&address))
    };
    TOLD.map(Protocol::number).contains(&protocol)
        && [from, to].map(|end| workload(world, end).is_some()) == [true; 2]
        && share_a_node(world, from, to)
        && (address.is_loopback() || of_node().unwrap_or_default())
}

/// The loopback interface of a node; `None` if nobody named it.
#[derive(PartialEq, Eq)]
struct Loopback<'w>(Option<&'w str>);

fn loopback_of<'w>(world: &'w World, end: &'w End) -> Option<Loopback<'w>> {
    match end {
        End::Node(name) => Some(Loopback(Some(name))),
        End::Workload(name) => {
            let workload = world.workloads.get(name)?;
            let node = || Loopback(workload.node.as_deref());
            (!workload.owns_its_addresses()).then(node)
        }
        End::At(name, _) => loopback_of(world, name),
        End::Service(_) | End::Address(_) => None,
    }
}

fn workload<'w>(world: &'w World, end: &End) -> Option<&'w Workload> {
    let workload = world.workloads.get(end.workload()?)?;
    Some(workload)
}
