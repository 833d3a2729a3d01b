//! §6.3 and §6.4: peers and ports that only ranked policies have.

use super::*;
use crate::model::{EndpointSpec, IcmpVersion, NamedPort};

fn accepting(subjects: Subjects, rules: Vec<TierRule>) -> World {
    let mut policy = policy("p", Tier::Admin, subjects);
    policy.ingress.clone_from(&rules);
    policy.egress = rules;
    world([policy])
}

fn matches(world: &World, question: &Question) -> bool {
    matches!(answer(world, question).why, Why::Rule(_))
}

#[test]
fn an_empty_list_of_peers_is_nobody() {
    let nobody = TierRule {
        peers: Peers::listed(Vec::new()),
        ..rule(TierAction::Deny)
    };
    let world = accepting(every_workload(), vec![nobody]);
    assert_eq!(
        egress(&world, "shop/web", "10.1.0.1", 1),
        "Allow: NotIsolated"
    );
}

#[test]
fn nodes_are_peers_by_their_labels_and_all_of_their_addresses() {
    let mut world = accepting(
        every_workload(),
        vec![of_peer(TierAction::Deny, Peer::Nodes(example::is("edge")))],
    );
    let node = Arc::make_mut(world.nodes.get_mut("two").unwrap());
    Arc::make_mut(&mut node.labels).insert("app".to_owned(), "edge".to_owned());
    node.addresses.insert("fd02::2".parse().unwrap());
    for (peer, is_peer) in [
        ("10.0.0.2", true),
        ("fd02::2", true),
        ("10.0.0.1", false),
        ("10.1.0.1", false),
    ] {
        let question = question("shop/web", Direction::Ingress, peer, 1);
        assert_eq!(matches(&world, &question), is_peer, "{peer}");
    }
}

#[test]
fn the_own_node_is_that_of_the_subject() {
    let rules = || vec![of_peer(TierAction::Deny, Peer::OwnNode)];
    let mut of_workloads = accepting(every_workload(), rules());
    let mut stray = example::workload("shop", "stray", &["10.1.0.9"]);
    stray.node = None;
    of_workloads
        .workloads
        .insert(stray.name.clone(), Arc::new(stray));
    let of_nodes = accepting(every_node(), rules());
    for (world, subject, peer, is_peer) in [
        (&of_workloads, "shop/web", "10.0.0.1", true),
        (&of_workloads, "shop/web", "10.0.0.2", false),
        (&of_workloads, "shop/stray", "10.0.0.1", false),
        (&of_nodes, "node/two", "10.0.0.2", true),
        (&of_nodes, "node/two", "10.0.0.1", false),
    ] {
        let question = question(subject, Direction::Egress, peer, 1);
        assert_eq!(matches(world, &question), is_peer, "{subject} {peer}");
    }
}

#[test]
fn a_star_is_one_label_or_more_and_never_the_apex() {
    let names = [
        "example.org",
        "a.example.org",
        "b.a.example.org",
        "notexample.org",
        "org",
    ];
    for (pattern, expected) in [
        ("example.org", &["example.org"][..]),
        ("*.example.org", &["a.example.org", "b.a.example.org"]),
        ("*.a.example.org", &["b.a.example.org"]),
        (
            "*.org",
            &[
                "example.org",
                "a.example.org",
                "b.a.example.org",
                "notexample.org",
            ],
        ),
    ] {
        let rules = vec![of_peer(
            TierAction::Accept,
            Peer::Domain(pattern.to_owned()),
        )];
        let mut world = accepting(every_workload(), rules);
        let address = |index: usize| format!("192.0.2.{index}");
        for (index, name) in names.into_iter().enumerate() {
            let addresses = [address(index).parse().unwrap()].into();
            world.names.insert(name.to_owned(), Arc::new(addresses));
        }
        let fitting: Vec<_> = (0..names.len())
            .filter(|index| {
                let question = question("shop/web", Direction::Egress, &address(*index), 1);
                matches(&world, &question)
            })
            .map(|index| names[index])
            .collect();
        assert_eq!(fitting, expected, "{pattern}");
    }
}

