//! Collectors that move to another machine, and such that hang.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::collectors::Collector;
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const SINKS: [&str; 3] = ["syslog", "ipfix", "otlp"];
const SYSLOG: u16 = 5140;
const IPFIX: u16 = 4739;
const OTLP: u16 = 4318;

fn settings(host: &str) -> String {
    format!(
        "sinks:\n\
         - {{name: syslog, syslog: {{to: '{host}:{SYSLOG}'}}}}\n\
         - {{name: ipfix, ipfix: {{to: '{host}:{IPFIX}', transport: tcp}}}}\n\
         - {{name: otlp, otlp: {{endpoint: 'http://{host}:{OTLP}'}}}}\n"
    )
}

/// One for each sink, at the same address.
fn machine(host: &Netns, address: &str) -> Result<[Collector; 3]> {
    let at = |port: u16| format!("{address}:{port}");
    Ok([
        Collector::of_streams(host, &at(SYSLOG))?,
        Collector::of_streams(host, &at(IPFIX))?,
        Collector::of_posts(host, &at(OTLP))?,
    ])
}

fn count(status: &Value, sink: &str, what: &str) -> u64 {
    status["records"]["sinks"][sink][what].as_u64().unwrap_or(0)
}

/// That what each sink has seen is out, and more than it had seen `before`.
fn is_out(agent: &Agent, before: &Value) -> Result<Value> {
    let mut last = Value::Null;
    let is_out = eventually(SOON, || {
        last = agent.status().unwrap_or_default();
        SINKS.iter().all(|sink| {
            let seen = count(&last, sink, "seen");
            seen > count(before, sink, "seen") && count(&last, sink, "exported") == seen
        })
    });
    ensure!(is_out, "{:#}\n{}", last["records"], agent.log());
    Ok(last)
}

/// The kernel answers before the collector has been told of it.
fn are_reached(collectors: &[Collector]) -> Result<()> {
    let are_reached = eventually(SOON, || collectors.iter().all(|it| it.connections() > 0));
    ensure!(are_reached, "{collectors:?}");
    Ok(())
}

fn talk(scene: &Scene) -> Result<()> {
    let (friend, server) = (&scene.friend, &scene.server);
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    Ok(())
}

/// Has the file at `$0` in the place of the machine's own, for itself alone.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

#[test]
fn records_follow_the_name_of_a_collector() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let name_leads_to = |address: &str| {
        let line = format!("{address} collector.test\n");
        // In place: it is this file that is mounted.
        let path = scene.lab.folder().join("hosts");
        fs::write(&path, line).map(|()| path)
    };
    let hosts = name_leads_to("127.0.0.2")?.display().to_string();
    let host = scene.lab.host();
    let first = machine(host, "127.0.0.2")?;
    let path = scene
        .lab
        .write("settings.yaml", &settings("collector.test"))?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()])
        .started_by(&["unshare", "--mount", "sh", "-c", WITH_HOSTS, &hosts]);
    agent.start()?;
    talk(&scene)?;
    let before = is_out(&agent, &Value::Null)?;
    are_reached(&first)?;

    // It goes, and what comes meanwhile waits.
    drop(first);
    talk(&scene)?;
    name_leads_to("127.0.0.3")?;
    let second = machine(host, "127.0.0.3")?;
    let after = is_out(&agent, &before)?;
    are_reached(&second)?;
    for sink in SINKS {
        ensure!(count(&after, sink, "lost") == 0, "{:#}", after["records"]);
    }
    Ok(())
}

/// The records of a file, each a line to its end.
fn records(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    ensure!(text.ends_with('\n'), "half a line: {text}");
    let records = text.lines().map(serde_json::from_str);
    records.collect::<Result<_, _>>().context("not a record")
}

#[test]
fn an_agent_ends_in_time_whoever_hangs() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let host = scene.lab.host();
    let ports = [SYSLOG, IPFIX, OTLP, SYSLOG + 1];
    let hanging: Vec<_> = ports
        .iter()
        .map(|port| Collector::that_hangs(host, &format!("127.0.0.1:{port}")))
        .collect::<Result<_>>()?;
    let of_tls = format!(
        "- {{name: secret, syslog: {{to: '127.0.0.1:{}', transport: tls}}}}\n",
        SYSLOG + 1
    );
    let all = settings("127.0.0.1") + &of_tls;
    let path = scene.lab.write("settings.yaml", &all)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;
    talk(&scene)?;
    let waits = |status: &Value| {
        ["otlp", "secret"]
            .iter()
            .all(|sink| count(status, sink, "seen") > 0 && count(status, sink, "exported") == 0)
    };
    let waiting = agent.status_eventually(SOON, waits);
    ensure!(waiting, "{:#}\n{}", agent.status()?, agent.log());
    let file = agent.flow_file();
    let ended = agent.terminate()?;
    ensure!(ended.success(), "{ended}");
    are_reached(&hanging)?;
    let records = records(&file)?;
    for verdict in ["allow", "deny"] {
        let is_there = records.iter().any(|it| it["verdict"] == verdict);
        ensure!(is_there, "{verdict}: {records:#?}");
    }
    Ok(())
}
