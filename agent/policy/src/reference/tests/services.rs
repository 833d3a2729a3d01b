//! §2: frontends, backends, and what they amount to.

use super::*;
use crate::model::{Backend, ObjectName, PortName, Service, ServicePort};

/// `shop/shop` at 10.9.0.1:80 and at node port 30080, served at 8080 by `app` of `shop`.
fn service(app: &str) -> Service {
    Service {
        name: ObjectName::new("shop", "shop"),
        selector: Some([("app".to_owned(), app.to_owned())].into()),
        addresses: ["10.9.0.1".parse().unwrap(), "fd09::1".parse().unwrap()].into(),
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
        last: [].into(),
        source: example::source(1),
    }
}

/// Nobody may talk to `api` at 8080, and to nobody at 10.9.0.1 at 80 either.
fn strict(services: impl IntoIterator<Item = Service>) -> World {
    let mut policy = policy("p", Tier::Admin, every_workload());
    policy.egress = vec![
        TierRule {
            ports: tcp(8080),
            ..of_peer(TierAction::Deny, peers_with("api"))
        },
        TierRule {
            ports: tcp(80),
            ..of_peer(TierAction::Deny, block("10.9.0.1/32"))
        },
        TierRule {
            ports: tcp(9090),
            ..rule(TierAction::Deny)
        },
    ];
    let mut world = world([policy]);
    for service in services {
        world
            .services
            .insert(service.name.clone(), Arc::new(service));
    }
    world
}

fn workload<'w>(world: &'w mut World, name: &str) -> &'w mut Workload {
    let name = ObjectName::new("shop", name);
    Arc::make_mut(world.workloads.get_mut(&name).unwrap())
}

fn last(address: &str) -> Backend {
    Backend {
        service_port: 80,
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        port: 9090,
    }
}

/// §2.1, §2.3
#[test]
fn a_frontend_is_judged_by_who_serves_behind_it() {
    let world = strict([service("api")]);
    for frontend in [
        ("10.9.0.1", 80),
        ("fd09::1", 80),
        ("10.0.0.1", 30080),
        ("10.0.0.2", 30080),
    ] {
        let (peer, port) = frontend;
        let answer = egress(&world, "shop/web", peer, port);
        assert_eq!(answer, "Drop by p egress[0]", "{peer} {port}");
    }
    // Not a frontend: the node's port at the Service's address, another protocol, the other way.
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 30080),
        "Allow: NotIsolated"
    );
    assert_eq!(
        ingress(&world, "shop/web", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
    let udp = Question {
        protocol: UDP,
        ..question("shop/web", Direction::Egress, "10.9.0.1", 80)
    };
    assert_eq!(answer_to(&world, &udp), "Allow: NotIsolated");
    // What is said about the address of the Service means nothing.
    let world = strict([service("web")]);
    assert_eq!(
        egress(&world, "shop/api", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
}

/// §2.3
#[test]
fn every_backend_must_be_permitted_and_the_first_that_is_not_says_why() {
    let mut all = service("web");
    all.selector = Some([].into());
    let world = strict([all.clone()]);
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[0]"
    );

    all.ports[0].target = PortName::Number(9090);
    let mut world = strict([all]);
    let policy = world.tier_policies.values_mut().next().unwrap();
    let policy = Arc::make_mut(policy);
    policy
        .egress
        .insert(0, of_peer(TierAction::Accept, peers_with("api")));
    // The host's, 10.0.0.1, comes before the workloads'.
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[3]"
    );
    let backends = behind_frontend(
        &world,
        &question("shop/web", Direction::Egress, "10.9.0.1", 80),
    );
    let backends: Vec<_> = backends
        .iter()
        .map(|one| (one.peer.to_string(), one.port))
        .collect();
    let expected = ["10.0.0.1", "10.1.0.1", "10.1.0.2"].map(|peer| (peer.to_owned(), 9090));
    assert_eq!(backends, expected);
}

/// §2.2
#[test]
fn who_is_not_ready_serves_only_where_that_does_not_count() {
    let mut world = strict([service("api")]);
    workload(&mut world, "api").ready = false;
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[1]"
    );
    let mut published = service("api");
    published.publish_not_ready = true;
    world
        .services
        .insert(published.name.clone(), Arc::new(published));
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[0]"
    );
}

