use std::{collections::BTreeSet, sync::Arc};

use agent_policy::model::World;
use prometheus_client::encoding::text;
use serde_json::json;

use super::*;
use crate::{
    control::status::Status,
    flow::record::{Line, Record},
};

struct Fixed(Status);

impl StatusSource for Fixed {
    fn status(&self) -> Status {
        self.0.clone()
    }

    fn world(&self) -> Arc<World> {
        Arc::default()
    }
}

fn status() -> Status {
    serde_json::from_value(json!({
        "agent_version": "0.1.0", "pid": 1, "uptime_s": 7, "node": "n", "generation": 3, "enforcing": true,
        "endpoints": [{"name": "shop/a", "spec": "interface v", "state": "attached", "policies": 1}],
        "policies": {"NetworkPolicy": 2},
        "tables": [{"name": "flows_v4", "used": 5, "capacity": 10}],
        "events": {"seen": 9, "lost": 1},
        "drops": {"default-deny": 4},
        "tampered": {"detached": 2},
        "records": {
            "stream": {"seen": 9, "exported": 9, "lost": 0},
            "sinks": {"/var/log/\"a\"\\\n": {"seen": 9, "exported": 6, "lost": 3, "lost_by_kind": {"update": 3}}},
        },
        "hubble": {"streams": 1, "refused": 0, "told": 7, "missed": 2},
        "unknown_interfaces": {"mode": "strict", "interfaces": []},
        "kubernetes": {
            "complete": true, "from_kept": false,
            "watches": [{"kind": "Pod", "state": "listed", "objects": 3, "heard_s": 4}],
        },
        "features": [],
    }))
    .unwrap()
}

fn record(policy: &str) -> Record {
    let text = json!({
        "schema_version": 1, "seq": 1, "node": "n", "agent_version": "0.1.0", "kind": "end",
        "flow_id": "0000000000000abc", "start": "2023-11-14T22:13:20Z",
        "src": {"ip": "192.0.2.1", "port": 40_000}, "dst": {"ip": "192.0.2.2", "port": 80},
        "protocol": {"number": 6, "name": "tcp"}, "direction": "ingress", "initiator_known": true,
        "forward": {"packets": 5, "bytes": 500}, "reverse": {"packets": 4, "bytes": 4000},
        "verdict": "allow", "default_deny": false, "reason": "rule",
        "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": policy, "rule": "ingress[0]", "rule_id": 7},
    });
    match Line::parse(&text.to_string()).unwrap() {
        Line::Flow(record) => record,
        other => panic!("{other:?}"),
    }
}

fn scraped(flows: Arc<FlowCounts>) -> String {
    let latencies = Latencies::default();
    latencies.took(Duration::from_millis(3), Duration::from_micros(400));
    let mut out = String::new();
    let registry = registry(Arc::new(Fixed(status())), flows, &latencies);
    text::encode(&mut out, &registry).unwrap();
    out
}

#[test]
fn what_is_counted_is_scraped() {
    let flows = Arc::new(FlowCounts::default());
    flows.add(&record("api"));
    flows.add(&record("api"));
    let text = scraped(flows);
    for line in [
        r#"ringfence_flow_records_total{kind="end",verdict="allow",direction="ingress",reason="rule",policy="NetworkPolicy/shop/api"} 2"#,
        r#"ringfence_flow_packets_total{kind="end",verdict="allow",direction="ingress",reason="rule",policy="NetworkPolicy/shop/api"} 18"#,
        r#"ringfence_flow_bytes_total{kind="end",verdict="allow",direction="ingress",reason="rule",policy="NetworkPolicy/shop/api"} 9000"#,
        r#"ringfence_build{version="0.1.0"} 1"#,
        "ringfence_enforcing 1",
        "ringfence_generation 3",
        "ringfence_uptime_seconds 7",
        r#"ringfence_endpoints{state="attached"} 1"#,
        r#"ringfence_endpoints{state="failed"} 0"#,
        r#"ringfence_policies{kind="NetworkPolicy"} 2"#,
        r#"ringfence_table_entries{table="flows_v4"} 5"#,
        r#"ringfence_table_capacity{table="flows_v4"} 10"#,
        r#"ringfence_dropped_packets_total{reason="default-deny"} 4"#,
        r#"ringfence_dropped_packets_total{reason="deny-rule"} 0"#,
        r#"ringfence_tampering_total{how="detached"} 2"#,
        r#"ringfence_tampering_total{how="written"} 0"#,
        r#"ringfence_would_be_total{what="staged-deny"} 0"#,
        "ringfence_events_lost_total 1",
        r#"ringfence_lost_total{stage="ring-buffer",reason="full"} 0"#,
        "ringfence_hubble_streams 1",
        "ringfence_hubble_missed_total 2",
        "ringfence_compile_seconds_count 1",
        r#"ringfence_compile_seconds_bucket{le="0.002"} 0"#,
        r#"ringfence_compile_seconds_bucket{le="0.004"} 1"#,
        r#"ringfence_apply_seconds_bucket{le="0.0005"} 1"#,
    ] {
        let mut lines = text.lines();
        assert!(lines.any(|other| other == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn nothing_in_a_name_breaks_a_line() {
    let flows = Arc::new(FlowCounts::default());
    flows.add(&record(&format!("a\"b\\c\nd{}", "é".repeat(40_000))));
    let text = scraped(flows);
    let expected = r#"policy="NetworkPolicy/shop/a\"b\\c\ndé"#;
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains(r#"ringfence_sink_lost_total{sink="/var/log/\"a\"\\\n",kind="update"} 3"#),
        "{text}"
    );
    assert!(
        text.contains(r#"\n",kind="deny"} 0"#),
        "before the first one is lost: {text}"
    );
    for line in text.lines() {
        assert!(
            line.starts_with('#') || line.starts_with("ringfence_"),
            "{line}"
        );
        assert!(line.len() < 1000, "{line}");
    }
}

#[test]
fn policies_beyond_the_bound_are_counted_together() {
    let flows = Arc::new(FlowCounts::default());
    for number in 0..2100 {
        flows.add(&record(&number.to_string()));
    }
    let text = scraped(flows);
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(of("ringfence_flow_records_total"), 2001);
    let other = r#"ringfence_flow_records_total{kind="end",verdict="allow",direction="ingress",reason="rule",policy="other"} 100"#;
    assert!(text.lines().any(|line| line == other));
}

const PAGE: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../deploy/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/monitoring/dashboard.json");

/// What of a text is a metric's name.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !(it.is_ascii_lowercase() || it == '_'));
    words
        .filter(|word| word.starts_with("ringfence_"))
        .collect()
}

#[test]
fn page_alerts_and_dashboard_name_what_is_scraped() {
    let text = scraped(Arc::default());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types: Vec<(&str, &str)> = types.filter_map(|it| it.split_once(' ')).collect();
    let mut names = BTreeSet::new();
    for (name, kind) in types {
        let forms = match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => vec![name.to_owned(), format!("{name}_bucket")],
            _ => vec![name.to_owned()],
        };
        let form = forms.first().unwrap();
        assert!(
            named(PAGE).contains(form.as_str()),
            "{form} is not on the page"
        );
        names.extend(forms);
    }
    for text in [PAGE, ALERTS, DASHBOARD] {
        let unknown = named(text)
            .into_iter()
            .filter(|name| !names.contains(*name));
        assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);
    }
    assert!(named(DASHBOARD).len() > 12 && named(ALERTS).len() > 5);
}
