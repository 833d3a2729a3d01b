//! The chained CNI plugin: a pod starts when the kernel enforces for it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::{self, Agent};
use ringfence_lab::kept;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const UID: &str = "11111111-2222-3333-4444-555555555555";
const PORT: u16 = 8080;

/// What is put back is put back within this, however often it was.
const KEPT: Duration = Duration::from_mins(1);

/// Where distributions put plugins, unless `CNI_PATH` says where they are.
const PLUGINS: &str = "/usr/lib/cni";

/// An agent that knows a pod, which nobody may reach, and a client that would.
struct Node {
    agent: Agent,
    client: Peer,
    lab: Lab,
}

impl Node {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let objects = [
            kept::pod("shop", "server", UID, "server"),
            kept::unreachable("shop", "server"),
        ];
        let agent = kept::agent(&lab, &objects)?;
        let client = lab.peer("client", 2)?;
        Ok(Self { agent, client, lab })
    }

    /// The plugin as a runtime starts it, for a pod of this name.
    fn plugin(&self, command: &str, pod: &str, netns: &Path, settings: &Value) -> Result<Output> {
        let configuration = self.configuration(settings, &made());
        let mut plugin = Command::new(agent::binary()?);
        call(&mut plugin, command, pod, netns);
        run(self.lab.host(), &mut plugin, &configuration)
    }

    fn configuration(&self, settings: &Value, previous: &Value) -> Value {
        let mut ours = json!({"socket": self.agent.socket(), "timeoutSeconds": 20});
        for (name, value) in settings.as_object().into_iter().flatten() {
            ours[name] = value.clone();
        }
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "ringfence", "ringfence": ours,
            "prevResult": previous,
        })
    }
}

/// What a plugin says that made the interface; with something in it that nobody knows.
fn made() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x", "mtu": 1500}],
        "ips": [{"address": "10.77.0.3/24", "interface": 0}],
        "dns": {}, "unknown": {"b": 1, "a": [null]},
    })
}

fn call(plugin: &mut Command, command: &str, pod: &str, netns: &Path) {
    let arguments =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod};K8S_POD_UID={UID}");
    let path = std::env::var_os("CNI_PATH").unwrap_or(PLUGINS.into());
    plugin
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1");
    plugin.env("CNI_NETNS", netns).env("CNI_IFNAME", "eth0");
    plugin.env("CNI_ARGS", arguments).env("CNI_PATH", path);
}

fn run(host: &Netns, plugin: &mut Command, configuration: &Value) -> Result<Output> {
    plugin
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = host.spawn(plugin)?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // One that does not read is none of ours to wait for.
    stdin
        .write_all(configuration.to_string().as_bytes())
        .unwrap_or(());
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn answer(output: &Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text:?} {output:?}"))
}

#[test]
fn a_pod_is_enforced_for_when_its_network_is_ready_and_the_result_is_handed_on() -> Result<()> {
    let mut node = Node::new()?;
    node.agent.start()?;
    let pod = node.lab.peer("pod", 3)?;
    let _service = pod.serve(Protocol::Tcp, PORT)?;
    ensure!(
        node.client.probe(Protocol::Tcp, pod.v4(PORT)) == Outcome::Allowed,
        "before"
    );
    // Of one that is added twice, as after a sandbox was made again, nothing else is to be said.
    for _ in 0..2 {
        let output = node.plugin("ADD", "server", &pod.path(), &json!({}))?;
        ensure!(output.status.success(), "{output:?}\n{}", node.agent.log());
        ensure!(answer(&output)? == made(), "{output:?}");
        for at in pod.at(PORT) {
            ensure!(
                node.client.probe(Protocol::Tcp, at) == Outcome::TimedOut,
                "{at}"
            );
        }
    }
    let check = node.plugin("CHECK", "server", &pod.path(), &json!({}))?;
    ensure!(
        check.status.success() && check.stdout.is_empty(),
        "{check:?}"
    );
    let status = node.plugin("STATUS", "server", &pod.path(), &json!({}))?;
    ensure!(status.status.success(), "{status:?}");
    let del = node.plugin("DEL", "server", &pod.path(), &json!({}))?;
    ensure!(del.status.success() && del.stdout.is_empty(), "{del:?}");
    // Its interface is there, and so it is held.
    ensure!(
        node.client.probe(Protocol::Tcp, pod.v4(PORT)) == Outcome::TimedOut,
        "after"
    );
    drop(pod);
    let is_gone = |status: &Value| status["endpoints"][0]["state"] == "waiting";
    let gone = node
        .agent
        .status_eventually(Duration::from_secs(20), is_gone);
    ensure!(gone, "{}", node.agent.log());
    Ok(())
}