/// §2.2, §2.3
#[test]
fn without_backends_the_last_ones_count_and_without_those_the_address() {
    let mut idle = service("nobody");
    let world = strict([idle.clone()]);
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[1]"
    );
    assert_eq!(
        egress(&world, "shop/web", "fd09::1", 80),
        "Allow: NotIsolated"
    );

    idle.last = [last("10.1.0.7")].into();
    assert_eq!(
        egress(&strict([idle.clone()]), "shop/web", "10.9.0.1", 80),
        "Drop by p egress[2]"
    );
    // What served last over IPv4 says nothing about IPv6.
    assert_eq!(
        egress(&strict([idle.clone()]), "shop/web", "fd09::1", 80),
        "Allow: NotIsolated"
    );
    idle.selector = None;
    assert_eq!(
        egress(&strict([idle.clone()]), "shop/web", "10.9.0.1", 80),
        "Drop by p egress[2]"
    );
    // Who serves by hand does so now, beside whom the selector matches; at its own ports.
    idle.by_hand = [Backend {
        port: 9091,
        ..last("10.1.0.3")
    }]
    .into();
    assert_eq!(
        egress(&strict([idle.clone()]), "shop/web", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
    let mut mixed = service("web");
    mixed.by_hand = [last("10.1.0.7")].into();
    assert_eq!(
        egress(&strict([mixed.clone()]), "shop/api", "10.9.0.1", 80),
        "Drop by p egress[2]"
    );
    mixed.by_hand = [Backend {
        service_port: 81,
        ..last("10.1.0.7")
    }]
    .into();
    assert_eq!(
        egress(&strict([mixed]), "shop/api", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
    idle.by_hand = [].into();
    // Of another port, it is of no use to this one; and who serves now comes first.
    idle.last = [Backend {
        service_port: 81,
        ..last("10.1.0.7")
    }]
    .into();
    assert_eq!(
        egress(&strict([idle]), "shop/web", "10.9.0.1", 80),
        "Drop by p egress[1]"
    );
    let mut busy = service("web");
    busy.last = [last("10.1.0.7")].into();
    assert_eq!(
        egress(&strict([busy]), "shop/api", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
}

/// §2.2
#[test]
fn the_name_of_a_target_is_looked_up_on_each_backend() {
    let mut named = service("api");
    named.ports[0].target = PortName::Name("http".to_owned());
    let mut world = strict([named]);
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[0]"
    );
    workload(&mut world, "api").ports[0].port = 8081;
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
    workload(&mut world, "api").ports[0].protocol = Protocol::Udp;
    assert_eq!(
        egress(&world, "shop/web", "10.9.0.1", 80),
        "Drop by p egress[1]"
    );
}

/// §2.2
#[test]
fn a_backend_on_the_hosts_network_has_the_addresses_of_its_node() {
    let mut world = strict([service("probe")]);
    workload(&mut world, "probe").addresses.clear();
    let backends = behind_frontend(
        &world,
        &question("shop/web", Direction::Egress, "10.9.0.1", 80),
    );
    assert_eq!(backends[0].peer.to_string(), "10.0.0.1");
    assert_eq!(backends.len(), 1);
}

/// §2.3, §3.1
#[test]
fn the_way_to_itself_over_a_service_is_judged() {
    let world = strict([service("api")]);
    assert_eq!(
        egress(&world, "shop/api", "10.1.0.1", 8080),
        "Allow: ItsOwnAddress"
    );
    assert_eq!(
        egress(&world, "shop/api", "10.9.0.1", 80),
        "Drop by p egress[0]"
    );
}

/// §2.2, §2.3
#[test]
fn services_with_the_same_frontend_add_up_and_a_backend_is_no_frontend_again() {
    let mut other = service("api");
    other.name = ObjectName::new("shop", "other");
    let both = strict([service("web"), other.clone()]);
    assert_eq!(
        egress(&both, "shop/v6", "10.9.0.1", 80),
        "Drop by p egress[0]"
    );

    // The one serves at the address of the other.
    other.addresses = ["10.1.0.2".parse().unwrap()].into();
    other.ports[0].port = 8080;
    let chained = strict([service("web"), other]);
    assert_eq!(
        egress(&chained, "shop/v6", "10.1.0.2", 8080),
        "Drop by p egress[0]"
    );
    assert_eq!(
        egress(&chained, "shop/v6", "10.9.0.1", 80),
        "Allow: NotIsolated"
    );
}
