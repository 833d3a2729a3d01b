//! What a change means for the ways that lead through Services and by several addresses.

use super::*;
use crate::model::{PortName, Protocol, Service, ServicePort};

/// `service/shop/api` in front of `shop/api`, at some addresses and on a port of the nodes.
fn with_service(mut world: World, addresses: &[&str]) -> World {
    let service = Service {
        name: ObjectName::new("shop", "api"),
        selector: Some([("app".to_owned(), "api".to_owned())].into()),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ports: vec![ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 80,
            target: PortName::Number(8080),
            node_port: Some(30080),
        }],
        publish_not_ready: false,
        cluster: [].into(),
        other_proxy: false,
        by_hand: [].into(),
        last: BTreeSet::new(),
        source: example::source(30),
    };
    world.apply(&Step::Service(service.name.clone(), Some(service.into())));
    world
}

fn from_web() -> Peers {
    Peers::listed(vec![Peer::Workloads {
        namespaces: NamespaceScope::Named("shop".to_owned()),
        workloads: example::is("web"),
    }])
}

fn lines(text: &str, arrow: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(arrow));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_a_backend_permits_now_is_permitted_through_the_service() {
    let world = |peers| with_service(with_rule(8080, peers), &["10.96.0.1"]);
    let text = text(&world(Peers::listed(Vec::new())), &world(from_web()));
    assert_eq!(
        lines(&text, "-> "),
        [
            "+ shop/app=web (1) -> shop/app=api (1): TCP/8080",
            "+ shop/app=web (1) -> shop/app=probe (1): TCP/30080",
            "+ shop/app=web (1) -> node/one, node/two: TCP/30080",
            "+ shop/app=web (1) -> service/shop/api: TCP/80",
        ],
        "{text}"
    );
}

#[test]
fn the_world_outside_may_reach_a_service() {
    let world = |peers| with_service(with_rule(8080, peers), &["10.96.0.1"]);
    let text = text(&world(from_web()), &world(Peers::Every));
    assert_eq!(
        lines(&text, "0.0.0.0/0 -> service/"),
        ["+ 0.0.0.0/0 -> service/shop/api: TCP/80"],
        "{text}"
    );
}

#[test]
fn where_not_all_addresses_are_meant_those_are_named_that_are() {
    let before = with_service(with_rule(8080, from_web()), &["10.96.0.2"]);
    let after = with_service(with_rule(8080, from_web()), &["10.96.0.1", "10.96.0.2"]);
    let text = text(&before, &after);
    assert_eq!(
        lines(&text, "shop/app=web (1) -> "),
        ["+ shop/app=web (1) -> service/shop/api at 10.96.0.1: every port"],
        "{text}"
    );
    let json = serde_json::to_value(Diff::new(&before, &after, Perspective::default())).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert!(
        rows.iter()
            .all(|row| row["to"]["addresses"] == serde_json::json!(["10.96.0.1"]))
    );
}

#[test]
fn an_address_that_stays_is_the_same_whatever_comes_before_it() {
    let move_to = |addresses: &[&str]| {
        let mut world = example::world();
        let api = example::workload("shop", "api", addresses);
        world.apply(&Step::Workload(api.name.clone(), Some(api.into())));
        world
    };
    let changed = |addresses: &[&str]| text(&move_to(&["10.1.0.5"]), &move_to(addresses));
    let moved = changed(&["10.1.0.7"]);
    assert!(moved.starts_with("no difference"), "{moved}");
    let more = changed(&["10.1.0.3", "10.1.0.5"]);
    assert_eq!(
        lines(&more, "-> shop/app=api"),
        [
            "+ shop/app=probe (1) -> shop/app=api (1) at 10.1.0.3: every port",
            "+ shop/app=web (1) -> shop/app=api (1) at 10.1.0.3: TCP/8080",
            "+ node/one -> shop/app=api (1) at 10.1.0.3: every port",
        ],
        "{more}"
    );
}
