//! What everything generated is made of: few values, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample};

use crate::model::{
    Denied, Labels, Mode, NamedPort, Protocol, Requirement, Selector, Source, Terms,
};

pub(super) const NAMESPACES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
pub(super) const NODES: [&str; 2] = ["one", "two"];
/// Workloads live in `10.1.0.0/28` and `fd01::/124`.
pub(super) const SLOTS: u8 = 16;
pub(super) const PORT_NAMES: [&str; 2] = ["http", "dns"];
pub(super) const PORTS: [u16; 8] = [1, 79, 80, 81, 1023, 1024, 8080, 65535];
/// A name, names below it, and one beside it that ends alike.
pub(super) const DOMAINS: [&str; 4] = [
    "example.org",
    "a.example.org",
    "b.a.example.org",
    "notexample.org",
];
const KEYS: [&str; 3] = ["app", "team", "env"];
/// The empty value is a value: a present key with it is not an absent key.
const VALUES: [&str; 3] = ["a", "b", ""];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

pub(super) fn source() -> Source {
    Source {
        file: "generated".into(),
        line: 1,
    }
}

pub(super) fn v4(slot: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, slot).into()
}

pub(super) fn v6(slot: u8) -> IpAddr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, slot.into()).into()
}

/// The addresses of a node: the first is number 1.
pub(super) fn of_node(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 0, 0, number).into(),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
    ]
}

/// Addresses that lead to nobody.
pub(super) fn outside() -> [IpAddr; 2] {
    [
        Ipv4Addr::new(203, 0, 113, 9).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into(),
    ]
}

/// Of Services for the most part, and of anybody now and then.
pub(super) fn address() -> impl Strategy<Value = IpAddr> {
    let of_services = (any::<bool>(), 32u8..35);
    let of_workloads = (any::<bool>(), 0..SLOTS);
    let of_nodes = (0..2usize, 1u8..=2);
    prop_oneof![
        5 => of_services.prop_map(|(ipv6, slot)| if ipv6 { v6(slot) } else { v4(slot) }),
        2 => of_workloads.prop_map(|(ipv6, slot)| if ipv6 { v6(slot) } else { v4(slot) }),
        1 => of_nodes.prop_map(|(family, number)| if family == 0 { of_node(number)[0] } else { of_node(number)[1] }),
        1 => sample::select(outside().to_vec()),
    ]
}

/// A block around an address, its bits beyond the width cleared.
pub(super) fn subnet(address: IpAddr, width: u8) -> IpNet {
    IpNet::new(address, width)
        .unwrap_or(IpNet::from(address))
        .trunc()
}

pub(super) fn port() -> impl Strategy<Value = u16> {
    sample::select(&PORTS[..])
}

pub(super) fn port_name() -> impl Strategy<Value = String> {
    sample::select(&PORT_NAMES[..]).prop_map(str::to_owned)
}

pub(super) fn protocol() -> impl Strategy<Value = Protocol> {
    sample::select(&PROTOCOLS[..])
}

pub(super) fn named_port() -> impl Strategy<Value = NamedPort> {
    (port_name(), port(), protocol()).prop_map(|(name, port, protocol)| NamedPort {
        name,
        port,
        protocol,
    })
}

pub(super) fn labels() -> impl Strategy<Value = Labels> {
    let value = option::weighted(0.6, sample::select(&VALUES[..]));
    [value.clone(), value.clone(), value].prop_map(|values| {
        let present =
            |(key, value): (&str, Option<&str>)| Some((key.to_owned(), value?.to_owned()));
        KEYS.into_iter().zip(values).filter_map(present).collect()
    })
}

/// Everything, half of the time: two narrow selectors in a row select nobody.
pub(super) fn wide_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![Just(Selector::default()), selector()]
}

/// One label, or none.
pub(super) fn label() -> impl Strategy<Value = Labels> {
    let one = (sample::select(&KEYS[..]), sample::select(&VALUES[..]));
    option::weighted(0.5, one).prop_map(|one| {
        one.into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    })
}

pub(super) fn selector() -> impl Strategy<Value = Selector> {
    let values = || {
        sample::subsequence(&VALUES[..], 1..VALUES.len())
            .prop_map(|values| values.into_iter().map(str::to_owned).collect())
    };
    let key = || sample::select(&KEYS[..]).prop_map(str::to_owned);
    let requirement = prop_oneof![
        3 => (key(), values()).prop_map(|(key, values)| Requirement::In { key, values }),
        2 => (key(), values()).prop_map(|(key, values)| Requirement::NotIn { key, values }),
        1 => key().prop_map(|key| Requirement::Exists { key }),
        1 => key().prop_map(|key| Requirement::DoesNotExist { key }),
    ];
    let requirements = prop_oneof![
        1 => Just(Vec::new()),
        3 => requirement.clone().prop_map(|requirement| vec![requirement]),
        1 => vec(requirement, 2),
    ];
    requirements.prop_map(|requirements| Selector { requirements })
}

pub(super) fn terms() -> impl Strategy<Value = Terms> {
    let mode = prop_oneof![
        6 => Just(Mode::Enforce),
        1 => Just(Mode::Audit),
        1 => Just(Mode::Staged),
    ];
    let denied = prop_oneof![Just(Denied::Drop), Just(Denied::Reject)];
    (mode, denied).prop_map(|(mode, denied)| Terms {
        mode,
        denied,
        ..Terms::default()
    })
}
