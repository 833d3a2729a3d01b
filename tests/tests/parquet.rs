//! Files of Parquet, as `DuckDB` and pyarrow read them, and the questions of agent/docs/analysts.md.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::consumer::python;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../agent/docs/analysts.md");
const ASK: &str = include_str!("parquet/ask.py");

const SOON: Duration = Duration::from_secs(20);

/// The day that questions are asked on.
const TODAY: &str = "2026-11-30";
const YESTERDAY: &str = "2026-11-29";

/// Neighbours that talk to each other on both days.
const NEIGHBOURS: usize = 50;
const PORTS_OF_SCAN: u32 = 40;

fn agent(arguments: &[&str]) -> Result<Command> {
    let binary = env::var_os("RINGFENCE_BIN").context("RINGFENCE_BIN names no agent")?;
    let mut command = Command::new(binary);
    command.args(arguments);
    Ok(command)
}

/// Lines of JSON, and how many of them are flows.
#[derive(Default)]
struct Records {
    text: String,
    lines: u64,
    bytes_forward: u64,
}

/// A flow of TCP between two names of the namespace `shop`.
#[derive(Clone, Copy)]
struct Flow<'a> {
    day: &'a str,
    source: &'a str,
    destination: &'a str,
    port: u16,
    /// Of each record, of which there are three at each end.
    bytes: [u64; 2],
    sampling: Option<u32>,
}

impl Records {
    fn push(&mut self, line: &Value) -> Result<()> {
        writeln!(self.text, "{line}")?;
        self.lines += 1;
        self.bytes_forward += line["forward"]["bytes"].as_u64().unwrap_or(0);
        Ok(())
    }

