//! Flow records reach a collector of OpenTelemetry as what they are, though it comes late, is busy and goes away.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::consumer::{self, Running};
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(40);
const COLLECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/collector.py");
/// As settings and collector call them.
const BOTH: [&str; 2] = ["http", "grpc"];

/// A collector in `host` that turns so many requests away at first. Ends with what is given back.
fn collector(mut command: Command, host: &Netns, file: &Path, busy: usize) -> Result<Running> {
    command.arg(COLLECTOR).arg(file).arg(busy.to_string());
    Running::start(host, command.stdin(Stdio::null()))
}

fn settings(folder: &Path) -> String {
    format!(
        "sinks:\n\
         - name: file\n  file: {{path: {}/all.jsonl}}\n\
         - name: http\n  otlp: {{endpoint: 'http://localhost:4318', compression: gzip, metrics: true}}\n\
         - name: grpc\n  otlp: {{endpoint: 'http://127.0.0.1:4317', protocol: grpc, metrics: true}}\n",
        folder.display()
    )
}

fn values(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("a broken line")
}

/// By their numbers in the stream, those that have one.
fn by_seq(records: Vec<Value>, seq: impl Fn(&Value) -> Option<u64>) -> BTreeMap<u64, Value> {
    let numbered = records.into_iter();
    numbered
        .filter_map(|record| Some((seq(&record)?, record)))
        .collect()
}

/// What the collector has got over one protocol.
fn got(path: &Path, over: &str) -> Result<BTreeMap<u64, Value>> {
    let records = values(path)?.into_iter().filter(|it| it["over"] == over);
    Ok(by_seq(records.collect(), |it| {
        it["attributes"]["ringfence.seq"][1].as_u64()
    }))
}

/// What of a record as JSON is an attribute of that name, each with its type.
const SAME: [(&str, &str, &str); 22] = [
    ("/schema_version", "ringfence.schema_version", "int_value"),
    ("/kind", "ringfence.flow.kind", "string_value"),
    ("/flow_id", "ringfence.flow.id", "string_value"),
    (
        "/community_id",
        "ringfence.flow.community_id",
        "string_value",
    ),
    ("/start", "ringfence.flow.start", "string_value"),
    ("/end", "ringfence.flow.end", "string_value"),
    ("/src/ip", "source.address", "string_value"),
    ("/src/port", "source.port", "int_value"),
    ("/dst/ip", "destination.address", "string_value"),
    ("/dst/port", "destination.port", "int_value"),
    ("/protocol/name", "network.transport", "string_value"),
    ("/direction", "ringfence.direction", "string_value"),
    ("/forward/bytes", "ringfence.forward.bytes", "int_value"),
    ("/reverse/packets", "ringfence.reverse.packets", "int_value"),
    (
        "/forward/tcp_flags",
        "ringfence.forward.tcp_flags",
        "int_value",
    ),
    ("/verdict", "ringfence.verdict", "string_value"),
    ("/drop_reason", "ringfence.drop_reason", "string_value"),
    ("/default_deny", "ringfence.default_deny", "bool_value"),
    ("/policy/name", "ringfence.policy.name", "string_value"),
    ("/policy/rule_id", "ringfence.policy.rule_id", "int_value"),
    (
        "/src/workload/name",
        "ringfence.source.name",
        "string_value",
    ),
    (
        "/dst/workload/labels/app",
        "ringfence.destination.label.app",
        "string_value",
    ),
];

fn is_the_same(record: &Value, got: &Value) -> Result<()> {
    let attributes = got["attributes"].as_object().context("no attributes")?;
    for (pointer, name, kind) in SAME {
        let expected = record.pointer(pointer).map(|value| json!([kind, value]));
        ensure!(
            attributes.get(name) == expected.as_ref(),
            "{name}: {record}\n{got}"
        );
    }
    let denied = record["verdict"] == "deny";
    let severity = if denied {
        ("SEVERITY_NUMBER_WARN", "WARN")
    } else {
        ("SEVERITY_NUMBER_INFO", "INFO")
    };
    ensure!(got["event"] == "network.flow" && got["scope"] == "ringfence");
    ensure!(
        (&got["severity"], &got["severity_text"]) == (&severity.0.into(), &severity.1.into()),
        "{got}"
    );
    ensure!(got["resource"]["service.name"] == json!(["string_value", "ringfence"]));
    ensure!(got["resource"]["host.name"] == json!(["string_value", record["node"]]));
    ensure!(got["dropped"] == 0 && got["observed"].as_u64() >= got["time"].as_u64());
    Ok(())
}

