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
    let world = example::world();
    let end = |text| End::parse(&world, text).unwrap();
    explain(
        &world,
        &Reference(&world),
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
    let end = |text| End::parse(world, text).unwrap();
    let port = "TCP/8080".parse().unwrap();
    let perspective = Perspective::default();
    explain(
        world,
        &Reference(world),
        &end("shop/web"),
        &end(to),
        port,
        perspective,
    )
    .unwrap()
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
        text.ends_with("to allow it:\n  wait until 1970-01-01T01:00:00Z\n"),
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
        .map(|would| (would.view, would.outcome.verdict))
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
