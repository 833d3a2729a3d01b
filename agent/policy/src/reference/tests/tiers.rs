//! §6: ranks, actions and subjects.

use super::*;
use crate::model::EndpointSpec;

fn admin(name: &str) -> TierPolicy {
    policy(name, Tier::Admin, every_workload())
}

fn baseline(name: &str) -> TierPolicy {
    policy(name, Tier::Baseline, every_workload())
}

/// §6.1
#[test]
fn passing_leaves_the_tier_and_not_just_the_policy() {
    let mut first = saying(TierAction::Pass, admin("first"));
    first.priority = 0;
    first.ingress.push(rule(TierAction::Accept));
    let denied = saying(TierAction::Deny, admin("second"));
    let mut world = world([first, denied]);
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 1),
        "Allow: NotIsolated"
    );

    add(&mut world, [saying(TierAction::Deny, baseline("third"))]);
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 1),
        "Drop by third ingress[0]"
    );

    let mut before = saying(TierAction::Pass, baseline("zero"));
    before.priority = 0;
    add(&mut world, [before]);
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 1),
        "Allow: NotIsolated"
    );
}

/// §4.6
#[test]
fn network_policies_decide_between_admin_and_baseline() {
    let mut world = example::world();
    add(&mut world, [saying(TierAction::Accept, baseline("b"))]);
    assert_eq!(
        ingress(&world, "shop/api", "192.0.2.1", 1),
        "Drop: DefaultDeny"
    );
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 1),
        "Allow by b ingress[0]"
    );

    add(&mut world, [saying(TierAction::Accept, admin("a"))]);
    assert_eq!(
        ingress(&world, "shop/api", "192.0.2.1", 1),
        "Allow by a ingress[0]"
    );

    add(&mut world, [saying(TierAction::Pass, admin("a"))]);
    assert_eq!(
        ingress(&world, "shop/api", "10.1.0.2", 8080),
        "Allow by shop/api ingress[0]"
    );
}

/// §6.1
#[test]
fn the_lowest_priority_comes_first_then_the_name_then_the_kind() {
    let of_kubernetes = |mut policy: TierPolicy| {
        policy.id.kind = PolicyKind::ClusterNetworkPolicy;
        policy
    };
    let mut last = saying(TierAction::Accept, admin("a"));
    last.priority = 11;
    let mut world = world([last, saying(TierAction::Deny, of_kubernetes(admin("c")))]);
    assert_eq!(
        egress(&world, "shop/web", "192.0.2.1", 1),
        "Drop by c egress[0]"
    );

    add(&mut world, [saying(TierAction::Accept, admin("b"))]);
    assert_eq!(
        egress(&world, "shop/web", "192.0.2.1", 1),
        "Allow by b egress[0]"
    );

    add(
        &mut world,
        [saying(TierAction::Deny, of_kubernetes(admin("b")))],
    );
    assert_eq!(
        egress(&world, "shop/web", "192.0.2.1", 1),
        "Drop by b egress[0]"
    );
}

/// §6.1, §4.1
#[test]
fn the_first_rule_that_matches_decides_and_its_policy_says_what_a_denied_peer_gets() {
    let mut policy = admin("a");
    policy.terms.denied = Denied::Reject;
    policy.ingress = vec![
        TierRule {
            ports: tcp(80),
            ..rule(TierAction::Accept)
        },
        rule(TierAction::Deny),
        rule(TierAction::Accept),
    ];
    let world = world([policy]);
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 80),
        "Allow by a ingress[0]"
    );
    assert_eq!(
        ingress(&world, "shop/web", "192.0.2.1", 81),
        "Reject by a ingress[1]"
    );
    assert_eq!(
        egress(&world, "shop/web", "192.0.2.1", 81),
        "Allow: NotIsolated"
    );
}

/// §7.1
#[test]
fn a_rule_exists_while_both_its_own_time_and_that_of_its_policy_hold() {
    let mut policy = admin("a");
    policy.when.not_before = Some(Time::from_unix(10));
    let mut first = rule(TierAction::Deny);
    first.when.expires = Some(Time::from_unix(20));
    policy.ingress = vec![first, rule(TierAction::Accept)];
    let world = world([policy]);
    for (at, expected) in [
        (9, "Allow: NotIsolated"),
        (10, "Drop by a ingress[0]"),
        (19, "Drop by a ingress[0]"),
        (20, "Allow by a ingress[1]"),
    ] {
        let question = Question {
            at: Time::from_unix(at),
            ..question("shop/web", Direction::Ingress, "192.0.2.1", 1)
        };
        assert_eq!(answer_to(&world, &question), expected, "{at}");
    }
}

/// §6.2
#[test]
fn each_form_of_subject_selects_its_own() {
    let mut world = world([]);
    for (name, endpoint) in [
        (
            "unit",
            EndpointSpec::SystemdUnit("nginx.service".to_owned()),
        ),
        (
            "cgroup",
            EndpointSpec::Cgroup("system.slice/backup.service".to_owned()),
        ),
        (
            "inner",
            EndpointSpec::Cgroup("system.slice/backup.service/inner".to_owned()),
        ),
    ] {
        let mut workload = example::workload("shop", name, &[]);
        workload.endpoint = Some(endpoint);
        world
            .workloads
            .insert(workload.name.clone(), Arc::new(workload));
    }
    let of_kubernetes = Subjects::Workloads {
        namespaces: Selector::default(),
        workloads: Selector::default(),
        host_network: false,
    };
    let all = [
        "shop/web",
        "shop/probe",
        "shop/unit",
        "shop/cgroup",
        "shop/inner",
        "node/one",
    ];
    for (subjects, expected) in [
        (
            of_kubernetes,
            &["shop/web", "shop/unit", "shop/cgroup", "shop/inner"][..],
        ),
        (every_workload(), &all[..5]),
        (workloads(example::is("probe")), &["shop/probe"]),
        (
            Subjects::Units(["nginx.service".to_owned()].into()),
            &["shop/unit"],
        ),
        (
            Subjects::Cgroups(["system.slice/backup.service".to_owned()].into()),
            &["shop/cgroup"],
        ),
        (every_node(), &["node/one"]),
    ] {
        let mut world = world.clone();
        add(
            &mut world,
            [saying(TierAction::Deny, policy("p", Tier::Admin, subjects))],
        );
        let selected: Vec<_> = all
            .into_iter()
            .filter(|subject| egress(&world, subject, "192.0.2.1", 1) == "Drop by p egress[0]")
            .collect();
        assert_eq!(selected, expected);
    }
}