#[test]
fn without_an_agent_that_knows_the_pod_it_does_not_start_unless_that_is_said() -> Result<()> {
    let mut node = Node::new()?;
    let pod = node.lab.peer("pod", 3)?;
    let brief = json!({"timeoutSeconds": 1});
    let admitting = json!({"timeoutSeconds": 1, "onUnavailable": "admit"});
    for is_there in [false, true] {
        let uid_of_nobody = "server-of-nobody";
        if is_there {
            // Of another one than the agent has heard of: there is none with this name.
            node.agent.start()?;
        }
        let name = if is_there { uid_of_nobody } else { "server" };
        let ask = |command: &str, settings: &Value| {
            let configuration = node.configuration(settings, &made());
            let mut plugin = Command::new(agent::binary()?);
            call(&mut plugin, command, name, &pod.path());
            if is_there {
                let arguments = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
                plugin.env("CNI_ARGS", arguments);
            }
            run(node.lab.host(), &mut plugin, &configuration)
        };
        let refused = ask("ADD", &brief)?;
        let error = answer(&refused)?;
        ensure!(
            refused.status.code() == Some(1) && error["code"] == 11,
            "{refused:?}"
        );
        ensure!(error["cniVersion"] == "1.0.0", "{error}");
        let details = error["details"].as_str().unwrap_or_default();
        let why = if is_there {
            "has not heard of pod"
        } else {
            "no agent listens"
        };
        ensure!(
            details.contains(why) && details.contains("admit"),
            "{error}"
        );
        let admitted = ask("ADD", &admitting)?;
        ensure!(
            admitted.status.success() && answer(&admitted)? == made(),
            "{admitted:?}"
        );
        let said = String::from_utf8_lossy(&admitted.stderr);
        ensure!(said.contains("unconfined"), "{said}");
        let del = ask("DEL", &brief)?;
        ensure!(del.status.success(), "{del:?}");
    }
    Ok(())
}

#[test]
fn it_is_chained_behind_the_plugins_of_a_distribution() -> Result<()> {
    let folder = std::env::var_os("CNI_PATH").unwrap_or(PLUGINS.into());
    let ptp = Path::new(&folder).join("ptp");
    if !ptp.exists() {
        eprintln!(
            "skipped: {} does not exist; install containernetworking-plugins, or set CNI_PATH",
            ptp.display()
        );
        return Ok(());
    }
    let mut node = Node::new()?;
    node.agent.start()?;
    let netns = Netns::create(format!("{}-ptp", node.lab.prefix()))?;
    let data = node.lab.folder().join("ipam");
    let network = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "ptp",
        "ipam": {"type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]},
    });
    let mut plugin = Command::new(&ptp);
    call(&mut plugin, "ADD", "server", &netns.path());
    let made = run(node.lab.host(), &mut plugin, &network)?;
    let made = answer(&made)?;
    ensure!(
        made["ips"].as_array().is_some_and(|ips| ips.len() == 2),
        "{made}"
    );
    let mut plugin = Command::new(agent::binary()?);
    call(&mut plugin, "ADD", "server", &netns.path());
    let added = run(
        node.lab.host(),
        &mut plugin,
        &node.configuration(&json!({}), &made),
    )?;
    ensure!(
        added.status.success() && answer(&added)? == made,
        "{added:?}\n{}",
        node.agent.log()
    );
    let status = node.agent.status()?;
    ensure!(status["endpoints"][0]["state"] == "attached", "{status}");
    // Taken down in the other order.
    let mut plugin = Command::new(agent::binary()?);
    call(&mut plugin, "DEL", "server", &netns.path());
    let down = run(
        node.lab.host(),
        &mut plugin,
        &node.configuration(&json!({}), &made),
    )?;
    ensure!(down.status.success(), "{down:?}");
    let mut plugin = Command::new(&ptp);
    call(&mut plugin, "DEL", "server", &netns.path());
    let down = run(node.lab.host(), &mut plugin, &network)?;
    ensure!(down.status.success(), "{down:?}");
    let is_gone = |status: &Value| status["endpoints"][0]["state"] == "waiting";
    let gone = node
        .agent
        .status_eventually(Duration::from_secs(20), is_gone);
    ensure!(gone, "{}", node.agent.log());
    Ok(())
}