/// That metrics have come over both, with what the agent has counted.
fn metrics_come(taken: &Path, agent: &Agent) -> Result<()> {
    let is_there = |over: &str, name: &str, kind: &str, holds: &dyn Fn(&Value) -> bool| {
        let all = values(taken).unwrap_or_default();
        all.iter().any(|it| {
            let points = it["points"].as_array();
            (&it["metric_over"], &it["name"], &it["kind"])
                == (&over.into(), &name.into(), &kind.into())
                && points.is_some_and(|points| points.iter().any(holds))
        })
    };
    let denied = |point: &Value| {
        point["attributes"]["reason"] == json!(["string_value", "default-deny"])
            && point["value"].as_u64() > Some(0)
    };
    let have_come = eventually(SOON, || {
        BOTH.iter().all(|over| {
            is_there(over, "ringfence_enforcing", "gauge", &|it| it["value"] == 1)
                && is_there(over, "ringfence_dropped_packets", "sum", &denied)
                && is_there(over, "ringfence_apply_seconds", "histogram", &|it| {
                    it["count"].as_u64() > Some(0)
                })
        })
    });
    ensure!(have_come, "{}\n{}", fs::read_to_string(taken)?, agent.log());
    Ok(())
}

/// That all has gone out over both, and nothing was lost.
fn all_is_out(agent: &Agent, expected: u64) -> Result<()> {
    let mut last = Value::Null;
    let is_out = eventually(SOON, || {
        last = agent.status().unwrap_or_default();
        ["file", "http", "grpc"].iter().all(|sink| {
            let count = |what: &str| last["records"]["sinks"][sink][what].as_u64();
            count("exported") == count("seen") && count("exported") >= Some(expected)
        })
    });
    ensure!(is_out, "{:#}\n{}", last["records"], agent.log());
    Ok(())
}

#[test]
fn a_collector_of_the_official_messages_takes_all_records() -> Result<()> {
    let (Some(first), Some(second)) = (consumer::python(), consumer::python()) else {
        return Ok(());
    };
    let scene = Scene::with(FRIEND_ONLY)?;
    let folder = scene.lab.folder().join("records");
    fs::create_dir_all(&folder)?;
    let taken = folder.join("taken.jsonl");
    let path = scene.lab.write("settings.yaml", &settings(&folder))?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;

    let (friend, server) = (&scene.friend, &scene.server);
    let traffic = || -> Result<()> {
        for _ in 0..5 {
            for address in server.at(PORT) {
                ensure!(friend.probe(Protocol::Tcp, address) == Outcome::Allowed);
            }
        }
        ensure!(friend.probe(Protocol::Udp, server.v4(PORT)) == Outcome::Allowed);
        ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
        Ok(())
    };
    // Nobody is there, then somebody who is busy, and in the end one who takes it.
    traffic()?;
    let host = scene.lab.host();
    let running = collector(first, host, &taken, 2)?;
    all_is_out(&agent, 20)?;
    metrics_come(&taken, &agent)?;
    // It goes, and another one takes its place.
    drop(running);
    traffic()?;
    let _running = collector(second, host, &taken, 0)?;
    all_is_out(&agent, 40)?;
    agent.terminate()?;

    let written = by_seq(values(&folder.join("all.jsonl"))?, |it| {
        it.get("flow_id")?;
        it["seq"].as_u64()
    });
    ensure!(written.values().any(|it| it["verdict"] == "deny"));
    for over in BOTH {
        let got = got(&taken, over)?;
        for (seq, record) in &written {
            let got = got.get(seq).with_context(|| format!("{over}: {record}"))?;
            is_the_same(record, got)?;
        }
    }
    Ok(())
}