    /// What all flow records have. The values of `more` win.
    fn record(&mut self, at: &str, kind: &str, more: &Value) -> Result<()> {
        let seq = self.lines + 1;
        let mut line = json!({
            "schema_version": 1, "seq": seq, "node": "node-1", "agent_version": "0.1.0", "kind": kind,
            "flow_id": format!("{seq:016x}"), "start": at, "end": at, "src": {"ip": "10.0.0.1"}, "dst": {"ip": "10.0.0.2"},
            "protocol": {"number": 6, "name": "tcp"}, "direction": "ingress", "initiator_known": true,
            "forward": {"packets": 1, "bytes": 60}, "reverse": {"packets": 0, "bytes": 0},
            "verdict": "allow", "default_deny": false,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        self.push(&line)
    }

    /// Records of both ends, which are on this node.
    fn flow(&mut self, flow: Flow<'_>) -> Result<()> {
        let Flow {
            day,
            source,
            destination,
            port,
            bytes: [forward, reverse],
            sampling,
        } = flow;
        let id = self.lines;
        for (direction, endpoint) in [("egress", source), ("ingress", destination)] {
            for (kind, second) in [("start", 0), ("update", 20), ("end", 59)] {
                let at = format!("{day}T{:02}:{:02}:{second:02}.000001Z", id % 24, id % 60);
                let mut more = json!({
                    "flow_id": format!("{:016x}", id * 2 + u64::from(direction == "egress")), "direction": direction,
                    "src": {"ip": "10.0.0.1", "port": 40000 + id % 1000,
                            "workload": {"namespace": "shop", "name": source, "kind": "Pod", "labels": {"app": source}}},
                    "dst": {"ip": "10.0.0.2", "port": port,
                            "workload": {"namespace": "shop", "name": destination, "kind": "Pod"}},
                    "forward": {"packets": 1, "bytes": forward}, "reverse": {"packets": 1, "bytes": reverse},
                    "endpoint": format!("shop/{endpoint}"), "reason": "rule",
                    "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "p", "rule": "ingress[0]", "rule_id": 7},
                });
                if let Some(sampling) = sampling {
                    more["sampling"] = sampling.into();
                }
                self.record(&at, kind, &more)?;
            }
        }
        Ok(())
    }

    /// Two days, with something for each question.
    fn generated() -> Result<Self> {
        let mut records = Self::default();
        let names: Vec<String> = (0..=NEIGHBOURS)
            .map(|number| format!("app-{number:02}"))
            .collect();
        let usual = Flow {
            day: YESTERDAY,
            source: "",
            destination: "",
            port: 8080,
            bytes: [100, 1000],
            sampling: None,
        };
        for day in [YESTERDAY, TODAY] {
            for pair in names.windows(2) {
                for _ in 0..5 {
                    records.flow(Flow {
                        day,
                        source: &pair[0],
                        destination: &pair[1],
                        ..usual
                    })?;
                }
            }
            records.flow(Flow {
                day,
                source: "big",
                destination: "store",
                bytes: [7_000_000, 5],
                ..usual
            })?;
            records.flow(Flow {
                day,
                source: "many",
                destination: "store",
                bytes: [10, 400_000],
                sampling: Some(10),
                ..usual
            })?;
        }
        records.flow(Flow {
            day: TODAY,
            source: "app-00",
            destination: "db",
            port: 5432,
            ..usual
        })?;

        let noon = format!("{TODAY}T12:00:00Z");
        let denied = |port: u32, packets: u64, ip: &str| {
            json!({
                "verdict": "deny", "default_deny": true, "drop_reason": "default-deny", "endpoint": "shop/db",
                "src": {"ip": ip}, "dst": {"ip": "10.0.0.2", "port": port}, "forward": {"packets": packets, "bytes": 60 * packets},
            })
        };
        for port in 0..PORTS_OF_SCAN {
            records.record(&noon, "deny", &denied(port + 1, 1, "10.9.9.9"))?;
        }
        records.record(&noon, "deny", &denied(22, 100, "fd00::7"))?;
        let mut by_rule = denied(443, 1000, "10.8.8.8");
        by_rule["drop_reason"] = "deny-rule".into();
        by_rule["policy"] = json!({"kind": "ClusterNetworkPolicy", "name": "wall", "rule": "egress[2]", "rule_id": 4_294_967_295_u32, "tier": "Admin"});
        by_rule["direction"] = "egress".into();
        records.record(&noon, "deny", &by_rule)?;
        let audited = json!([{"view": "audit", "verdict": "deny", "reason": "default-deny"}]);
        records.record(
            &noon,
            "start",
            &json!({"flow_id": "00000000000000aa", "would_be": audited.clone()}),
        )?;
        records.record(
            &noon,
            "update",
            &json!({"flow_id": "00000000000000aa", "would_be": audited}),
        )?;
        records.push(&json!({
            "schema_version": 1, "node": "node-1", "kind": "loss", "stage": "sink", "reason": "queue-full", "count": 17,
            "first": noon, "last": noon}))?;
        records.push(&json!({
            "schema_version": 1, "seq": 1, "node": "node-1", "kind": "tampering", "how": "written", "what": "map POLICY",
            "count": 2, "at": noon, "restored": true}))?;
        Ok(records)
    }
}

/// The blocks of SQL on the page, with what follows `sql` and the heading that they are below.
fn blocks() -> Vec<(String, String, String)> {
    let (mut heading, mut found) = (String::new(), Vec::new());
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("## ") {
            text.clone_into(&mut heading);
        } else if let Some(kind) = line.strip_prefix("```sql") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((heading.clone(), kind.trim().to_owned(), text.join("\n")));
        }
    }
    found
}

