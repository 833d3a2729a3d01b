//! §3, §4 and §8: who is exempt from what, and in which view.

use super::*;
use crate::model::{Failsafe, ObjectName};

const DEFAULT_DENY: &str = "Drop: DefaultDeny";
const NOT_ISOLATED: &str = "Allow: NotIsolated";

fn quarantine() -> TierPolicy {
    let policy = policy("q", Tier::Quarantine, every_workload());
    saying(TierAction::Deny, policy)
}

fn probe() -> Question {
    let mut probe = question("shop/api", Direction::Ingress, "10.0.0.1", 8080);
    probe.origin = Origin::ThisNode;
    probe
}

/// §4.6, step 0.
#[test]
fn who_is_unknown_is_denied_with_silence() {
    let world = world([]);
    assert_eq!(
        egress(&world, "shop/nobody", "10.1.0.1", 1),
        "Drop: UnknownSubject"
    );
    assert_eq!(
        egress(&world, "node/nobody", "10.1.0.1", 1),
        "Drop: UnknownSubject"
    );
}

/// §3.1
#[test]
fn a_workload_reaches_itself_even_in_quarantine_and_a_node_does_not_reach_itself_by_right() {
    let nodes = policy("n", Tier::Admin, every_node());
    let world = world([quarantine(), saying(TierAction::Deny, nodes)]);
    assert_eq!(
        egress(&world, "shop/api", "10.1.0.1", 1),
        "Allow: ItsOwnAddress"
    );
    assert_eq!(
        egress(&world, "shop/probe", "10.0.0.1", 1),
        "Drop by q egress[0]"
    );
    assert_eq!(
        egress(&world, "node/one", "10.0.0.1", 1),
        "Drop by n egress[0]"
    );
}

/// §3.2, §6.6
#[test]
fn only_quarantine_isolates_from_the_own_node() {
    let admin = policy("a", Tier::Admin, every_workload());
    let mut world = world([saying(TierAction::Deny, admin)]);
    assert_eq!(answer_to(&world, &probe()), "Allow: OwnNode");

    let forwarded = Question {
        origin: Origin::Forwarded,
        ..probe()
    };
    assert_eq!(answer_to(&world, &forwarded), "Drop by a ingress[0]");
    let of_another = Question {
        peer: "10.0.0.2".parse().unwrap(),
        ..probe()
    };
    assert_eq!(answer_to(&world, &of_another), "Drop by a ingress[0]");
    let outwards = Question {
        direction: Direction::Egress,
        ..probe()
    };
    assert_eq!(answer_to(&world, &outwards), "Drop by a egress[0]");

    add(&mut world, [quarantine()]);
    assert_eq!(answer_to(&world, &probe()), "Drop by q ingress[0]");
}

/// §3.2, §7.1, §8
#[test]
fn a_quarantine_outside_its_time_or_view_leaves_the_own_node_alone() {
    let mut expired = quarantine();
    expired.when.expires = Some(Time::from_unix(10));
    let limited = world([expired]);
    for (at, expected) in [(9, "Drop by q ingress[0]"), (10, "Allow: OwnNode")] {
        let probe = Question {
            at: Time::from_unix(at),
            ..probe()
        };
        assert_eq!(answer_to(&limited, &probe), expected);
    }

    let mut audited = quarantine();
    audited.terms.mode = Mode::Audit;
    let audited = world([audited]);
    for (view, expected) in [
        (View::Live, "Allow: OwnNode"),
        (View::Audit, "Drop by q ingress[0]"),
        (View::Staged, "Allow: OwnNode"),
    ] {
        assert_eq!(
            answer_to(&audited, &Question { view, ..probe() }),
            expected,
            "{view:?}"
        );
    }
}

