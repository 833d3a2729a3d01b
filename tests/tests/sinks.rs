//! Flow records in several files, as the settings choose them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// Connections, each with two records of some 700 bytes: more than three files.
const CONNECTIONS: usize = 200;

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "sinks:\n\
         - name: all\n  file: {{path: {folder}/all.jsonl, rotate_bytes: 65536}}\n\
         - name: denied\n  file: {{path: {folder}/denied.jsonl}}\n  filter: {{verdicts: [deny]}}\n\
         - name: elsewhere\n  file: {{path: {folder}/elsewhere.jsonl}}\n  filter: {{namespaces: [other]}}\n"
    )
}

fn enforced(scene: &Scene) -> Result<(Agent, PathBuf)> {
    let folder = scene.lab.folder().join("records");
    fs::create_dir_all(&folder)?;
    let path = scene.lab.write("settings.yaml", &settings(&folder))?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;
    Ok((agent, folder))
}

fn records(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("a broken line")
}

/// What files of these names hold together, unpacked, and how many there are.
fn held(folder: &Path, name: &str) -> Result<(Vec<Value>, usize)> {
    let (mut all, mut files) = (Vec::new(), 0);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if !file.starts_with(name) || file.ends_with(".new") {
            continue;
        }
        files += 1;
        let text = if file.ends_with(".gz") {
            let output = Command::new("gzip").arg("-dc").arg(&path).output()?;
            ensure!(output.status.success(), "{file} is no file of gzip");
            String::from_utf8(output.stdout)?
        } else {
            fs::read_to_string(&path)?
        };
        all.extend(records(&text)?);
    }
    Ok((all, files))
}

/// By the schema that others go by.
fn are_as_described(records: &[Value]) -> Result<()> {
    let schema = include_str!("../../agent/docs/flow-record.schema.json");
    let schema = jsonschema::draft202012::new(&serde_json::from_str(schema)?)?;
    for record in records {
        ensure!(schema.is_valid(record), "{record:#}");
    }
    Ok(())
}

#[test]
fn each_file_has_what_it_is_for_and_none_grows_for_ever() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let (mut agent, folder) = enforced(&scene)?;
    let (friend, server) = (&scene.friend, &scene.server);
    for _ in 0..CONNECTIONS {
        ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    }
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    let mut last = Value::Null;
    let counts = |status: &Value, sink: &str, what: &str| {
        status["records"]["sinks"][sink][what].as_u64().unwrap_or(0)
    };
    let is_written = eventually(SOON, || {
        last = agent.status().unwrap_or_default();
        let [seen, written] = ["seen", "exported"].map(|what| counts(&last, "all", what));
        seen > 2 * CONNECTIONS as u64 && seen == written && counts(&last, "denied", "exported") > 0
    });
    ensure!(is_written, "{:#}", last["records"]);
    ensure!(
        counts(&last, "denied", "left_out") >= 2 * CONNECTIONS as u64,
        "{:#}",
        last["records"]
    );
    ensure!(
        counts(&last, "elsewhere", "seen") == 0,
        "{:#}",
        last["records"]
    );
    agent.terminate()?;

    let (all, files) = held(&folder, "all.jsonl")?;
    ensure!(files > 3, "{files} files");
    are_as_described(&all)?;
    let flows: Vec<&Value> = all
        .iter()
        .filter(|it| it.get("flow_id").is_some())
        .collect();
    let numbers: BTreeSet<u64> = flows.iter().filter_map(|it| it["seq"].as_u64()).collect();
    ensure!(numbers.len() == flows.len(), "records are there twice");
    ensure!(
        flows.len() as u64 >= counts(&last, "all", "exported"),
        "records are missing"
    );
    // The same, as an analyst reads them.
    let mut arguments = vec!["flows".to_owned()];
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path().display().to_string();
        if path.contains("all.jsonl") {
            arguments.extend(["--file".to_owned(), path]);
        }
    }
    let ask = |more: &[&str]| -> Result<Vec<Value>> {
        let more = more.iter().map(|&word| word.to_owned());
        let output = agent.call(&arguments.iter().cloned().chain(more).collect::<Vec<_>>())?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        Ok(values.collect::<Result<_, _>>()?)
    };
    ensure!(ask(&["-o", "json"])?.len() == all.len());
    ensure!(ask(&["-o", "json", "--verdict", "allow", "--last", "7"])?.len() == 7);
    ensure!(ask(&["-o", "json", "--since", "1d"])?.len() == all.len());
    let chosen = [
        "--namespace",
        "shop",
        "--label",
        "app=friend",
        "--port",
        "8080",
        "--protocol",
        "tcp",
        "--direction",
        "ingress",
        "--policy",
        "shop/server",
        "--reason",
        "rule",
        "--kind",
        "end",
    ];
    let ended = ask(&[&["-o", "json"], &chosen[..]].concat())?;
    let ended = ended.iter().filter(|it| it.get("flow_id").is_some());
    ensure!(ended.count() == CONNECTIONS);
    let top = ask(&["top", "--by", "rule", "--bytes", "-o", "json"])?;
    let mut rows = top[0].as_array().into_iter().flatten();
    let is_there = rows.any(|row| {
        row["name"] == "allow: shop/server ingress[0]"
            && row["flows"].as_u64() == Some(CONNECTIONS as u64)
    });
    ensure!(is_there, "{top:?}");
    let (denied, files) = held(&folder, "denied.jsonl")?;
    ensure!(files == 1 && !denied.is_empty());
    ensure!(
        denied.iter().all(|it| it["verdict"] == "deny"),
        "{denied:?}"
    );
    ensure!(held(&folder, "elsewhere.jsonl")?.0.is_empty());
    Ok(())
}