fn ask(folder: &Path, mut python: Command) -> Result<Value> {
    let (mut views, mut settings, mut questions) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for (heading, kind, text) in blocks() {
        match kind.as_str() {
            "setting" => settings.push(text),
            "" => drop(questions.insert(heading, text)),
            form => drop(views.insert(form.to_owned(), text)),
        }
    }
    settings.push(format!("SET VARIABLE today = DATE '{TODAY}'"));
    let told = json!({"views": views, "settings": settings, "questions": questions});
    let mut python = python
        .args(["-c", ASK])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run python3")?;
    let mut stdin = python.stdin.take().context("no standard input")?;
    stdin.write_all(told.to_string().as_bytes())?;
    drop(stdin);
    let output = python.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The generated records as both forms, in one folder.
fn written(folder: &Path) -> Result<Records> {
    let records = Records::generated()?;
    fs::write(folder.join("flows.jsonl"), &records.text)?;
    fs::create_dir(folder.join("flows"))?;
    let mut agent = agent(&["flows", "--file", "flows.jsonl", "--to-parquet", "flows"])?;
    let output = agent.current_dir(folder).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(records)
}

#[test]
fn duckdb_answers_each_question_of_the_page_from_both_forms() -> Result<()> {
    let Some(python) = python() else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let records = written(folder.path())?;
    // What an agent that runs, or was killed, has there besides.
    fs::write(
        folder
            .path()
            .join("flows/.node-1-20261130T120000-000.parquet.new"),
        "PAR1",
    )?;
    let answers = ask(folder.path(), python)?;
    let of_json = answers["json"].as_object().context("no answers")?;
    for (question, rows) in of_json {
        ensure!(
            rows == &answers["parquet"][question],
            "{question}: {rows:#}\n{:#}",
            answers["parquet"][question]
        );
    }
    ensure!(of_json.len() == 7, "{} questions", of_json.len());

    let is = |question: &str, row: usize, expected: &[&str]| {
        let seen = &answers["parquet"][question][row];
        let cells = seen.as_array().into_iter().flatten();
        let has = cells.zip(expected).all(|(cell, expected)| cell == expected);
        ensure!(
            has && seen.is_array(),
            "{question}, row {row}: {seen}, and not {expected:?}"
        );
        Ok(())
    };
    // Three records of one end; ten times, where one of ten flows is written.
    is("Top talkers", 0, &["shop/big", "shop/store", "21000015"])?;
    is("Top talkers", 1, &["shop/many", "shop/store", "12000300"])?;
    is("Top talkers", 2, &["shop/app-00", "shop/app-01", "16500"])?;
    is(
        "Denied, by rule",
        0,
        &[
            "ClusterNetworkPolicy wall egress[2]",
            "deny-rule",
            "egress",
            "1000",
            "1",
        ],
    )?;
    is(
        "Denied, by rule",
        1,
        &["default-deny", "default-deny", "ingress", "140", "2"],
    )?;
    is(
        "New edges since yesterday",
        0,
        &["shop/app-00", "shop/db", "6", "5432"],
    )?;
    ensure!(
        answers["parquet"]["New edges since yesterday"]
            .as_array()
            .is_some_and(|rows| rows.len() == 2),
        "{:#}",
        answers["parquet"]["New edges since yesterday"]
    );
    is("Bytes out, by workload", 0, &["shop/big", "21000000", "15"])?;
    is(
        "Bytes out, by workload",
        1,
        &["shop/store", "12000015", "21000300"],
    )?;
    is(
        "Possible scans",
        0,
        &[TODAY, "12", "10.9.9.9", "40", "1", "40"],
    )?;
    is(
        "What a policy in audit would deny",
        0,
        &["audit", "deny", "default-deny", "1"],
    )?;
    is(
        "What is missing",
        0,
        &["node-1", "sink", "queue-full", "17"],
    )?;

    let arrow = &answers["pyarrow"];
    ensure!(
        arrow["rows"] == records.lines && arrow["bytes_forward"] == records.bytes_forward,
        "{arrow:#}"
    );
    let types = &arrow["types"];
    for (name, expected) in [
        ("time", "timestamp[us, tz=UTC]"),
        ("bytes_forward", "int64"),
        ("src_port", "int32"),
        ("src_labels", "string"),
        ("default_deny", "bool"),
    ] {
        ensure!(types[name] == expected, "{name}: {}", types[name]);
    }
    Ok(())
}

/// Files below, whose names readers take.
fn taken(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn lines_come_back_from_parquet() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let records = written(folder.path())?;
    let mut arguments = vec!["flows".to_owned(), "-o".to_owned(), "json".to_owned()];
    for path in taken(&folder.path().join("flows")) {
        arguments.extend(["--file".to_owned(), path.display().to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = agent(&arguments)?.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let parsed = |text: &str| -> Result<Vec<String>> {
        let lines = text.lines().map(|line| {
            // Times have the same number of digits then.
            let line = line
                .replace(".000001000Z", ".000001Z")
                .replace(".000000000Z", "Z");
            Ok(serde_json::from_str::<Value>(&line)?.to_string())
        });
        let mut lines: Vec<String> = lines.collect::<Result<_>>()?;
        lines.sort();
        Ok(lines)
    };
    let (read, written) = (
        parsed(&String::from_utf8(output.stdout)?)?,
        parsed(&records.text)?,
    );
    ensure!(
        read.len() == written.len(),
        "{} of {}",
        read.len(),
        written.len()
    );
    for (read, written) in read.iter().zip(&written) {
        ensure!(read == written, "{read}\nand not\n{written}");
    }
    Ok(())
}

#[test]
fn who_is_killed_while_writing_leaves_nothing_torn() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let records = written(folder.path())?;
    let flows = folder.path().join("flows");
    let before = taken(&flows);
    let pipe = folder.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let mut killed = agent(&["flows", "--to-parquet"])?
        .arg(&flows)
        .arg("--file")
        .arg(&pipe)
        .stderr(Stdio::null())
        .spawn()?;
    // It waits for more, with files begun.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe)?;
    writer.write_all(records.text.as_bytes())?;
    let drafts = || {
        let names = fs::read_dir(&flows).into_iter().flatten().flatten();
        names
            .filter(|it| it.file_name().to_string_lossy().ends_with(".parquet.new"))
            .count()
    };
    let is_writing = eventually(SOON, || drafts() > 0 && taken(&flows).len() > before.len());
    killed.kill()?;
    killed.wait()?;
    drop(writer);
    ensure!(is_writing, "nothing was begun");
    ensure!(drafts() > 0, "it was not killed while writing");

    for path in taken(&flows) {
        let output = agent(&["flows", "-o", "json", "--file"])?
            .arg(&path)
            .output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if let Some(python) = python() {
        let answers = ask(folder.path(), python)?;
        let rows = answers["pyarrow"]["rows"].as_u64();
        ensure!(
            rows.is_some_and(|rows| rows >= records.lines),
            "{rows:?} rows"
        );
    }
    // The next one cleans up.
    let next = agent(&["flows", "--to-parquet"])?
        .arg(&flows)
        .args(["--file", "flows.jsonl"])
        .current_dir(folder.path())
        .output()?;
    ensure!(
        next.status.success() && drafts() == 0,
        "{}",
        String::from_utf8_lossy(&next.stderr)
    );
    Ok(())
}

/// Flow records of files, without losses and the like, as `ringfence flows` reads them.
fn flows_of(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for path in taken(folder) {
        let output = agent(&["flows", "-o", "json", "--file"])?
            .arg(&path)
            .output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout)?;
        count += text
            .lines()
            .filter(|line| line.contains("\"flow_id\""))
            .count();
    }
    Ok(count)
}

#[test]
fn an_agent_that_is_killed_and_one_that_ends_leave_whole_files() -> Result<()> {
    const CONNECTIONS: usize = 20;
    let scene = Scene::with(FRIEND_ONLY)?;
    let folder = scene.lab.folder().join("records");
    fs::create_dir_all(&folder)?;
    let settings = format!(
        "sinks:\n- name: all\n  parquet: {{folder: {}, seconds: 3600}}\n",
        folder.display()
    );
    let settings = scene.lab.write("settings.yaml", &settings)?;
    let mut running = scene
        .agent()?
        .with(&["--config", &settings.display().to_string()]);
    running.start()?;
    let talk = || -> Result<()> {
        for _ in 0..CONNECTIONS {
            let to = scene.server.v4(PORT);
            ensure!(scene.friend.probe(Protocol::Tcp, to) == Outcome::Allowed);
        }
        Ok(())
    };
    talk()?;
    let drafts = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let is_hidden = |it: &fs::DirEntry| it.file_name().to_string_lossy().starts_with('.');
        entries.filter(is_hidden).map(|it| it.path()).collect()
    };
    ensure!(
        eventually(SOON, || !drafts().is_empty()),
        "{}",
        running.log()
    );
    running.kill()?;
    let left = drafts();
    ensure!(!left.is_empty() && taken(&folder).is_empty());

    running.start()?;
    ensure!(
        !left.iter().any(|it| it.exists()),
        "what was left is there still: {}",
        running.log()
    );
    talk()?;
    let mut last = Value::Null;
    let count = |status: &Value, what: &str| {
        status["records"]["sinks"]["all"][what]
            .as_u64()
            .unwrap_or(0)
    };
    let is_seen = eventually(SOON, || {
        last = running.status().unwrap_or_default();
        count(&last, "seen") >= 2 * CONNECTIONS as u64
    });
    ensure!(is_seen, "{:#}", last["records"]);
    ensure!(count(&last, "exported") == 0, "{:#}", last["records"]);
    running.terminate()?;
    ensure!(drafts().is_empty(), "{}", running.log());
    let written = flows_of(&folder)?;
    ensure!(
        written as u64 >= count(&last, "seen"),
        "{written} records of {:#}",
        last["records"]
    );
    Ok(())
}
