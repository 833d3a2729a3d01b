use proptest::prelude::*;

use super::*;
use crate::{example, question::Why, reference::Reference, strategies};

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
