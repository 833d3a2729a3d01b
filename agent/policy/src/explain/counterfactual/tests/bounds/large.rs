//! What there is too much of: answered, and not after minutes. The runner ends a test that takes them.

use super::*;
use crate::model::{NamespaceScope, Peer, Requirement, Schedule, Weekday, Window};

const MANY: usize = 100_000;

/// From the workloads of the shop that a selector matches, to every port.
fn from_workloads(workloads: Selector) -> Rule {
    Rule {
        peers: Peers::listed(vec![Peer::Workloads {
            namespaces: NamespaceScope::Named("shop".to_owned()),
            workloads,
        }]),
        ports: Ports::Every,
        source: example::source(2),
    }
}

#[test]
fn a_hundred_thousand_rules_are_not_all_tried() {
    let ports = (0..MANY).map(|_| to_ports(vec![tcp(1, 79), tcp(81, 100)]));
    let world = with_rules("web", Direction::Ingress, ports.collect());
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(
        words(&found),
        ["add to NetworkPolicy shop/web ingress[0] the port TCP/80"]
    );
    assert_eq!(found.searched, Searched::All);
}

/// Each wants another label of the peer, and with any of them the peer itself is closed.
#[test]
fn a_hundred_thousand_labels_that_do_not_help_are_not_all_tried() {
    let wants = |number: usize| Selector {
        requirements: vec![Requirement::In {
            key: "team".to_owned(),
            values: [format!("t{number}")].into(),
        }],
    };
    let rules = (0..MANY).map(|number| from_workloads(wants(number)));
    let mut world = with_rules("web", Direction::Ingress, rules.collect());
    let name = ObjectName::new("shop", "teams");
    let teams = NetworkPolicy {
        name: name.clone(),
        subject: Selector {
            requirements: vec![Requirement::Exists {
                key: "team".to_owned(),
            }],
        },
        ingress: None,
        egress: Some(Vec::new()),
        terms: Terms::default(),
        source: example::source(1),
    };
    world.apply(&Change::NetworkPolicy(name, Some(teams.into())));
    let found = counterfactual(&world, "shop/api", "shop/web", "TCP/80");
    assert_eq!(found.searched, Searched::Part);
    assert_eq!(
        words(&found),
        ["add to NetworkPolicy shop/web an ingress rule from app=api of namespace shop on TCP/80"]
    );
}

#[test]
fn a_hundred_thousand_ports_of_a_rule_are_not_all_tried() {
    let other = |number: usize| {
        let port = u16::try_from(number % 30_000 + 100).unwrap();
        tcp(port, port)
    };
    let ports = [tcp(80, 80)].into_iter().chain((0..MANY).map(other));
    let world = with_rules("web", Direction::Ingress, vec![to_ports(ports.collect())]);
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(
        words(&found),
        ["remove from NetworkPolicy shop/web ingress[0] what lists the port TCP/80"]
    );
}

#[test]
fn ten_thousand_policies_are_not_all_tried() {
    let mut world = example::world();
    for number in 0..10_000 {
        let name = format!("p{number:05}");
        isolate(&mut world, "web", &name, Direction::Ingress, Vec::new());
    }
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(
        words(&found),
        ["add to NetworkPolicy shop/p00000 an ingress rule from 192.0.2.1/32 on TCP/80"]
    );
    assert_eq!(found.searched, Searched::All);
}

/// All of them match, and none ever denies. The last ones are open first, so that every one is asked
/// at every moment.
#[test]
fn twenty_thousand_timed_rules_have_too_many_moments() {
    const TIMED: usize = 20_000;
    let open = |number: usize| {
        let from = 800 + u16::try_from((TIMED - number) / 80).unwrap();
        let window = Window {
            days: Weekday::ALL.into_iter().collect(),
            from,
            to: from + 1,
        };
        let schedule = Schedule {
            zone: "Europe/Berlin".to_owned(),
            windows: vec![window],
        };
        When {
            schedule: Some(schedule),
            ..When::default()
        }
    };
    let accept = |number| TierRule {
        action: TierAction::Accept,
        ..denies_everybody(open(number))
    };
    let mut world = example::world();
    let rules = (0..TIMED).map(accept).collect();
    add(&mut world, for_web("timed", Tier::Admin, rules));
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(found.searched, Searched::Part);
    assert_eq!(found.changes.len(), 1);
}
