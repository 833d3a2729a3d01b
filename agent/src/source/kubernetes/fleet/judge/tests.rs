use super::*;
use crate::source::kubernetes::report::Version;

fn known(uid: &str, version: &str) -> Known {
    Known {
        uid: uid.to_owned(),
        version: Version {
            resource: version.to_owned(),
            generation: Some(1),
        },
    }
}

fn key(name: &str) -> Key {
    Key {
        kind: Kind::NetworkPolicy,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

/// Of the names, each in a version.
fn policies(versions: &[(&str, &str)]) -> Policies {
    let known = |(name, version): &(&str, &str)| (key(name), known(name, version));
    versions.iter().map(known).collect()
}

/// Of an agent that has these in force.
fn report(versions: &[(&str, &str)]) -> Report {
    let digests = versions
        .iter()
        .map(|(uid, version)| Digest::of(uid, version));
    let highest = versions
        .iter()
        .filter_map(|(_, version)| version.parse::<u64>().ok());
    let tally = Tally {
        kind: Kind::NetworkPolicy.name().to_owned(),
        objects: versions.len(),
        digest: digests.fold(Digest::default(), Digest::with),
        resource_version: highest.max().map(|highest| highest.to_string()),
    };
    Report {
        enforcing: true,
        complete: true,
        policies: versions.len(),
        kinds: vec![tally],
        ..Report::default()
    }
}

fn of(report: Report, policies: &Policies, about: Option<&str>) -> (State, Vec<String>) {
    let reported = Reported { report, age: 10 };
    let reports = [("n1".to_owned(), reported)].into();
    let about = about.map(|name| policies.get_key_value(&key(name)).unwrap());
    let standing = judge(&["n1".to_owned()], &reports, policies, about);
    (standing[0].state, standing[0].messages.clone())
}

fn state(report: Report, policies: &Policies, about: Option<&str>) -> State {
    of(report, policies, about).0
}

#[test]
fn what_is_in_force_as_the_api_has_it_is_so_for_each_policy() {
    let versions = [("a", "5"), ("b", "7")];
    let api = policies(&versions);
    for about in [None, Some("a"), Some("b")] {
        assert_eq!(state(report(&versions), &api, about), State::InForce);
    }
    assert_eq!(state(report(&[]), &policies(&[]), None), State::InForce);
}

#[test]
fn a_node_that_lacks_the_last_change_lags_in_that_policy_alone() {
    let api = policies(&[("a", "5"), ("b", "9")]);
    let before = report(&[("a", "5"), ("b", "7")]);
    assert_eq!(state(before.clone(), &api, Some("a")), State::InForce);
    assert_eq!(state(before.clone(), &api, Some("b")), State::Lagging);
    let (state, messages) = of(before, &api, None);
    assert_eq!(state, State::Lagging);
    assert_eq!(messages, ["NetworkPolicy: another version of some of 2"]);
}

#[test]
fn a_policy_that_is_deleted_is_in_force_no_more_when_the_digest_says_so() {
    let api = policies(&[("a", "5")]);
    let before = report(&[("a", "5"), ("b", "7")]);
    let (state, messages) = of(before.clone(), &api, None);
    assert_eq!(state, State::Lagging);
    assert_eq!(messages, ["NetworkPolicy: 2 are in force, the API has 1"]);
    assert_eq!(of(before, &api, Some("a")).0, State::InForce);
}

#[test]
fn versions_that_are_no_numbers_are_compared_for_equality_alone() {
    let before = report(&[("a", "x5"), ("b", "x7")]);
    let same = policies(&[("a", "x5"), ("b", "x7")]);
    assert_eq!(state(before.clone(), &same, Some("a")), State::InForce);
    let other = policies(&[("a", "x5"), ("b", "x9")]);
    // It may be so, and nobody can tell.
    assert_eq!(state(before, &other, Some("a")), State::Lagging);
}

#[test]
fn an_object_with_an_error_is_named_and_the_others_are_in_force() {
    let api = policies(&[("a", "5"), ("b", "9"), ("c", "6")]);
    let held = Held {
        object: "NetworkPolicy/shop/b".to_owned(),
        resource_version: "9".to_owned(),
        in_force: Some("7".to_owned()),
        message: "no such port".to_owned(),
        generation: None,
    };
    let has_error = Report {
        errors: 1,
        held: vec![held.clone()],
        ..report(&[("a", "5"), ("b", "7"), ("c", "6")])
    };
    assert_eq!(state(has_error.clone(), &api, Some("a")), State::InForce);
    let expected = "NetworkPolicy/shop/b is in force as of resource version 7: no such port";
    for about in [None, Some("b")] {
        let (state, messages) = of(has_error.clone(), &api, about);
        assert_eq!(state, State::Held);
        assert_eq!(messages, [expected]);
    }
    // Another one lags as well.
    let later = policies(&[("a", "11"), ("b", "9"), ("c", "6")]);
    assert_eq!(state(has_error.clone(), &later, None), State::Lagging);
    assert_eq!(state(has_error, &later, Some("c")), State::InForce);
    // It was never good.
    let never = Report {
        errors: 1,
        held: vec![Held {
            in_force: None,
            ..held.clone()
        }],
        ..report(&[("a", "5"), ("c", "6")])
    };
    assert_eq!(state(never.clone(), &api, Some("c")), State::InForce);
    assert_eq!(state(never, &api, Some("b")), State::Held);
    // Of more than are named nobody knows which they are.
    let many = Report {
        errors: 2,
        held: vec![held],
        ..report(&[("a", "5"), ("b", "7")])
    };
    assert_eq!(state(many, &api, Some("c")), State::Lagging);
}

#[test]
fn who_says_nothing_or_nothing_for_long_lags_whatever_was_said() {
    let versions = [("a", "5")];
    let api = policies(&versions);
    let reports: BTreeMap<_, _> = [
        ("n2", report(&versions), STALE + 1),
        ("n3", report(&versions), STALE),
        (
            "n4",
            Report {
                enforcing: false,
                ..report(&versions)
            },
            0,
        ),
    ]
    .map(|(name, report, age)| (name.to_owned(), Reported { report, age }))
    .into();
    let nodes = ["n1", "n2", "n3", "n4"].map(str::to_owned);
    let standings = judge(&nodes, &reports, &api, None);
    let states = standings.iter().map(|node| (&*node.name, node.state));
    let expected = [
        ("n1", State::Silent),
        ("n2", State::Stale),
        ("n4", State::NotEnforcing),
        ("n3", State::InForce),
    ];
    assert_eq!(states.collect::<Vec<_>>(), expected);
}

#[test]
fn what_did_not_come_into_force_says_why() {
    let refused = Report {
        refused: Some("no room".to_owned()),
        ..report(&[("a", "5")])
    };
    let api = policies(&[("a", "5"), ("b", "7")]);
    assert_eq!(state(refused.clone(), &api, Some("a")), State::InForce);
    let (state, messages) = of(refused, &api, Some("b"));
    assert_eq!(
        (state, &messages[..]),
        (State::Refused, &["no room".to_owned()][..])
    );
}
