use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::control::Request;

/// Of a client in edge to a server in shop, which a policy in audit would deny.
fn record() -> Value {
    json!({
        "schema_version": 1, "seq": 1, "node": "n", "agent_version": "0.1.0", "kind": "end",
        "flow_id": "0000000000000abc", "start": "2023-11-14T22:13:20Z", "end": "2023-11-14T22:13:21Z",
        "src": {"ip": "10.0.0.2", "port": 40000,
                "workload": {"namespace": "edge", "name": "gateway", "kind": "Workload",
                             "labels": {"role": "gateway", "zone": "a"}}},
        "dst": {"ip": "fd00::1", "port": 8080,
                "workload": {"namespace": "shop", "name": "api", "kind": "Workload",
                             "labels": {"app": "api", "zone": "b"}}, "service": "shop/web", "dns_name": "api.shop.example"},
        "protocol": {"number": 6, "name": "tcp"}, "direction": "ingress", "initiator_known": true,
        "forward": {"packets": 5, "bytes": 500}, "reverse": {"packets": 4, "bytes": 4000},
        "end_reason": "fin", "verdict": "allow",
        "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "api", "rule": "ingress[0]", "rule_id": 7},
        "default_deny": false, "reason": "rule",
        "would_be": [{"view": "audit", "verdict": "deny", "reason": "deny-rule",
                      "policy": {"kind": "ClusterNetworkPolicy", "name": "lockdown", "rule": "ingress[1]", "rule_id": 8}}],
        "process": {"pid": 812, "comm": "nginx", "exe": "/usr/sbin/nginx", "uid": 33, "cgroup_id": 77,
                    "container_id": "0a1b"}
    })
}

fn line(value: &Value) -> Line {
    Line::parse(&value.to_string()).unwrap()
}

#[derive(Debug, Parser)]
struct Typed {
    #[command(flatten)]
    request: FlowsRequest,
    // What `--follow` conflicts with.
    #[arg(long)]
    file: Option<String>,
}

fn typed(words: &str) -> Result<FlowsRequest, String> {
    let words = std::iter::once("flows").chain(words.split_whitespace());
    let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
    Ok(typed.request)
}

