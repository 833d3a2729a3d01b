//! Records as messages of syslog, read by rsyslog.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringfence_lab::agent::Agent;
use ringfence_lab::consumer::{Running, beside_libraries, program};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const UDP: u16 = 5514;
const TCP: u16 = 5515;
const TLS: u16 = 6514;

/// What rsyslog has understood of each message, a line of JSON for each.
fn server(scene: &Scene) -> Result<Option<(Running, PathBuf)>> {
    let Some(mut rsyslogd) = program("rsyslogd") else {
        return Ok(None);
    };
    let modules = beside_libraries("rsyslog").context("no modules")?;
    let folder = scene.lab.folder().join("syslog");
    fs::create_dir_all(&folder)?;
    let file = |name: &str| folder.join(name).display().to_string();
    let configuration = format!(
        r#"
global(workDirectory="{work}" maxMessageSize="64k" net.enableDNS="off" defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imudp")
module(load="imtcp" maxSessions="10")
input(type="imudp" address="127.0.0.1" port="{UDP}" ruleset="udp")
input(type="imtcp" address="127.0.0.1" port="{TCP}" ruleset="tcp")
input(type="imtcp" address="127.0.0.1" port="{TLS}" ruleset="tls" streamDriver.name="gtls" streamDriver.mode="1"
    streamDriver.authMode="x509/certvalid")
template(name="understood" type="list" option.jsonf="on") {{
    property(outname="facility" name="syslogfacility-text" format="jsonf")
    property(outname="severity" name="syslogseverity-text" format="jsonf")
    property(outname="at" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="kind" name="msgid" format="jsonf")
    property(outname="version" name="protocol-version" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
}}
ruleset(name="udp") {{ action(type="omfile" file="{udp}" template="understood") }}
ruleset(name="tcp") {{ action(type="omfile" file="{tcp}" template="understood") }}
ruleset(name="tls") {{ action(type="omfile" file="{tls}" template="understood") }}
"#,
        work = folder.display(),
        ca = file("ca.pem"),
        cert = file("server.pem"),
        key = file("server.key"),
        udp = file("udp.json"),
        tcp = file("tcp.json"),
        tls = file("tls.json"),
    );
    let path = scene.lab.write("rsyslog.conf", &configuration)?;
    rsyslogd.arg("-n").arg("-M").arg(modules);
    rsyslogd
        .arg("-f")
        .arg(path)
        .arg("-i")
        .arg(folder.join("pid"));
    let running = Running::start(scene.lab.host(), &mut rsyslogd)?;
    Ok(Some((running, folder)))
}

/// An authority, and what it says of both sides.
fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(folder.join("ca.pem"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let names = vec!["collector.test".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "sinks:\n\
         - name: datagrams\n  syslog: {{to: '127.0.0.1:{UDP}', transport: udp, message: cef}}\n\
         - name: stream\n  syslog: {{to: '127.0.0.1:{TCP}', facility: local3}}\n\
         - name: secret\n  syslog:\n    to: 127.0.0.1:{TLS}\n    transport: tls\n    message: ecs\n    tls: {{ca_file: {folder}/ca.pem, \
         cert_file: {folder}/client.pem, key_file: {folder}/client.key, server_name: collector.test}}\n"
    )
}

fn understood(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.filter_map(Result::ok).collect()
}

/// Waits for a message of a denied flow, and gives it.
fn denial(agent: &Agent, folder: &Path, name: &str) -> Result<Value> {
    let is_denial = |message: &Value| message["kind"] == "deny";
    let find = || {
        understood(folder, name)
            .into_iter()
            .find(|it| is_denial(it))
    };
    ensure!(
        eventually(SOON, || find().is_some()),
        "{name}: {:#?}\n{:#}\n{}",
        understood(folder, name),
        agent.status()?["records"],
        agent.log()
    );
    find().context("gone again")
}

#[test]
fn rsyslog_understands_every_transport() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let folder = scene.lab.folder().join("syslog");
    fs::create_dir_all(&folder)?;
    certificates(&folder)?;
    let path = scene.lab.write("settings.yaml", &settings(&folder))?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &path.display().to_string()]);
    agent.start()?;
    let (friend, to) = (&scene.friend, &scene.server);
    ensure!(friend.probe(Protocol::Tcp, to.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, to.v4(OTHER_PORT)) == Outcome::TimedOut);
    // It comes after the first records, and streams have them nevertheless.
    let Some((_server, folder)) = server(&scene)? else {
        return Ok(());
    };

    let streamed = denial(&agent, &folder, "tcp.json")?;
    let told = |key: &str| streamed[key].as_str().unwrap_or_default();
    ensure!(
        told("facility") == "local3" && told("severity") == "warning",
        "{streamed}"
    );
    ensure!(
        told("app") == "ringfence" && told("version") == "1",
        "{streamed}"
    );
    let record: Value = serde_json::from_str(told("message"))?;
    ensure!(
        record["verdict"] == "deny" && record["dst"]["port"] == OTHER_PORT,
        "{record}"
    );
    ensure!(record["node"].as_str() == Some(told("host")), "{streamed}");

    let secret = denial(&agent, &folder, "tls.json")?;
    let record: Value = serde_json::from_str(secret["message"].as_str().unwrap_or_default())?;
    ensure!(record["event"]["action"] == "flow_deny", "{record}");

    // A datagram tells nobody that it was not read: that of now is.
    ensure!(friend.probe(Protocol::Tcp, to.v6(OTHER_PORT)) == Outcome::TimedOut);
    let datagram = denial(&agent, &folder, "udp.json")?;
    let message = datagram["message"].as_str().unwrap_or_default();
    ensure!(message.contains("CEF:0|ringfence|ringfence|"), "{message}");
    ensure!(message.contains(" act=deny "), "{message}");

    let status = agent.status()?;
    for sink in ["stream", "secret"] {
        ensure!(
            status["records"]["sinks"][sink]["lost"] == 0,
            "{:#}",
            status["records"]
        );
    }
    Ok(())
}
