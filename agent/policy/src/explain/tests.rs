use proptest::prelude::*;

use super::*;
use crate::{
    example,
    model::{
        Change, Mode, ObjectName, Peers, PolicyId, PortName, Ports, Protocol, Selector, Service,
        ServicePort, Subjects, TierAction, TierPolicy, TierRule, When,
    },
    question::Why,
    reference::Reference,
    strategies,
};

fn ask(from: &str, to: &str, port: &str) -> Explanation {
    ask_between(&example::world(), from, to, port)
}

fn ask_between(world: &World, from: &str, to: &str, port: &str) -> Explanation {
    let end = |text| End::parse(world, text).unwrap();
    explain(
        world,
        &Reference(world),
        &end(from),
        &end(to),
        port.parse().unwrap(),
        Perspective::default(),
    )
    .unwrap()
}

fn text(explanation: &Explanation) -> String {
    let mut text = Vec::new();
    explanation.render(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_permitted_connection_names_the_rule_and_its_line() {
    let explanation = ask("shop/web", "10.1.0.1", "TCP/8080");
    assert_eq!(
        text(&explanation),
        "allow: shop/web (10.1.0.2) to shop/api (10.1.0.1) TCP/8080\n\
         \n\
         egress of shop/web: allow, no policy selects it in this direction\n\
         \n\
         ingress of shop/api: allow, by shop/api ingress[0] at shop.yaml:12\n  \
           shop/api at shop.yaml:10\n    \
             ingress[0] at shop.yaml:12: matches\n\
         \n\
         to deny it:\n  \
           remove rule ingress[0] of NetworkPolicy shop/api\n"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["verdict"], "allow");
    assert_eq!(json["ingress"]["policy"], "shop/api");
    assert_eq!(json["ingress"]["rule"], "ingress[0]");
    assert_eq!(json["ingress"]["line"], 12);
    assert_eq!(json["egress"]["reason"], "not-isolated");
    assert!(json["egress"]["policy"].is_null());
}

#[test]
fn a_denied_connection_says_what_each_rule_missed() {
    for (from, port, result) in [
        ("shop/web", "TCP/80", RuleResult::OtherPort),
        ("shop/web", "ICMP", RuleResult::OtherPort),
        ("192.0.2.1", "TCP/8080", RuleResult::OtherPeer),
        ("node/two", "UDP/1", RuleResult::OtherPeerAndPort),
    ] {
        let explanation = ask(from, "shop/api", port);
        assert_eq!(explanation.verdict, Verdict::Deny, "{from} {port}");
        let rule = &explanation.ingress.policies[0].rules[0];
        assert_eq!(rule.result, result, "{from} {port}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_is_shown_as_matching_where_one_decides(
        (world, _, questions) in strategies::world_and_questions(),
    ) {
        for question in &questions {
            if !reference::behind_frontend(&world, question).is_empty() {
                continue;
            }
            let decided = Reference(&world).answer(question).why;
            let rules = considered(&world, question);
            let matches = rules.iter().flat_map(|policy| &policy.rules)
                .any(|rule| rule.result == RuleResult::Matches);
            match decided {
                Why::Rule { .. } => prop_assert!(matches),
                Why::DefaultDeny | Why::Stale => prop_assert!(!rules.is_empty()),
                Why::UnknownSubject => prop_assert!(rules.is_empty()),
                Why::NotIsolated | Why::ItsOwnAddress | Why::OwnNode => {}
            }
        }
    }
}

/// The example with a ranked policy that keeps `shop/web` from TCP/8080, in a mode.
fn with_ranked_policy(mode: Mode) -> World {
    let mut world = example::world();
    let id = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "freeze");
    let policy = TierPolicy {
        id: id.clone(),
        tier: Tier::Admin,
        priority: 10,
        subjects: Subjects::Workloads {
            namespaces: Selector::default(),
            workloads: example::is("api"),
            host_network: true,
        },
        ingress: vec![TierRule {
            name: Some("nobody".to_owned()),
            action: TierAction::Deny,
            peers: Peers::Every,
            ports: Ports::Every,
            when: When {
                expires: Some(Time::from_unix(3600)),
                ..When::default()
            },
            source: example::source(31),
        }],
        egress: Vec::new(),
        when: When::default(),
        terms: Terms {
            mode,
            reason: Some("ticket 4711".to_owned()),
            ..Terms::default()
        },
        source: example::source(30),
    };
    world.apply(&Change::TierPolicy(id, Some(policy.into())));
    world
}

fn ask_of(world: &World, to: &str) -> Explanation {
    ask_between(world, "shop/web", to, "TCP/8080")
}

#[test]
fn what_was_left_out_of_the_search_is_said() {
    let mut explanation = ask("shop/web", "10.1.0.1", "TCP/8080");
    let mut found = explanation.counterfactual.clone().unwrap();
    found.searched = Searched::Part;
    explanation.counterfactual = Some(found.clone());
    let told = text(&explanation);
    assert!(
        told.ends_with(
            "to deny it:\n  remove rule ingress[0] of NetworkPolicy shop/api\n  a smaller change \
             may exist: not everything was tried\n"
        ),
        "{told}"
    );
    found.changes.clear();
    explanation.counterfactual = Some(found);
    let told = text(&explanation);
    assert!(
        told.ends_with("to deny it:\n  nothing was found, and not everything was tried\n"),
        "{told}"
    );
}

#[test]
fn a_ranked_rule_is_named_with_all_that_was_said_of_it() {
    let explanation = ask_of(&with_ranked_policy(Mode::Enforce), "shop/api");
    let text = text(&explanation);
    assert!(
        text.contains(
            "ingress of shop/api: deny, by RingfencePolicy (Admin) freeze ingress[0] `nobody` at \
             shop.yaml:31\n  reason: ticket 4711\n  RingfencePolicy freeze (Admin 10) at \
             shop.yaml:30\n    ingress[0] `nobody` Deny at shop.yaml:31: matches\n"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("to allow it for these addresses:\n  wait until 1970-01-01T01:00:00Z\n"),
        "{text}"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["ingress"]["tier"], "Admin");
    assert_eq!(json["ingress"]["rule_name"], "nobody");
    assert_eq!(json["ingress"]["terms"]["reason"], "ticket 4711");
}

#[test]
fn what_another_view_would_say_is_shown_where_it_differs() {
    let explanation = ask_of(&with_ranked_policy(Mode::Audit), "shop/api");
    assert_eq!(explanation.verdict, Verdict::Allow);
    let views: Vec<_> = explanation
        .would_be
        .iter()
        .map(|would| (would.view, would.pair.outcome.verdict))
        .collect();
    assert_eq!(views, [(View::Audit, Verdict::Deny)]);
    assert!(text(&explanation).contains("with the policies in audit it would be: deny\n"));
}

#[test]
fn a_service_is_asked_for_its_backends() {
    let mut world = with_ranked_policy(Mode::Enforce);
    let name = ObjectName::new("shop", "front");
    let service = Service {
        name: name.clone(),
        selector: Some([("app".to_owned(), "api".to_owned())].into()),
        addresses: ["10.96.0.1".parse().unwrap()].into(),
        ports: vec![ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 8080,
            target: PortName::Name("http".to_owned()),
            node_port: None,
        }],
        publish_not_ready: false,
        cluster: [].into(),
        other_proxy: false,
        by_hand: [].into(),
        last: [].into(),
        source: example::source(40),
    };
    world.apply(&Change::Service(name, Some(service.into())));
    for to in ["service/shop/front", "10.96.0.1"] {
        let explanation = ask_of(&world, to);
        assert_eq!(explanation.verdict, Verdict::Deny, "{to}");
        let text = text(&explanation);
        let expected = format!(
            "behind {to}: 1 of 1 backends not permitted\n  shop/api (10.1.0.1) TCP/8080: ingress \
             deny, by RingfencePolicy (Admin) freeze"
        );
        assert!(text.contains(&expected), "{text}");
    }
}

/// Each pair of addresses with its verdict, the one that is shown first.
fn pairs(explanation: &Explanation) -> Vec<String> {
    let Explanation {
        from,
        to,
        verdict,
        others,
        ..
    } = explanation;
    let shown = format!("{} {} {verdict}", from.address, to.address);
    let other = |pair: &OtherPair| format!("{} {} {}", pair.from, pair.to, pair.outcome.verdict);
    [shown]
        .into_iter()
        .chain(others.iter().map(other))
        .collect()
}

#[test]
fn a_name_is_denied_if_one_of_its_addresses_is() {
    let world = example::by_address();
    for (from, to, expected) in [
        (
            "shop/web",
            "shop/db",
            ["10.1.0.2 10.1.0.9 deny", "10.1.0.3 10.1.0.9 allow"],
        ),
        (
            "shop/job",
            "shop/db",
            ["fd00::5 fd00::9 deny", "10.1.0.5 10.1.0.9 allow"],
        ),
        (
            "node/edge",
            "shop/db",
            ["192.0.2.1 10.1.0.9 deny", "198.51.100.1 10.1.0.9 allow"],
        ),
        (
            "shop/client",
            "service/shop/front",
            ["fd00::1 fd00:96::1 deny", "10.1.0.1 10.96.0.1 allow"],
        ),
    ] {
        let explanation = ask_between(&world, from, to, "TCP/5432");
        assert_eq!(explanation.verdict, Verdict::Deny, "{from}");
        assert_eq!(explanation.pairs, 2, "{from}");
        assert_eq!(pairs(&explanation), expected, "{from}");
    }
}

#[test]
fn an_address_is_asked_about_alone() {
    let world = example::by_address();
    for (from, to, expected) in [
        ("10.1.0.2", "shop/db", "10.1.0.2 10.1.0.9 deny"),
        ("10.1.0.3", "shop/db", "10.1.0.3 10.1.0.9 allow"),
        ("shop/job", "fd00::9", "fd00::5 fd00::9 deny"),
        ("192.0.2.1", "shop/db", "192.0.2.1 10.1.0.9 deny"),
        ("198.51.100.1", "shop/db", "198.51.100.1 10.1.0.9 allow"),
        ("shop/client", "10.96.0.1", "10.1.0.1 10.96.0.1 allow"),
        ("shop/client", "fd00:96::1", "fd00::1 fd00:96::1 deny"),
    ] {
        let explanation = ask_between(&world, from, to, "TCP/5432");
        assert_eq!(explanation.pairs, 1, "{from} {to}");
        assert_eq!(pairs(&explanation), [expected], "{from} {to}");
    }
    let of_node = ask_between(&world, "198.51.100.1", "shop/db", "TCP/5432");
    assert_eq!(of_node.from.to_string(), "node/edge (198.51.100.1)");
}

#[test]
fn pairs_that_differ_are_told_apart() {
    let world = example::by_address();
    let explanation = ask_between(&world, "shop/web", "shop/db", "TCP/5432");
    assert_eq!(
        text(&explanation),
        "deny, for 1 of 2 pairs of addresses: shop/web (10.1.0.2) to shop/db (10.1.0.9) TCP/5432\n\
         \n\
         egress of shop/web: allow, no policy selects it in this direction\n\
         \n\
         ingress of shop/db: deny, selected by policy, and no rule permits it\n  \
           shop/db at ends.yaml:37\n    \
             ingress[0] at ends.yaml:43: no: another peer\n\
         \n\
         for the other 1 of 2 pairs of addresses:\n  \
           10.1.0.3 to 10.1.0.9: allow\n    \
             egress: allow, no policy selects it in this direction\n    \
             ingress: allow, by shop/db ingress[0] at ends.yaml:43\n\
         \n\
         to allow it for these addresses:\n  \
           add to NetworkPolicy shop/db an ingress rule from app=web of namespace shop on TCP/5432\n"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["pairs"], 2);
    assert_eq!(json["others"].as_array().unwrap().len(), 1);
    assert_eq!(json["others"][0]["from"], "10.1.0.3");
    assert_eq!(json["others"][0]["to"], "10.1.0.9");
    assert_eq!(json["others"][0]["verdict"], "allow");
    assert_eq!(json["others"][0]["egress"]["reason"], "not-isolated");
    assert_eq!(json["others"][0]["ingress"]["policy"], "shop/db");
}

#[test]
fn pairs_that_agree_are_counted() {
    let explanation = ask("shop/web", "shop/api", "TCP/80");
    assert_eq!(pairs(&explanation), ["10.1.0.2 10.1.0.1 deny"]);
    let text = text(&explanation);
    assert!(
        text.contains("\nthe same for 1 other pair of addresses\n"),
        "{text}"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["pairs"], 2);
    assert!(json.get("others").is_none());
}

#[test]
fn another_view_is_told_for_the_pair_that_it_is_about() {
    let mut world = example::by_address();
    let name = ObjectName::new("shop", "db");
    let mut policy = world.network_policies[&name].as_ref().clone();
    policy.terms.mode = Mode::Audit;
    world.apply(&Change::NetworkPolicy(name, Some(policy.into())));
    let explanation = ask_between(&world, "shop/job", "shop/db", "TCP/5432");
    assert_eq!(pairs(&explanation), ["10.1.0.5 10.1.0.9 allow"]);
    let told: Vec<_> = explanation
        .would_be
        .iter()
        .map(|would| {
            (
                would.view,
                would.pair.from.to_string(),
                would.pair.outcome.verdict,
            )
        })
        .collect();
    assert_eq!(told, [(View::Audit, "fd00::5".to_owned(), Verdict::Deny)]);
    let text = text(&explanation);
    assert!(
        text.contains("\nwith the policies in audit fd00::5 to fd00::9 would be: deny\n"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_name_is_permitted_if_each_of_its_addresses_is(
        (world, now, questions) in strategies::world_and_questions(),
    ) {
        let perspective = Perspective::live(now);
        let reference = Reference(&world);
        let owner = |address| world.addresses.get(address).cloned().map(End::Workload);
        for question in &questions {
            let port = Port { protocol: question.protocol, number: question.port };
            let from = End::Workload(match question.subject.workload() {
                Some(name) => name.clone(),
                None => continue,
            });
            let Some(to) = owner(&question.peer) else { continue };
            let Ok(ways) = Ways::new(&world, &from, &to, port, perspective) else { continue };
            let ways = ways.judge(&world, &reference);
            let mut all = Verdict::Allow;
            for way in ways.iter() {
                let of = |end: &End, address| match end {
                    End::Workload(name) if world.workloads[name].owns_its_addresses() => {
                        End::Address(address)
                    }
                    shared => shared.at(address),
                };
                let (from, to) = (of(&from, way.connection.from), of(&to, way.connection.to));
                let alone = Ways::new(&world, &from, &to, port, perspective).unwrap();
                prop_assert_eq!(alone.count(), 1);
                let outcome = &alone.judge(&world, &reference).telling().outcome.clone();
                prop_assert_eq!(outcome, &way.outcome);
                all = all.and(outcome.verdict);
            }
            prop_assert_eq!(ways.telling().outcome.verdict, all);
        }
    }
}