/// §3.4
#[test]
fn failsafe_holds_for_those_who_share_their_nodes_addresses() {
    let nodes = policy("n", Tier::Quarantine, every_node());
    let mut world = world([quarantine(), saying(TierAction::Deny, nodes)]);
    world.failsafe = Arc::new(vec![Failsafe {
        name: "ssh".to_owned(),
        direction: Direction::Ingress,
        peers: Peers::listed(vec![block("192.0.2.0/24")]),
        ports: tcp(22),
        source: example::source(1),
    }]);
    assert_eq!(
        ingress(&world, "node/one", "192.0.2.1", 22),
        "Allow by ssh ingress[0]"
    );
    assert_eq!(
        ingress(&world, "shop/probe", "192.0.2.1", 22),
        "Allow by ssh ingress[0]"
    );
    assert_eq!(
        ingress(&world, "shop/api", "192.0.2.1", 22),
        "Drop by q ingress[0]"
    );
    assert_eq!(
        ingress(&world, "node/one", "192.0.2.1", 23),
        "Drop by n ingress[0]"
    );
    assert_eq!(
        ingress(&world, "node/one", "198.51.100.1", 22),
        "Drop by n ingress[0]"
    );
    assert_eq!(
        egress(&world, "node/one", "192.0.2.1", 22),
        "Drop by n egress[0]"
    );
}

/// §1.3
#[test]
fn neither_a_node_nor_a_pod_on_its_network_is_a_subject_of_network_policies() {
    let mut world = example::world();
    let policy = world.network_policies.values_mut().next().unwrap();
    Arc::make_mut(policy).subject = Selector::default();
    assert_eq!(ingress(&world, "shop/web", "192.0.2.1", 1), DEFAULT_DENY);
    assert_eq!(ingress(&world, "shop/probe", "192.0.2.1", 1), NOT_ISOLATED);
    assert_eq!(ingress(&world, "node/one", "192.0.2.1", 1), NOT_ISOLATED);
}

/// §4.1
#[test]
fn a_refusal_by_default_needs_every_policy_that_isolates() {
    let mut world = example::world();
    let first = ObjectName::new("shop", "api");
    let mut second = NetworkPolicy::clone(&world.network_policies[&first]);
    second.name = ObjectName::new("shop", "more");
    second.terms.denied = Denied::Reject;
    let mut elsewhere = second.clone();
    elsewhere.name = ObjectName::new("shop", "outwards");
    (elsewhere.ingress, elsewhere.egress) = (None, Some(Vec::new()));
    elsewhere.terms.denied = Denied::Drop;
    for policy in [second, elsewhere] {
        world
            .network_policies
            .insert(policy.name.clone(), Arc::new(policy));
    }
    assert_eq!(
        ingress(&world, "shop/api", "192.0.2.1", 1),
        "Drop: DefaultDeny"
    );

    let first = world.network_policies.get_mut(&first).unwrap();
    Arc::make_mut(first).terms.mode = Mode::Audit;
    // In the live view only the second is left for ingress, and the third is about egress.
    assert_eq!(
        ingress(&world, "shop/api", "192.0.2.1", 1),
        "Reject: DefaultDeny"
    );
    assert_eq!(
        egress(&world, "shop/api", "192.0.2.1", 1),
        "Drop: DefaultDeny"
    );
    let audit = Question {
        view: View::Audit,
        ..question("shop/api", Direction::Ingress, "192.0.2.1", 1)
    };
    assert_eq!(answer_to(&world, &audit), "Drop: DefaultDeny");
}

/// §8
#[test]
fn a_view_is_a_decision_of_its_own() {
    let mut world = example::world();
    let policy = world.network_policies.values_mut().next().unwrap();
    Arc::make_mut(policy).terms.mode = Mode::Staged;
    let mut audited = super::policy("a", Tier::Admin, every_workload());
    audited.terms.mode = Mode::Audit;
    add(&mut world, [saying(TierAction::Pass, audited)]);
    for (view, expected) in [
        (View::Live, NOT_ISOLATED),
        (View::Audit, NOT_ISOLATED),
        (View::Staged, DEFAULT_DENY),
    ] {
        let question = Question {
            view,
            ..question("shop/api", Direction::Ingress, "192.0.2.1", 1)
        };
        assert_eq!(answer_to(&world, &question), expected, "{view:?}");
    }
}
