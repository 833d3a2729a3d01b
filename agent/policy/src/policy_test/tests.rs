use super::*;
use crate::{
    example,
    load::parse_file,
    model::{Change, ObjectName, Peers},
};

const TEST: &str = r#"
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
spec:
  expect:
  - {from: shop/web, to: shop/api, ports: [TCP/8080], verdict: allow, rule: "shop/api ingress[0]"}
  - {from: shop/web, to: shop/api, ports: [TCP/80, ICMP], verdict: allow}
  - {from: shop/web, to: shop/api, ports: [TCP/8080], verdict: allow, rule: "other <rule>"}
  - {from: shop/nobody, to: shop/api, ports: [TCP/80], verdict: deny}
"#;

fn report(text: &str) -> Report {
    report_of(&example::world(), text)
}

fn report_of(world: &World, text: &str) -> Report {
    let file = parse_file("t.yaml".into(), text.as_bytes());
    assert!(!file.has_errors(), "{:?}", file.diagnostics);
    run(world, file.policy_tests(), Perspective::default())
}

#[test]
fn each_connection_is_a_case() {
    let mut text = Vec::new();
    report(TEST).render(&mut text).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "shop: 1 of 5 pass\n  \
           FAIL: shop/web to shop/api TCP/80: allow at t.yaml:8: expected allow, found deny\n    \
             egress: allow, no policy selects it in this direction\n    \
             ingress: deny, selected by policy, and no rule permits it\n  \
           FAIL: shop/web to shop/api ICMP: allow at t.yaml:8: expected allow, found deny\n    \
             egress: allow, no policy selects it in this direction\n    \
             ingress: deny, selected by policy, and no rule permits it\n  \
           FAIL: shop/web to shop/api TCP/8080: allow at t.yaml:9: allow as expected, but not by \
             `other <rule>`\n    \
             egress: allow, no policy selects it in this direction\n    \
             ingress: allow, by shop/api ingress[0] at shop.yaml:12\n  \
           error: shop/nobody to shop/api TCP/80: deny at t.yaml:10: no pod or workload is called \
             `shop/nobody`\n\
         1 passed, 3 failed, 1 could not be asked\n"
    );
}

#[test]
fn junit_escapes_what_files_say() {
    let mut text = Vec::new();
    report(TEST).junit(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for expected in [
        r#"<testsuites tests="5" failures="3" errors="1">"#,
        r#"<testcase classname="shop" name="shop/web to shop/api TCP/8080: allow" file="t.yaml" line="7"/>"#,
        r#"<failure message="allow as expected, but not by `other &lt;rule&gt;`">"#,
        r#"<error message="no pod or workload is called `shop/nobody`"/></testcase>"#,
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn json_tells_the_endings_apart() {
    let json = serde_json::to_value(report(TEST)).unwrap();
    assert_eq!(json["passed"], 1);
    let results: Vec<_> = json["suites"][0]["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["result"].as_str().unwrap())
        .collect();
    assert_eq!(results, ["pass", "fail", "fail", "fail", "error"]);
}

#[test]
fn a_name_has_to_end_as_expected_with_each_of_its_addresses() {
    let expected = r#"
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
spec:
  expect:
  - {from: shop/web, to: shop/db, ports: [TCP/5432], verdict: allow}
  - {from: shop/web, to: shop/db, ports: [TCP/5432], verdict: deny}
  - {from: 10.1.0.3, to: shop/db, ports: [TCP/5432], verdict: allow, rule: "shop/db ingress[0]"}
  - {from: 10.1.0.2, to: shop/db, ports: [TCP/5432], verdict: deny}
  - {from: node/edge, to: shop/db, ports: [TCP/5432], verdict: allow}
  - {from: shop/client, to: service/shop/front, ports: [TCP/5432], verdict: allow}
  - {from: shop/job, to: shop/client, ports: [TCP/5432], verdict: allow}
  - {from: shop/job, to: shop/client, ports: [TCP/5432], verdict: deny}
"#;
    let report = report_of(&example::by_address(), expected);
    let endings: Vec<_> = report.suites[0]
        .cases
        .iter()
        .map(|case| match &case.ending {
            Ending::Pass => "",
            Ending::Fail { message, .. } | Ending::Error { message } => message,
        })
        .collect();
    assert_eq!(
        endings,
        [
            "expected allow, found deny from 10.1.0.2 to 10.1.0.9 (1 of 2 pairs of addresses)",
            "expected deny, found allow from 10.1.0.3 to 10.1.0.9 (1 of 2 pairs of addresses)",
            "",
            "",
            "expected allow, found deny from 192.0.2.1 to 10.1.0.9 (1 of 2 pairs of addresses)",
            "expected allow, found deny from fd00::1 to fd00:96::1 (1 of 2 pairs of addresses)",
            "",
            "expected deny, found allow",
        ]
    );
}

#[test]
fn the_rule_has_to_decide_for_each_address() {
    let mut world = example::by_address();
    let name = ObjectName::new("shop", "db");
    let mut policy = world.network_policies[&name].as_ref().clone();
    let rules = policy.ingress.as_mut().unwrap();
    let mut more = rules[0].clone();
    more.peers = Peers::Every;
    rules.push(more);
    world.apply(&Change::NetworkPolicy(name, Some(policy.into())));
    let expected = r#"
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
spec:
  expect:
  - {from: shop/web, to: shop/db, ports: [TCP/5432], verdict: allow, rule: "shop/db ingress[0]"}
"#;
    let json = serde_json::to_value(report_of(&world, expected)).unwrap();
    assert_eq!(
        json["suites"][0]["cases"][0]["message"],
        "allow as expected, but not by `shop/db ingress[0]` from 10.1.0.2 to 10.1.0.9 (1 of 2 \
         pairs of addresses)"
    );
}