#[test]
fn a_folder_that_is_read_only_is_said_to_be_and_nothing_has_changed() -> Result<()> {
    const READ_ONLY: &str =
        r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let lab = Lab::bridged()?;
    let text = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]});
    let text = text.to_string();
    let file = lab.write("net.d/10-pods.conflist", &text)?;
    let (folder, bin) = (
        file.parent().context("no folder")?,
        lab.folder().join("bin"),
    );
    let install = |before: &mut Command| {
        before
            .arg(agent::binary()?)
            .args(["cni", "install", "--conf-dir"]);
        before.arg(folder).arg("--bin-dir").arg(&bin);
        lab.host().output(before)
    };
    let mut read_only = Command::new("unshare");
    read_only.args(["-m", "sh", "-c", READ_ONLY]).arg(folder);
    let refused = install(&mut read_only)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(2) && said.contains("Read-only"),
        "{refused:?}"
    );
    let names = || Ok::<_, anyhow::Error>(std::fs::read_dir(folder)?.count());
    ensure!(
        names()? == 1 && std::fs::read_to_string(&file)? == text,
        "changed"
    );
    let done = install(Command::new("sh").args(["-c", r#"exec "$@""#, "sh"]))?;
    ensure!(done.status.success() && names()? == 1, "{done:?}");
    let list: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    ensure!(list["plugins"][1]["type"] == "ringfence", "{list}");
    // The binary that was put there is the plugin, under its own name and without arguments.
    let mut plugin = Command::new(bin.join("ringfence"));
    let version = run(lab.host(), plugin.env("CNI_COMMAND", "VERSION"), &json!({}))?;
    ensure!(
        answer(&version)?["supportedVersions"][3] == "1.1.0",
        "{version:?}"
    );
    Ok(())
}

/// A process that ends with the test.
struct Staying(std::process::Child);

impl Drop for Staying {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait()).is_ok();
    }
}

#[test]
fn a_configuration_that_is_written_anew_gets_the_plugin_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (configurations, binaries) = (folder.path().join("net.d"), folder.path().join("bin"));
    std::fs::create_dir(&configurations)?;
    let mut command = Command::new(agent::binary()?);
    command.args(["cni", "install", "--watch", "--timeout-seconds", "7"]);
    command.arg("--conf-dir").arg(&configurations);
    command.arg("--bin-dir").arg(&binaries);
    // There is no configuration yet: the node's network is set up later.
    let mut staying = Staying(command.spawn()?);
    let list = |mtu: u32| {
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "mtu": mtu}]})
            .to_string()
    };
    let read = |name: &str| -> Result<Value> {
        let text = std::fs::read_to_string(configurations.join(name))?;
        Ok(serde_json::from_str(&text)?)
    };
    let has = |name: &str, mtu: u32| {
        let found = eventually(KEPT, || {
            read(name).is_ok_and(|now| {
                now["plugins"][0]["mtu"] == mtu
                    && now["plugins"][1]["ringfence"]["timeoutSeconds"] == 7
            })
        });
        ensure!(found, "{name}, {mtu}: {:?}", read(name));
        Ok(())
    };
    let draft = configurations.join("draft");
    let path = configurations.join("10-pods.conflist");
    for mtu in [1400, 1401] {
        std::fs::write(&draft, list(mtu))?;
        std::fs::rename(&draft, &path)?;
        has("10-pods.conflist", mtu)?;
    }
    // In place, as careless owners do.
    std::fs::write(&path, list(1402))?;
    has("10-pods.conflist", 1402)?;
    // Another one that comes before, and is a single plugin, written twice.
    for mtu in [1500, 1501] {
        let single = json!({"cniVersion": "1.0.0", "name": "first", "type": "ptp", "mtu": mtu});
        std::fs::write(&draft, single.to_string())?;
        std::fs::rename(&draft, configurations.join("05-first.conf"))?;
        has("05-first.conflist", mtu)?;
        let gone = eventually(KEPT, || !configurations.join("05-first.conf").exists());
        ensure!(gone, "the single plugin is there still");
    }
    ensure!(binaries.join("ringfence").exists(), "no plugin");
    let pid = Pid::from_raw(staying.0.id().try_into()?).context("pid 0")?;
    kill_process(pid, Signal::TERM)?;
    let status = staying.0.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