#[test]
fn a_running_agent_chooses_by_all_that_records_say() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let (friend, server) = (&scene.friend, &scene.server);
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    let socket = agent.socket().display().to_string();
    let ask = |chosen: &str| -> Result<String> {
        let words = chosen.split_whitespace();
        let arguments = ["flows", "--socket", &socket].into_iter().chain(words);
        let output = agent.call(&arguments.collect::<Vec<_>>())?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{chosen}: {told}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let denied =
        "-o csv --kind deny --to-port 9090 --label app=server --reason default-deny --protocol tcp";
    let mut told = String::new();
    let is_told = eventually(SOON, || {
        told = ask(denied).unwrap_or_default();
        told.contains("\r\n1,deny,")
    });
    ensure!(is_told, "{told}");
    ensure!(
        !told.contains("\r\n1,start,") && !told.contains("\r\n1,end,"),
        "{told}"
    );
    let permitted = "-o wide --policy shop/server --direction ingress --namespace shop --port 8080";
    let told = ask(permitted)?;
    ensure!(told.contains("allow") && !told.contains("deny"), "{told}");
    ensure!(ask("--namespace elsewhere")?.lines().count() == 1);
    for (wrong, expected) in [
        ("--ip 10.0.0.1/8", "expected 10.0.0.0/8, or 10.0.0.1"),
        ("--reason nonsense", "default-deny"),
        ("--label a=b --label a=c", "two values of \"a\""),
        ("--follow top", "`ringfence top` goes on"),
    ] {
        let error = ask(wrong).unwrap_err().to_string();
        ensure!(error.contains(expected), "{error}");
    }
    Ok(())
}

#[test]
fn an_agent_that_is_killed_leaves_what_readers_read() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let (mut agent, folder) = enforced(&scene)?;
    let (friend, server) = (&scene.friend, &scene.server);
    for _ in 0..3 {
        for _ in 0..20 {
            ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
        }
        agent.kill()?;
        // As if it had been killed within a line.
        let path = folder.join("all.jsonl");
        let text = fs::read(&path)?;
        fs::write(
            &path,
            [&text[..], b"{\"schema_version\":1,\"seq\":"].concat(),
        )?;
        agent.start()?;
    }
    agent.terminate()?;
    let (all, _) = held(&folder, "all.jsonl")?;
    ensure!(all.len() > 20, "{} records", all.len());
    Ok(())
}