#[test]
fn icmp_is_told_apart_by_version_type_and_code() {
    let icmp = |kind, code| PortMatch::Icmp {
        version: IcmpVersion::V4,
        kind,
        code,
    };
    let port = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
    for (listed, protocol, port, is_listed) in [
        (icmp(None, None), 1, port(3, 4), true),
        (icmp(None, None), 58, port(3, 4), false),
        (icmp(Some(3), None), 1, port(3, 255), true),
        (icmp(Some(3), None), 1, port(4, 0), false),
        (icmp(Some(3), Some(4)), 1, port(3, 4), true),
        (icmp(Some(3), Some(4)), 1, port(3, 5), false),
        (icmp(Some(3), Some(4)), TCP, port(3, 4), false),
        (PortMatch::Protocol(47), 47, 0, true),
        (PortMatch::Protocol(47), 46, 0, false),
        (PortMatch::Protocol(6), TCP, 80, true),
    ] {
        let ports = Ports::Listed(vec![listed.clone()]);
        let rules = vec![TierRule {
            ports,
            ..rule(TierAction::Deny)
        }];
        let question = Question {
            protocol,
            ..question("shop/web", Direction::Egress, "192.0.2.1", port)
        };
        let world = accepting(every_workload(), rules);
        assert_eq!(
            matches(&world, &question),
            is_listed,
            "{listed:?} {protocol} {port}"
        );
    }
}

#[test]
fn a_name_alone_is_what_the_destination_calls_so_for_any_protocol() {
    let named = || TierRule {
        ports: Ports::Listed(vec![PortMatch::Named("http".to_owned())]),
        ..rule(TierAction::Deny)
    };
    let mut world = accepting(every_workload(), vec![named()]);
    let api = crate::model::ObjectName::new("shop", "api");
    let api = Arc::make_mut(world.workloads.get_mut(&api).unwrap());
    api.ports[0].protocol = Protocol::Udp;
    for (subject, direction, peer, protocol, port, is_named) in [
        ("shop/web", Direction::Egress, "10.1.0.1", UDP, 8080, true),
        ("shop/web", Direction::Egress, "10.1.0.1", TCP, 8080, false),
        ("shop/web", Direction::Egress, "10.1.0.1", UDP, 8081, false),
        ("shop/web", Direction::Egress, "192.0.2.1", UDP, 8080, false),
        ("shop/api", Direction::Ingress, "192.0.2.1", UDP, 8080, true),
        ("shop/web", Direction::Ingress, "10.1.0.1", UDP, 8080, false),
    ] {
        let question = Question {
            protocol,
            ..question(subject, direction, peer, port)
        };
        assert_eq!(matches(&world, &question), is_named, "{question:?}");
    }
    let nodes = accepting(every_node(), vec![named()]);
    assert_eq!(
        ingress(&nodes, "node/one", "192.0.2.1", 8080),
        "Allow: NotIsolated"
    );
}

#[test]
fn a_socket_is_a_peer_by_whose_it_is_and_keeps_its_address() {
    let app = || Subjects::Workloads {
        namespaces: Selector::default(),
        workloads: example::is("app"),
        host_network: true,
    };
    let named = PortMatch::Named("admin".to_owned());
    let mut world = accepting(
        every_workload(),
        vec![
            TierRule {
                ports: Ports::Listed(vec![named]),
                ..of_peer(TierAction::Deny, Peer::Local(app()))
            },
            of_peer(
                TierAction::Deny,
                Peer::Block {
                    cidr: "127.0.0.0/30".parse().unwrap(),
                    except: Vec::new(),
                },
            ),
            of_peer(TierAction::Deny, Peer::Local(app())),
        ],
    );
    for name in ["app", "other"] {
        let mut unit = example::workload("host", name, &[]);
        unit.endpoint = Some(EndpointSpec::SystemdUnit(format!("{name}.service")));
        unit.ports = vec![NamedPort {
            name: "admin".to_owned(),
            port: 7,
            protocol: Protocol::Tcp,
        }];
        world.namespaces.insert("host".to_owned(), Arc::default());
        world.workloads.insert(unit.name.clone(), Arc::new(unit));
    }
    for (socket, peer, port, expected) in [
        (Some("app"), "127.0.0.9", 8, "Drop by p egress[2]"),
        (Some("app"), "127.0.0.9", 7, "Drop by p egress[0]"),
        (Some("app"), "127.0.0.1", 8, "Drop by p egress[1]"),
        (Some("other"), "127.0.0.9", 7, "Allow: NotIsolated"),
        (None, "127.0.0.9", 7, "Allow: NotIsolated"),
    ] {
        let asked = Question {
            socket: socket.map(|name| crate::model::ObjectName::new("host", name)),
            ..question("host/other", Direction::Egress, peer, port)
        };
        assert_eq!(
            answer_to(&world, &asked),
            expected,
            "{socket:?} {peer} {port}"
        );
    }
}
