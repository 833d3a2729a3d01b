//! Names in files that a terminal would obey: people see them escaped, machines as they are.

use std::sync::Arc;

use agent_policy::{
    connection::{End, Perspective},
    explain::explain,
    load::{ParsedFile, assemble, parse_file},
    policy_test,
    reference::Reference,
    verify::verify,
};

const HOSTILE: &str = r#"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: a, namespace: shop, labels: {app: x}}
spec: {addresses: [10.0.0.1]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a, annotations: {ringfence.io/reason: "r\u202e"}}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {name: "x\n\e[2Jallow: all is well\r\u0001\u202e<&>", action: Deny, to: [{networks: [0.0.0.0/0]}]}
---
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {name: b}
spec:
  tier: Admin
  priority: 2
  subject: {workloads: {}}
  egress: [{name: "y\u202e\u200b", action: Deny}]
---
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: t}
spec:
  expect:
  - {from: "sh\u0001op\e[31m/a\n", to: 192.0.2.1, ports: [TCP/1], verdict: allow}
  - {from: shop/a, to: 192.0.2.1, ports: [TCP/1], verdict: allow, rule: "z\u202e"}
  assert:
  - {name: "n\u202e", reach: always}
"#;

fn file() -> ParsedFile {
    parse_file(Arc::from("f\u{1b}[2J\n\u{202e}.yaml"), HOSTILE.as_bytes())
}

/// Nothing but text, and lines that we end ourselves.
fn harmless(text: &str) {
    let obeyed = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{200b}');
    assert!(!text.contains(obeyed), "{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with('\u{1b}')
            || line.starts_with("allow: all is well")
            || line.starts_with(".yaml")),
        "{text}"
    );
}

#[test]
fn what_people_read_is_escaped_and_what_machines_read_is_not() {
    let files = [file()];
    assert!(!files[0].has_errors(), "{:?}", files[0].diagnostics);
    let (world, problems) = assemble(&files);
    let mut out = String::new();
    for problem in &problems {
        problem.render(&mut out).unwrap();
    }
    harmless(&out);
    assert!(out.contains(r"f\u{1b}[2J\n\u{202e}.yaml"), "{out}");

    let evaluator = Reference(&world);
    let look = Perspective::default();
    let end = |text| End::parse(&world, text).unwrap();
    let port = "TCP/1".parse().unwrap();
    let (from, to) = (end("shop/a"), end("192.0.2.1"));
    let explanation = explain(&world, &evaluator, &from, &to, port, look).unwrap();
    let mut out = Vec::new();
    explanation.render(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    harmless(&text);
    assert!(text.contains(r"x\n\u{1b}[2Jallow: all is well\r\u{1}\u{202e}<&>"));
    assert!(text.contains(r"y\u{202e}\u{200b}"), "{text}");
    assert!(text.contains(r"reason: r\u{202e}"), "{text}");
    let json = serde_json::to_value(&explanation).unwrap();
    let name = json["egress"]["rule_name"].as_str().unwrap();
    assert!(name.starts_with("x\n\u{1b}[2J"), "{name:?}");

    let report = policy_test::run(&world, files[0].policy_tests(), look);
    let mut out = Vec::new();
    report.render(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    harmless(&text);
    assert!(text.contains(r"sh\u{1}op\u{1b}[31m/a\n"), "{text}");

    for test in files[0].policy_tests() {
        for proof in verify(&world, look, &test.assertions) {
            let mut out = Vec::new();
            proof.render(&mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            harmless(&text);
            assert!(text.contains(r"n\u{202e}"), "{text}");
        }
    }
}
