//! Lists of a hundred thousand: read in time that grows with them, problems bounded.

use std::{fmt::Write, sync::Arc};

use agent_policy::{
    compiled::Everywhere,
    diagnostic::MAX_DIAGNOSTICS,
    load::{InputFile, Loaded, load},
    model::{Direction, ObjectName, Time},
    question::{Action, Evaluator, Origin, Question, View, Why},
};

const MANY: usize = 100_000;

/// Enough to last minutes where it is the square that counts.
const FEWER: usize = 30_000;

fn load_text(text: String) -> Loaded {
    load([InputFile {
        name: Arc::from("large"),
        bytes: text.into_bytes(),
    }])
}

/// A document around a list of many items.
fn around(start: &str, item: impl Fn(usize) -> String, end: &str) -> String {
    listed(MANY, start, item, end)
}

fn listed(count: usize, start: &str, item: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0..count {
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

fn address(number: usize) -> String {
    let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

fn good() -> Vec<String> {
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
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}], externalIPs: [",
            address,
            "]}}",
        ),
    ]
}

/// Lists that are compared with one another, or with all that is declared.
fn compared() -> Vec<String> {
    let names = |name: fn(usize) -> String| {
        let table = "{apiVersion: ringfence.io/v1alpha1, kind: NameTable, metadata: {name: t}, \
                     spec: {names: {";
        around(table, |n| format!("{}: [192.0.2.1]", name(n)), "}}}\n---\n")
    };
    vec![
        around(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
             spec: {policyTypes: [Egress], podSelector: {matchExpressions: [",
            |n| format!("{{key: k{n}, operator: Exists}}"),
            "]}}}",
        ),
        around(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
             spec: {policyTypes: [Egress], podSelector: {matchExpressions: [",
            |n| format!("{{key: k, operator: NotIn, values: [v{n}]}}"),
            "]}}}",
        ),
        names(|n| format!("a.n{n}.example.org"))
            + &around(
                &(policy("{nodes: {}}") + "{action: Allow, to: ["),
                |n| format!("{{domain: \"*.n{n}.example.org\"}}"),
                "]}]}}",
            ),
        around(
            "{apiVersion: v1, kind: List, items: [",
            |n| {
                policy("{nodes: {}}").replace("name: p", &format!("name: p{n}"))
                    + "{action: Deny}]}}"
            },
            "]}",
        ),
    ]
}

/// Rules of which each could be asked about each, for a workload that is there. All of them deny
/// TCP 2 at 10.0.0.1; the number is that of the rule that does.
fn compiled() -> Vec<(String, u32)> {
    let egress = |start: &str, item: fn(usize) -> String, end: &str| {
        let subject = "{apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {name: w}, \
                       spec: {addresses: [192.0.2.1]}}\n---\n";
        let start = subject.to_owned() + &policy("{workloads: {}}") + start;
        listed(FEWER, &start, item, end)
    };
    vec![
        (
            egress(
                "",
                |n| {
                    format!(
                        "{{action: Deny, to: [{{cidr: {{block: {}/32}}}}], ports: [{{tcp: {{port: {}}}}}]}}",
                        address(n),
                        n + 1
                    )
                },
                "]}}",
            ),
            1,
        ),
        (
            egress(
                "",
                |n| format!("{{action: Deny, ports: [{{tcp: {{port: {}}}}}]}}", n + 1),
                "]}}",
            ),
            1,
        ),
        (
            egress(
                "",
                |n| {
                    let (hour, minute) = (n / 60 % 24, n % 60);
                    let clock = format!("\"{hour:02}:{minute:02}\"");
                    let day = ["Tuesday", "Wednesday", "Tuesday, Wednesday"][n / 1440 % 3];
                    format!(
                        "{{action: Deny, ports: [{{tcp: {{port: {}}}}}], when: {{schedule: {{timeZone: \
                         Europe/Berlin, windows: [{{days: [{day}], from: {clock}, to: {clock}}}]}}}}}}",
                        n + 1
                    )
                },
                "]}}",
            ),
            1,
        ),
        (
            egress(
                "{action: Deny, ports: [",
                |n| format!("{{tcp: {{port: {}, endPort: {}}}}}", 1 + n, 2 + n),
                "]}]}}",
            ),
            0,
        ),
        (
            egress(
                "{action: Deny, to: [",
                |n| {
                    format!(
                        "{{cidr: {{block: 10.0.0.0/8, except: [{}/32]}}}}",
                        address(n)
                    )
                },
                "]}]}}",
            ),
            0,
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
            &(policy("{nodes: {}}")
                + "{action: Deny, when: {schedule: {timeZone: Europe/Berlin, windows: ["),
            |_| "{days: [Monday], from: \"00:00\", to: \"24:00\"}".to_owned(),
            "]}}}]}}",
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
    for text in good().into_iter().chain(compared()) {
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

#[test]
fn many_rules_are_compiled() {
    // A Tuesday.
    let now = Time::parse("2026-11-24T12:00:00Z").unwrap();
    for (text, index) in compiled() {
        let start: String = text.chars().take(300).collect();
        let loaded = load_text(text);
        assert!(
            !loaded.has_errors(),
            "{start}: {:?}",
            loaded.diagnostics.first()
        );
        let answer = Everywhere::new(&loaded.world, now).answer(&Question {
            subject: ObjectName::new("default", "w").into(),
            direction: Direction::Egress,
            peer: [10, 0, 0, 1].into(),
            socket: None,
            protocol: 6,
            port: 2,
            origin: Origin::Forwarded,
            view: View::Live,
            at: now,
        });
        let Why::Rule(rule) = answer.why else {
            panic!("{start}: {answer:?}");
        };
        assert_eq!(
            (rule.index, answer.action),
            (index, Action::Drop),
            "{start}"
        );
    }
}