/// As the agent understands it.
fn sent(request: &FlowsRequest) -> FlowsRequest {
    let text = serde_json::to_string(&Request::Flows(Box::new(request.clone()))).unwrap();
    match serde_json::from_str(&text).unwrap() {
        Request::Flows(received) => *received,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_filter_has_what_fits_and_what_does_not() {
    let cases = [
        ("--verdict allow", "--verdict deny"),
        ("--exe /usr/sbin/nginx", "--exe nginx"),
        ("--container 0a", "--container 1b"),
        ("--dns-name Api.Shop.Example.", "--dns-name shop.example"),
        ("--dns-name *.shop.example", "--dns-name *.api.shop.example"),
        ("--service shop/web", "--service shop/api"),
        ("--end-reason fin", "--end-reason rst"),
        ("--direction ingress", "--direction egress"),
        ("--kind start --kind end", "--kind deny"),
        ("--workload edge/gateway", "--workload shop/gateway"),
        ("--namespace edge", "--namespace other"),
        ("--namespace other --namespace shop", "--namespace e"),
        (
            "--label app=api --label zone=b",
            "--label app=api --label zone=a",
        ),
        ("--label role=gateway", "--label role="),
        ("--ip 10.0.0.2", "--ip 10.0.0.3"),
        ("--ip fd00::/64", "--ip 10.1.0.0/16"),
        ("--port 40000", "--port 41000"),
        ("--port 1 --port 8080", "--port 1"),
        ("--to-port 8080", "--to-port 40000"),
        ("--protocol TCP", "--protocol udp"),
        ("--protocol 6", "--protocol 47"),
        ("--policy shop/api", "--policy edge/api"),
        ("--policy api", "--policy gateway"),
        ("--policy lockdown", "--policy shop/lockdown"),
        ("--reason rule", "--reason default-deny"),
        ("--process nginx", "--process ngin"),
        ("--verdict allow --port 8080", "--verdict deny --port 8080"),
    ];
    let flow = line(&record());
    for (fits, does_not) in cases {
        for (words, expected) in [(fits, true), (does_not, false)] {
            let request = typed(words).unwrap();
            assert_eq!(request.wants(&flow), expected, "{words}");
            assert_eq!(sent(&request), request, "{words}");
        }
    }
}

#[test]
fn what_is_not_there_fits_no_filter() {
    let mut record = record();
    for key in ["policy", "would_be", "process", "reason"] {
        record.as_object_mut().unwrap().remove(key);
    }
    for end in ["src", "dst"] {
        record[end] = json!({});
    }
    let flow = line(&record);
    assert!(FlowsRequest::default().wants(&flow));
    for words in [
        "--workload edge/gateway",
        "--namespace edge",
        "--label role=gateway",
        "--ip 0.0.0.0/0",
        "--port 8080",
        "--to-port 8080",
        "--policy api",
        "--reason rule",
        "--process nginx",
        "--exe /usr/sbin/nginx",
        "--container 0",
        "--dns-name *.example",
        "--service shop/web",
    ] {
        assert!(!typed(words).unwrap().wants(&flow), "{words}");
    }
}

#[test]
fn nodes_and_services_are_at_the_far_end_too() {
    let mut record = record();
    record["dst"] = json!({"ip": "192.0.2.1", "port": 30080, "service": "web/front",
                           "workload": {"name": "node-1", "kind": "Node"}});
    let flow = line(&record);
    for (words, expected) in [
        ("--workload node/node-1", true),
        ("--workload node/node-2", false),
        ("--namespace web", true),
        ("--namespace front", false),
        ("--namespace shop", false),
    ] {
        assert_eq!(typed(words).unwrap().wants(&flow), expected, "{words}");
    }
}

#[test]
fn what_was_dropped_is_found_by_why() {
    let mut record = record();
    record["kind"] = json!("deny");
    record["verdict"] = json!("deny");
    record["reason"] = Value::Null;
    record["drop_reason"] = json!("default-deny");
    record["protocol"] = json!({"number": 0, "name": "arp"});
    let flow = line(&record);
    let words = "--reason default-deny --kind deny --protocol arp";
    assert!(typed(words).unwrap().wants(&flow));
}

#[test]
fn losses_and_tampering_pass_every_filter() {
    let request =
        typed("--verdict deny --namespace x --ip 192.0.2.1 --kind start --process x").unwrap();
    let loss = json!({
        "schema_version": 1, "node": "n", "kind": "loss", "stage": "sink", "reason": "queue-full", "count": 3,
        "first": "2023-11-14T22:13:20Z", "last": "2023-11-14T22:13:21Z"
    });
    let tampering = json!({
        "schema_version": 1, "seq": 3, "node": "n", "kind": "tampering", "how": "written", "what": "map POLICY",
        "count": 2, "at": "2023-11-14T22:13:21Z", "restored": true
    });
    assert!(request.wants(&line(&loss)) && request.wants(&line(&tampering)));
    assert!(!request.wants(&line(&record())));
}

#[test]
fn a_wrong_value_is_told_what_it_should_be() {
    for (words, expected) in [
        ("--direction in", "[possible values: ingress, egress]"),
        ("--kind loss", "[possible values: start, update, end, deny]"),
        ("--workload api", "expected NAMESPACE/NAME"),
        ("--workload /api", "expected NAMESPACE/NAME"),
        ("--policy a/b/c", "expected NAMESPACE/NAME or NAME"),
        ("--policy shop/", "expected NAMESPACE/NAME or NAME"),
        ("--label app", "expected KEY=VALUE"),
        ("--label =x", "expected KEY=VALUE"),
        ("--ip 10.0.0", "neither an address nor a network"),
        ("--ip 10.0.0.0/33", "neither an address nor a network"),
        ("--ip 10.0.0.7/8", "expected 10.0.0.0/8, or 10.0.0.7"),
        ("--port 65536", "65536 is not in 0..=65535"),
        ("--port http", "invalid digit"),
        ("--protocol tpc", "expected tcp, udp"),
        ("--protocol 256", "a number up to 255"),
        ("--reason default_deny", "default-deny, "),
        ("--follow --file x", "cannot be used with"),
    ] {
        let error = typed(words).unwrap_err();
        assert!(error.contains(expected), "{words}: {error}");
    }
}

#[test]
fn two_values_of_one_label_contradict_each_other() {
    let contradiction = |words| {
        let request = typed(words).unwrap();
        request.contradiction().map(str::to_owned)
    };
    assert_eq!(contradiction("--label a=b --label c=d --label a=b"), None);
    assert_eq!(
        contradiction("--label a=b --label c=d --label a=d").as_deref(),
        Some("a")
    );
}

#[test]
fn what_is_not_asked_for_is_not_sent() {
    let text = |request| serde_json::to_string(&Request::Flows(Box::new(request))).unwrap();
    assert_eq!(
        text(FlowsRequest::default()),
        r#"{"command":"flows","follow":false}"#
    );
    assert_eq!(
        text(typed("--last 20 --follow --verdict deny --workload shop/api-0").unwrap()),
        r#"{"command":"flows","last":20,"follow":true,"verdict":"deny","workload":"shop/api-0"}"#
    );
    let of_before = r#"{"command":"flows","verdict":"deny"}"#;
    assert!(serde_json::from_str::<Request>(of_before).is_ok());
    for wrong in [
        r#"{"command":"flows","labels":["app"]}"#,
        r#"{"command":"flows","networks":["10.0.0.0/40"]}"#,
        r#"{"command":"flows","ports":[65536]}"#,
        r#"{"command":"flows","protocols":["x"]}"#,
        r#"{"command":"flows","port":80}"#,
    ] {
        assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
    }
}

/// The example of the page of the protocol.
#[test]
fn a_documented_request_is_one() {
    let page = include_str!("../../control.rs");
    let requests = page.lines().filter_map(|line| line.strip_prefix("//! {"));
    let requests: Vec<_> = requests.map(|rest| format!("{{{rest}")).collect();
    assert!(requests.len() >= 5, "{requests:?}");
    for request in requests {
        serde_json::from_str::<Request>(&request).unwrap();
    }
}
