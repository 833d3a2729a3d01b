//! Lists of a hundred thousand: read in time that grows with them, problems bounded.

use std::{fmt::Write, sync::Arc};

use agent_policy::{
    diagnostic::MAX_DIAGNOSTICS,
    load::{InputFile, Loaded, load},
};

const MANY: usize = 100_000;

fn load_text(text: String) -> Loaded {
    load([InputFile {
        name: Arc::from("large"),
        bytes: text.into_bytes(),
    }])
}

/// A document around a list of many items.
fn around(start: &str, item: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0..MANY {
        write!(text, "{},", item(number)).unwrap();
    }
    text.push_str(end);
    text
}

fn policy(subject: &str) -> String {
    format!(
        "{{apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {{name: p}}, \
         spec: {{tier: Admin, priority: 1, subject: {subject}, egress: ["
    )
}

fn good() -> Vec<String> {
    let address = |n: usize| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
    let named = |n: usize| format!("{{name: p{n}, port: 1}}");
    vec![
        around(
            &policy("{nodes: {}}"),
            |n| {
                format!(
                    "{{action: Deny, to: [{{cidr: {{block: {}/32}}}}]}}",
                    address(n)
                )
            },
            "]}}",
        ),
        around(
            &(policy("{nodes: {}}") + "{action: Deny, to: ["),
            |n| format!("{{cidr: {{block: {}/32}}}}", address(n)),
            "]}]}}",
        ),
        around(
            &(policy("{nodes: {}}") + "{action: Deny, ports: ["),
            |_| "{tcp: {port: 1}}".to_owned(),
            "]}]}}",
        ),
        around(
            &(policy("{nodes: {}}")
                + "{action: Deny, when: {schedule: {timeZone: Europe/Berlin, windows: ["),
            |_| "{days: [Monday], from: \"00:00\", to: \"24:00\"}".to_owned(),
            "]}}}]}}",
        ),
        around(
            "{apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: p}, \
             spec: {tier: Quarantine, subject: {units: [",
            |n| format!("u{n}.service"),
            "]}}}",
        ),
        around(
            "{apiVersion: ringfence.io/v1alpha1, kind: NameTable, metadata: {name: t}, \
             spec: {names: {",
            |n| format!("n{n}.example.org: [192.0.2.1]"),
            "}}}",
        ),
        around(
            "{apiVersion: ringfence.io/v1alpha1, kind: NameTable, metadata: {name: t}, \
             spec: {names: {a.example.org: [",
            address,
            "]}}}",
        ),
        around(
            "{apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {name: w}, \
             spec: {ports: [",
            named,
            "]}}",
        ),
        around(
            "{apiVersion: v1, kind: Pod, metadata: {name: w}, spec: {containers: [{ports: [",
            |n| format!("{{name: p{n}, containerPort: 1}}"),
            "]}]}}",
        ),
        around(
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {externalIPs: [",
            address,
            "]}}",
        ),
    ]
}

fn bad() -> Vec<String> {
    let cluster = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, \
                   metadata: {name: p}, spec: {tier: Admin, priority: 1, \
                   subject: {namespaces: {}}, egress: [";
    vec![
        around(cluster, |_| "{action: Deny, to: [{}]}".to_owned(), "]}}"),
        around(cluster, |_| "{}".to_owned(), "]}}"),
        around(
            &(cluster.to_owned() + "{action: Accept, to: ["),
            |_| "{networks: []}".to_owned(),
            "]}]}}",
        ),
        // Each of them would be looked for among six hundred zones.
        around(
            &policy("{nodes: {}}"),
            |n| {
                format!(
                    "{{action: Deny, when: {{schedule: {{timeZone: Europe/Berln{n}, windows: []}}}}}}"
                )
            },
            "]}}",
        ),
        around(
            &policy("{nodes: {}}"),
            |n| format!("{{acton{n}: Deny}}"),
            "]}}",
        ),
        around(
            &(policy("{nodes: {}}") + "{"),
            |n| format!("acton{n}: Deny"),
            "}]}}",
        ),
        around(
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [",
            |_| "{port: 80, nodePort: 80, name: a}".to_owned(),
            "]}}",
        ),
        around(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, \
             annotations: {",
            |n| format!("ringfence.io/mod{n}: audit"),
            "}}, spec: {podSelector: {}}}",
        ),
    ]
}

#[test]
fn long_lists_are_read_whole() {
    for text in good() {
        let start: String = text.chars().take(200).collect();
        let loaded = load_text(text);
        assert!(
            !loaded.has_errors(),
            "{start}: {:?}",
            loaded.diagnostics.first()
        );
    }
}

#[test]
fn the_problems_of_long_lists_are_bounded() {
    for text in bad() {
        let start: String = text.chars().take(200).collect();
        let loaded = load_text(text);
        assert!(loaded.has_errors(), "{start}");
        assert!(loaded.diagnostics.len() <= MAX_DIAGNOSTICS + 1, "{start}");
    }
}
