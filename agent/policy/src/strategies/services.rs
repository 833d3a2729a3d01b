//! Services over the alphabets: few addresses and ports, so that some frontends are shared.

use proptest::{collection::vec, option, prelude::*, sample};

use super::alphabet::{NAMESPACES, address, label, port, port_name, protocol, source};
use crate::model::{Backend, ObjectName, PortName, Service, ServicePort};

/// A Service in one of the first `namespaces` namespaces.
pub(super) fn service(namespaces: usize) -> impl Strategy<Value = Service> {
    let namespace = (0..namespaces.clamp(1, NAMESPACES.len()))
        .prop_map(|index| NAMESPACES.get(index).copied().unwrap_or_default());
    (
        (namespace, sample::select(vec!["s0", "s1", "s2"])),
        option::weighted(0.9, label()),
        vec(address(), 0..=3),
        vec(service_port(), 1..=2),
        prop::bool::weighted(0.3),
        option::weighted(0.5, vec((any::<sample::Index>(), address(), port()), 1..=3)),
        option::weighted(0.3, vec((any::<sample::Index>(), address(), port()), 1..=3)),
    )
        .prop_map(
            |((namespace, name), selector, addresses, ports, publish_not_ready, last, by_hand)| {
                let backend = |(index, address, number): (sample::Index, _, _)| {
                    let port = ports.get(index.index(ports.len()))?;
                    Some(Backend {
                        service_port: port.port,
                        protocol: port.protocol,
                        address,
                        port: number,
                    })
                };
                Service {
                    name: ObjectName::new(namespace, name),
                    selector,
                    addresses: addresses.into_iter().collect(),
                    cluster: [].into(),
                    other_proxy: false,
                    by_hand: by_hand.into_iter().flatten().filter_map(backend).collect(),
                    last: last.into_iter().flatten().filter_map(backend).collect(),
                    ports,
                    publish_not_ready,
                    source: source(),
                }
            },
        )
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let target = prop_oneof![
        2 => port().prop_map(PortName::Number),
        1 => port_name().prop_map(PortName::Name),
    ];
    (protocol(), port(), target, option::weighted(0.4, port())).prop_map(
        |(protocol, port, target, node_port)| ServicePort {
            name: None,
            protocol,
            port,
            target,
            node_port,
        },
    )
}
