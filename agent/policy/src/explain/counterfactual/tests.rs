mod bounds;
mod smallest;
mod waiting;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    connection::{Connection, Reason},
    example,
    explain::explain,
    model::{
        Change, Direction, ObjectName, Peers, PolicyId, PolicyKind, PortMatch, PortSpec, Ports,
        Protocol, Selector, Subjects, Terms, Tier, TierAction, TierPolicy, TierRule, When,
    },
    reference::Reference,
    strategies,
};

/// A `RingfencePolicy` with these rules for what comes in to `shop/web`.
fn for_web(name: &str, tier: Tier, ingress: Vec<TierRule>) -> TierPolicy {
    TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, name),
        tier,
        priority: 0,
        subjects: Subjects::Workloads {
            namespaces: Selector::default(),
            workloads: example::is("web"),
            host_network: true,
        },
        ingress,
        egress: Vec::new(),
        when: When::default(),
        terms: Terms::default(),
        source: example::source(1),
    }
}

fn denies_everybody(when: When) -> TierRule {
    TierRule {
        name: None,
        action: TierAction::Deny,
        peers: Peers::Every,
        ports: Ports::Every,
        when,
        source: example::source(2),
    }
}

fn add(world: &mut World, policy: TierPolicy) {
    let id = policy.id.clone();
    world.apply(&Change::TierPolicy(id, Some(Arc::new(policy))));
}

fn texts(world: &World, from: &str, to: &str, port: &str) -> Vec<String> {
    let end = |text| End::parse(world, text).unwrap();
    let (from, to, port) = (end(from), end(to), port.parse().unwrap());
    let perspective = Perspective::default();
    let explained = explain(world, &Reference(world), &from, &to, port, perspective).unwrap();
    explained
        .counterfactual
        .into_iter()
        .flat_map(|found| found.changes)
        .map(|step| step.text)
        .collect()
}

#[test]
fn a_denied_connection_is_told_what_is_missing() {
    let world = example::world();
    for (from, port, expected) in [
        (
            "shop/web",
            "TCP/80",
            "add to NetworkPolicy shop/api ingress[0] the port TCP/80",
        ),
        (
            "shop/web",
            "ICMP",
            "add to NetworkPolicy shop/api an ingress rule from app=web of namespace shop on every \
             port",
        ),
        (
            "192.0.2.1",
            "TCP/8080",
            "add to NetworkPolicy shop/api an ingress rule from 192.0.2.1/32 on TCP/8080",
        ),
        ("shop/v6", "TCP/8080", "label shop/v6 with app=web"),
    ] {
        assert_eq!(texts(&world, from, "shop/api", port), [expected]);
    }
}

#[test]
fn a_permitted_connection_is_told_what_permits_it() {
    let world = example::world();
    assert_eq!(
        texts(&world, "shop/web", "shop/api", "TCP/8080"),
        ["remove rule ingress[0] of NetworkPolicy shop/api"]
    );
    assert_eq!(
        texts(&world, "shop/api", "192.0.2.1", "TCP/1"),
        [
            "add a RingfencePolicy of tier Admin and priority 0 that denies shop/api egress to \
             192.0.2.1/32 on TCP/1"
        ]
    );
    assert!(texts(&world, "shop/api", "10.1.0.1", "TCP/1").is_empty());
}

#[test]
fn both_ends_get_an_edit_where_both_deny() {
    let mut world = example::world();
    let closed = ObjectName::new("shop", "closed");
    let mut policy = world.network_policies[&ObjectName::new("shop", "api")]
        .as_ref()
        .clone();
    policy.name = closed.clone();
    policy.subject = example::is("web");
    policy.ingress = None;
    policy.egress = Some(Vec::new());
    world.apply(&Change::NetworkPolicy(closed, Some(policy.into())));
    assert_eq!(
        texts(&world, "shop/web", "shop/api", "TCP/80"),
        [
            "add to NetworkPolicy shop/closed an egress rule to app=api of namespace shop on \
             TCP/80",
            "add to NetworkPolicy shop/api ingress[0] the port TCP/80"
        ]
    );
}

#[test]
fn a_step_is_json_with_its_words() {
    let rule = crate::question::RuleId {
        policy: PolicyId::cluster_wide(PolicyKind::ClusterNetworkPolicy, "x"),
        direction: Direction::Egress,
        index: 1,
    };
    assert_eq!(
        serde_json::to_value(Step::new(Edit::RemoveRule { rule })).unwrap(),
        serde_json::json!({
            "change": "remove-rule",
            "rule": {
                "policy": {"kind": "ClusterNetworkPolicy", "name": "x"},
                "direction": "egress",
                "index": 1
            },
            "text": "remove rule egress[1] of ClusterNetworkPolicy x"
        })
    );
}

fn tcp(port: u16) -> PortMatch {
    let (first, last) = (port, port);
    PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Range { first, last },
    }
}

#[test]
fn a_rule_is_changed_rather_than_added() {
    let rule = |action, ports: &[u16]| TierRule {
        action,
        ports: Ports::Listed(ports.iter().copied().map(tcp).collect()),
        ..denies_everybody(When::default())
    };
    let add_port = "add to RingfencePolicy p ingress[0] the port TCP/80";
    let remove_port = "remove from RingfencePolicy p ingress[0] what lists the port TCP/80";
    let everything = denies_everybody(When::default());
    for (rules, expected) in [
        (vec![rule(TierAction::Deny, &[80, 443])], remove_port),
        (vec![rule(TierAction::Deny, &[443])], add_port),
        (
            vec![rule(TierAction::Pass, &[443]), everything.clone()],
            add_port,
        ),
        (
            vec![rule(TierAction::Pass, &[80, 443]), everything],
            remove_port,
        ),
    ] {
        let mut world = example::world();
        add(&mut world, for_web("p", Tier::Admin, rules));
        assert_eq!(texts(&world, "192.0.2.1", "shop/web", "TCP/80"), [expected]);
    }
}

#[test]
fn the_port_that_goes_is_the_one_that_matches() {
    let range = |first, last| PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Range { first, last },
    };
    for (first, expected) in [
        (
            range(1, 10),
            "remove from RingfencePolicy p ingress[0] what lists the port TCP/80",
        ),
        // It is listed twice.
        (
            range(1, 100),
            "put before RingfencePolicy p ingress[0] a rule Deny from 192.0.2.1/32 on TCP/80",
        ),
    ] {
        let rule = TierRule {
            action: TierAction::Accept,
            ports: Ports::Listed(vec![first, tcp(80), tcp(90)]),
            ..denies_everybody(When::default())
        };
        let mut world = example::world();
        let rules = vec![rule, denies_everybody(When::default())];
        add(&mut world, for_web("p", Tier::Admin, rules));
        assert_eq!(texts(&world, "192.0.2.1", "shop/web", "TCP/80"), [expected]);
    }
}
