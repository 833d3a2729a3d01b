//! What was made, what came out, and what was lost on the way: the sums, to the last one, after a flood.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::scene::Scene;
use ringfence_lab::wait::eventually;
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_mins(1);
/// After which a flow of datagrams that nobody answers is over, and some sweeps.
const IDLE: Duration = Duration::from_mins(3);
/// Ports of the server that everybody may send to, each a flow, which both ends see: more than the ring buffer has room for (27,000) and
/// than a sink's queue has (65,536), and fewer than the table of flows has.
const PORTS: (u16, u16) = (20_000, 59_999);
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{ports: [{protocol: UDP, port: 20000, endPort: 59999}]}]
";

/// How many flows that made.
fn flood(scene: &Scene) -> Result<u64> {
    let to = scene.server.v4(0).ip();
    ensure!(matches!(to, IpAddr::V4(_)));
    scene.friend.within(|| {
        let mut flows = 0;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for port in PORTS.0..=PORTS.1 {
            // That nobody listens is told at the next attempt, which is then made twice.
            let is_sent = || socket.send_to(b"new", (to, port)).is_ok();
            flows += u64::from(is_sent() || is_sent());
        }
        Ok(flows)
    })
}

fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Waits until two readings of `status` are the same in `what`.
fn settled(agent: &Agent, what: &[&str]) -> Result<Value> {
    let read = || -> Result<(Value, Vec<u64>)> {
        let status = agent.status()?;
        let numbers = what.iter().map(|pointer| number(&status, pointer));
        let numbers = numbers.collect();
        Ok((status, numbers))
    };
    let mut last = read()?;
    let mut same = 0;
    let is_settled = eventually(SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        let Ok(now) = read() else { return false };
        same = if now.1 == last.1 { same + 1 } else { 0 };
        last = now;
        // More than lies between two sweeps of the tables.
        same >= 12
    });
    ensure!(is_settled, "{:#}\n{}", last.0["records"], agent.log());
    Ok(last.0)
}

fn lines(agent: &Agent) -> Result<Vec<Value>> {
    let text = fs::read_to_string(agent.flow_file())?;
    // The last one may be on its way.
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    let lines = whole.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("a broken line")
}

fn flow(line: &Value) -> Option<String> {
    Some(line["flow_id"].as_str()?.to_owned())
}

#[test]
fn what_a_flood_loses_is_accounted_for_to_the_last_one() -> Result<()> {
    let scene = Scene::with(POLICY)?;
    // Nobody listens there: what the second sink cannot hold, it has to lose.
    let settings = "sinks: [{name: away, syslog: {to: '127.0.0.1:9'}}]\n";
    let path = scene.lab.write("settings.yaml", settings)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;
    let before = settled(&agent, &["/events/seen"])?;
    ensure!(number(&before, "/events/lost") == 0);

    // An agent that is not let run reads no events.
    agent.signal(Signal::STOP)?;
    let flows = flood(&scene)?;
    agent.signal(Signal::CONT)?;
    let file = agent.flow_file().display().to_string().replace('/', "~1");
    let sink = |name: &str, what: &str| format!("/records/sinks/{name}/{what}");
    let status = settled(
        &agent,
        &[
            "/events/seen",
            "/events/lost",
            "/records/stream/seen",
            &sink(&file, "exported"),
            &sink("away", "lost"),
        ],
    )?;
    let of = |pointer: &str| number(&status, pointer);

    // Each flow has an event, at each of the two ends; read, or lost and counted.
    let [seen, lost] = ["/events/seen", "/events/lost"].map(of);
    let already = number(&before, "/events/seen");
    ensure!(lost > 0, "the flood was no flood: {:#}", status["events"]);
    ensure!(
        seen - already + lost == 2 * flows,
        "{flows} flows at two ends: {seen} seen, of them {already} before, {lost} lost"
    );

    // All records are in the file that had room for them.
    let records = of("/records/stream/seen");
    let [file_seen, exported, file_lost] =
        ["seen", "exported", "lost"].map(|what| of(&sink(&file, what)));
    ensure!(
        (records, records, 0) == (file_seen, exported, file_lost),
        "{:#}",
        status["records"]
    );
    // A flow whose event was lost stands in the kernel's table: it has a record by the time that it is over.
    let mut known = BTreeSet::new();
    let is_told = eventually(IDLE, || {
        std::thread::sleep(Duration::from_secs(1));
        known = lines(&agent)
            .unwrap_or_default()
            .iter()
            .filter_map(flow)
            .collect();
        known.len() as u64 >= 2 * flows
    });
    ensure!(
        is_told,
        "{} of {flows} flows, at two ends, have a record",
        known.len()
    );

    // The other sink holds what its queue has room for, and one batch; of the rest each is counted.
    let status = settled(&agent, &[&sink("away", "seen"), &sink("away", "lost")])?;
    let [seen, exported, away_lost] =
        ["seen", "exported", "lost"].map(|what| number(&status, &sink("away", what)));
    ensure!(
        exported == 0 && away_lost > 0 && (1..=65_536 + 256).contains(&(seen - away_lost)),
        "{:#}",
        status["records"]
    );
    let kinds = &status["records"]["sinks"]["away"]["lost_by_kind"];
    let by_kind = kinds.as_object().context("no kinds")?.values();
    ensure!(
        by_kind.filter_map(Value::as_u64).sum::<u64>() == away_lost,
        "{kinds}"
    );

    agent.terminate()?;
    let lines = lines(&agent)?;
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["kind"] == "loss") {
        let stage = line["stage"].as_str().unwrap_or_default().to_owned();
        *told.entry(stage).or_default() += line["count"].as_u64().unwrap_or(0);
    }
    ensure!(
        told.get("ring-buffer") == Some(&lost),
        "{lost} lost, told: {told:?}"
    );
    ensure!(told.len() == 1, "{told:?}");
    // The stream has no gap, and nothing twice.
    let numbers = lines.iter().filter_map(|line| line["seq"].as_u64());
    let numbers: BTreeSet<u64> = numbers.collect();
    ensure!(numbers.len() == lines.len(), "lines are there twice");
    let highest = numbers.last().copied();
    ensure!(
        highest == Some(lines.len() as u64),
        "{highest:?} is the last of {}",
        lines.len()
    );
    Ok(())
}
