//! What is said where there is more to try than is tried.

mod large;

use super::*;
use crate::model::{NetworkPolicy, PortMatch, PortSpec, Protocol, Rule, Time};

const NOW: i64 = 1_796_299_200;

fn counterfactual(world: &World, from: &str, to: &str, port: &str) -> Counterfactual {
    let end = |text| End::parse(world, text).unwrap();
    let asked = Asked {
        from: &end(from),
        to: &end(to),
        port: port.parse().unwrap(),
    };
    let perspective = Perspective::live(Time::from_unix(NOW));
    Counterfactual::find(world, perspective, asked).unwrap()
}

/// As [`counterfactual`], if there are only so many trials.
fn after_trials(
    world: &World,
    trials: usize,
    from: &str,
    to: &str,
) -> (Option<Vec<Edit>>, Searched) {
    let end = |text| End::parse(world, text).unwrap();
    let asked = Asked {
        from: &end(from),
        to: &end(to),
        port: "TCP/80".parse().unwrap(),
    };
    let perspective = Perspective::live(Time::from_unix(NOW));
    let mut search = Search::new(world, perspective, asked).unwrap();
    search.trials_left = trials;
    search.run()
}

fn words(found: &Counterfactual) -> Vec<&str> {
    let steps = found.changes.iter();
    steps.map(|step| step.text.as_str()).collect()
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Range { first, last },
    }
}

/// From everybody to these ports.
fn to_ports(ports: Vec<PortMatch>) -> Rule {
    Rule {
        peers: Peers::Every,
        ports: Ports::Listed(ports),
        source: example::source(2),
    }
}

/// A `NetworkPolicy` for the workloads of the shop that are called `app`.
fn isolate(world: &mut World, app: &str, name: &str, direction: Direction, rules: Vec<Rule>) {
    let name = ObjectName::new("shop", name);
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(rules), None),
        Direction::Egress => (None, Some(rules)),
    };
    let policy = NetworkPolicy {
        name: name.clone(),
        subject: example::is(app),
        ingress,
        egress,
        terms: Terms::default(),
        source: example::source(1),
    };
    world.apply(&Change::NetworkPolicy(name, Some(policy.into())));
}

fn with_rules(app: &str, direction: Direction, rules: Vec<Rule>) -> World {
    let mut world = example::world();
    isolate(&mut world, app, app, direction, rules);
    world
}

/// One more than is tried of a kind, each for a port of its own.
fn too_many_rules() -> Vec<Rule> {
    let last = u16::try_from(search::OF_A_KIND).unwrap() + 1;
    let ports = (1..=last).map(|port| vec![tcp(port, port)]);
    ports.map(to_ports).collect()
}

#[test]
fn the_first_of_many_rules_that_does_is_the_smallest_change() {
    let world = with_rules("web", Direction::Ingress, too_many_rules());
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(found.searched, Searched::All);
    assert_eq!(
        words(&found),
        ["add to NetworkPolicy shop/web ingress[0] the port TCP/80"]
    );
}

/// Each end has one rule more than is tried, and that one might have done for both.
#[test]
fn a_search_that_leaves_something_out_says_so() {
    let mut world = with_rules("web", Direction::Ingress, too_many_rules());
    isolate(
        &mut world,
        "api",
        "out",
        Direction::Egress,
        too_many_rules(),
    );
    let found = counterfactual(&world, "shop/api", "shop/web", "TCP/80");
    assert_eq!(found.searched, Searched::Part);
    assert_eq!(
        words(&found),
        [
            "add to NetworkPolicy shop/out egress[0] the port TCP/80",
            "add to NetworkPolicy shop/web ingress[0] the port TCP/80"
        ]
    );
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["searched"], "part");
}

/// Too many quarantines, one behind the other.
#[test]
fn a_search_that_ends_before_it_finds_anything_says_so() {
    let mut world = example::world();
    for number in 0..=search::EDITS {
        let rules = vec![denies_everybody(When::default())];
        add(
            &mut world,
            for_web(&format!("q{number}"), Tier::Quarantine, rules),
        );
    }
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(
        serde_json::to_value(&found).unwrap(),
        serde_json::json!({"verdict": "allow", "searched": "part", "changes": []})
    );
}

/// As many as are taken away together.
#[test]
fn what_needs_as_many_edits_as_may_be_said_is_found() {
    let mut world = example::world();
    for number in 0..search::EDITS {
        let rules = vec![denies_everybody(When::default())];
        add(
            &mut world,
            for_web(&format!("q{number}"), Tier::Quarantine, rules),
        );
    }
    let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
    assert_eq!(found.changes.len(), search::EDITS);
    assert_eq!(found.searched, Searched::All);
}

#[test]
fn no_more_is_tried_than_is_said() {
    let world = with_rules("web", Direction::Ingress, too_many_rules());
    let (found, searched) = after_trials(&world, 0, "192.0.2.1", "shop/web");
    assert_eq!((found, searched), (None, Searched::Part));
    let (found, searched) = after_trials(&world, 1, "192.0.2.1", "shop/web");
    assert_eq!(
        (found.map(|edits| edits.len()), searched),
        (Some(1), Searched::All)
    );
}

/// The rules begin one after the other, in a policy that is over.
#[test]
fn moments_beyond_the_bound_are_not_tried() {
    let mut world = example::world();
    let many = i64::try_from(search::MOMENTS).unwrap();
    for (rules, searched) in [(many, Searched::All), (many + 1, Searched::Part)] {
        let begins = |number| When {
            not_before: Some(Time::from_unix(NOW + 60 * number)),
            ..When::default()
        };
        let rules = (1..=rules).map(|number| denies_everybody(begins(number)));
        let mut policy = for_web("over", Tier::Admin, rules.collect());
        policy.when.expires = Some(Time::from_unix(NOW));
        add(&mut world, policy);
        let found = counterfactual(&world, "192.0.2.1", "shop/web", "TCP/80");
        assert_eq!(found.searched, searched);
        assert_eq!(
            words(&found),
            [
                "add a RingfencePolicy of tier Admin and priority 0 that denies shop/web ingress from \
                 192.0.2.1/32 on TCP/80"
            ]
        );
    }
}
