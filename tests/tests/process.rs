//! Records name the process whose socket a flow is of, as far as a kernel can tell.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::{self, Cgroup};
use ringfence_lab::kernel;
use ringfence_lab::lab::{Lab, Netns};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::{eventually, eventually_some};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::Signal;
use serde_json::Value;

const HELPER: &str = env!("CARGO_BIN_EXE_lab-peer");
/// A user who is nobody.
const NOBODY: u32 = 65_534;
/// For a record to be there, on a busy machine.
const RECORDED: Duration = Duration::from_secs(20);
/// One that nobody serves at first.
const LATE_PORT: u16 = 7070;
const FRIEND_AT_ANY_PORT: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
";
/// The server lets nobody in, and may reach nobody.
const CLOSED: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
";

// === Who talks ===

/// A process of the helper program in a namespace; ended and reaped on drop.
struct Speaker(Child);

impl Speaker {
    fn start(netns: &Netns, command: &mut Command) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(netns.spawn(command)?))
    }

    /// `lab-peer serve`, which takes a port and says when it listens.
    fn listens(netns: &Netns, protocol: Protocol, port: u16) -> Result<Self> {
        let mut command = Command::new(HELPER);
        command.args(["serve", &protocol.to_string(), &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut speaker = Self(netns.spawn(&mut command)?);
        let stdout = speaker.0.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "listening", "the helper does not listen");
        Ok(speaker)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Until it has ended by itself.
    fn ends(mut self) -> Result<()> {
        let status = self.0.wait().context("cannot wait")?;
        ensure!(status.success(), "the helper failed: {status}");
        Ok(())
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait()).is_ok();
    }
}

fn helper(verb: &str, protocol: Protocol, to: SocketAddr) -> Command {
    helper_at(Path::new(HELPER), verb, protocol, to)
}

fn helper_at(program: &Path, verb: &str, protocol: Protocol, to: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args([verb, &protocol.to_string(), &to.to_string()]);
    command.stdin(Stdio::null());
    command
}

/// The helper under a name that no terminal should see.
fn disguised(lab: &Lab) -> Result<PathBuf> {
    // In a folder that everybody may enter.
    let folder = lab.folder().join("programs");
    fs::create_dir_all(&folder)?;
    for open in [lab.folder(), &folder] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755))?;
    }
    let name = OsString::from("\u{1b}[2J\"x\n");
    let program = folder.join(name);
    fs::copy(HELPER, &program).context("cannot copy the helper")?;
    Ok(program)
}

/// A socket of this process, in a namespace.
fn own_socket(netns: &Netns, protocol: Protocol) -> Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let made = netns.within(|| socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None));
    made.context("no socket")
}

// === What is recorded ===

/// The first record of which all of this is so.
fn recorded(agent: &Agent, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = eventually_some(RECORDED, || {
        let records = agent.flows(1000).unwrap_or_default();
        records.into_iter().find(&is_it)
    });
    found.with_context(|| {
        let records: Vec<_> = agent.flows(1000).unwrap_or_default();
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        format!("no such record:\n{}\n{}", lines.join("\n"), agent.log())
    })
}

fn is_about(
    record: &Value,
    kind: &str,
    direction: &str,
    protocol: Protocol,
    to: SocketAddr,
) -> bool {
    record["kind"] == kind
        && record["direction"] == direction
        && record["protocol"]["name"] == protocol.to_string().to_lowercase()
        && record["dst"]["ip"] == to.ip().to_string()
        && record["dst"]["port"] == to.port()
}

/// The server's record of a flow that it began.
fn went_out(agent: &Agent, kind: &str, protocol: Protocol, to: SocketAddr) -> Result<Value> {
    recorded(agent, |record| {
        is_about(record, kind, "egress", protocol, to) && record["endpoint"] == "shop/server"
    })
}

fn pid(record: &Value) -> Option<u64> {
    record["process"]["pid"].as_u64()
}

fn is_named(record: &Value, expected: u32) -> Result<()> {
    ensure!(
        pid(record) == Some(expected.into()),
        "expected process {expected}: {record}"
    );
    Ok(())
}

fn own_group() -> Result<(String, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.context("no cgroup of version 2")?.to_owned();
    let folder = cgroup::root()?.join(path.trim_start_matches('/'));
    let id = fs::metadata(&folder)
        .with_context(|| format!("no {}", folder.display()))?
        .ino();
    Ok((path, id))
}

// === Outward ===

#[test]
fn who_connects_is_named_with_user_group_and_begin() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let program = disguised(&scene.lab)?;
    let (group, group_id) = own_group()?;
    let mut begun = String::new();
    for protocol in Protocol::ALL {
        for to in scene.friend.at(PORT) {
            let mut command = helper_at(&program, "hold", protocol, to);
            let speaker = Speaker::start(&scene.server, command.uid(NOBODY))?;
            let record = went_out(&agent, "start", protocol, to)?;
            is_named(&record, speaker.pid())?;
            let process = &record["process"];
            ensure!(process["comm"] == "\u{1b}[2J\"x\n", "{record}");
            ensure!(process["uid"] == NOBODY, "{record}");
            // Over UDP it has an echo at once, and is gone.
            let file = process["exe"].as_str();
            let is_gone = protocol == Protocol::Udp && file.is_none();
            ensure!(is_gone || file == program.to_str(), "{record}");
            ensure!(process["cgroup_id"] == group_id, "{record}");
            ensure!(process["cgroup"] == group.as_str(), "{record}");
            ensure!(process.get("via").is_none(), "{record}");
            // As text, times are in order.
            let started = process["start_time"].as_str().context("no start time")?;
            let flow_began = record["start"].as_str().context("no start")?;
            ensure!(
                *begun < *started && started < flow_began,
                "{begun} {record}"
            );
            flow_began.clone_into(&mut begun);
        }
    }
    let table = agent.flow_table(100)?;
    ensure!(!table.contains('\u{1b}'), "{table:?}");
    ensure!(table.contains("\\u{1b}[2J"), "{table}");
    Ok(())
}

#[test]
fn who_was_denied_is_named() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.stranger.at(OTHER_PORT) {
            let mut command = helper("probe", protocol, to);
            let speaker = Speaker::start(&scene.server, &mut command)?;
            let record = went_out(&agent, "deny", protocol, to)?;
            is_named(&record, speaker.pid())?;
            ensure!(record["process"]["comm"] == "lab-peer", "{record}");
        }
    }
    Ok(())
}

#[test]
fn a_process_that_has_gone_before_anybody_looked_is_named() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    agent.signal(Signal::STOP)?;
    let mut gone = Vec::new();
    for protocol in Protocol::ALL {
        let to = scene.friend.v4(PORT);
        let speaker = Speaker::start(&scene.server, &mut helper("probe", protocol, to))?;
        gone.push((protocol, to, speaker.pid()));
        speaker.ends()?;
    }
    agent.signal(Signal::CONT)?;
    for (protocol, to, pid) in gone {
        let record = went_out(&agent, "start", protocol, to)?;
        is_named(&record, pid)?;
        ensure!(record["process"]["start_time"].is_string(), "{record}");
    }
    Ok(())
}

#[test]
fn a_socket_is_whose_who_connected_it_last_or_else_made_it() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let handed = |verb, protocol, to| -> Result<Speaker> {
        let socket = own_socket(&scene.server, protocol)?;
        let mut command = helper(verb, protocol, to);
        Speaker::start(&scene.server, command.stdin(socket))
    };
    for protocol in Protocol::ALL {
        let to = scene.friend.v4(PORT);
        let speaker = handed("connect-handed", protocol, to)?;
        is_named(&went_out(&agent, "start", protocol, to)?, speaker.pid())?;
        speaker.ends()?;
    }
    // To send, no process has to tell the kernel anything but that: the one that made it is named.
    let to = scene.friend.v4(OTHER_PORT);
    let sender = handed("send-handed", Protocol::Udp, to)?;
    let record = went_out(&agent, "deny", Protocol::Udp, to)?;
    is_named(&record, std::process::id())?;
    sender.ends()
}

// === Inward ===

#[test]
fn who_listens_is_named_once_it_has_answered() -> Result<()> {
    let scene = Scene::with(FRIEND_AT_ANY_PORT)?;
    let agent = scene.enforced()?;
    let [tcp, udp] =
        Protocol::ALL.map(|protocol| Speaker::listens(&scene.server, protocol, LATE_PORT));
    let (tcp, udp) = (tcp?, udp?);
    let is_listener = |record: &Value, of: &Speaker| -> Result<()> {
        is_named(record, of.pid())?;
        ensure!(record["process"]["via"] == "listener", "{record}");
        Ok(())
    };
    for to in scene.server.at(LATE_PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        let came_in = |kind| {
            recorded(&agent, |record| {
                is_about(record, kind, "ingress", Protocol::Tcp, to)
            })
        };
        is_listener(&came_in("end")?, &tcp)?;
        let start = came_in("start")?;
        ensure!(start.get("process").is_none(), "nobody can know: {start}");
    }

    let mut sockets = Vec::new();
    for to in scene.server.at(LATE_PORT) {
        let connected = scene.friend.within(|| -> std::io::Result<UdpSocket> {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(RECORDED))?;
            // The answer may come to the second, and then that is the one that names.
            for _ in 0..2 {
                socket.send(b"hello")?;
                socket.recv(&mut [0; 8])?;
            }
            Ok(socket)
        });
        sockets.push((to, connected.context("no answer")?));
    }
    scene.policy(CLOSED)?;
    for (to, socket) in sockets {
        let is_it = |record: &Value| is_about(record, "end", "ingress", Protocol::Udp, to);
        let ended = eventually(RECORDED, || {
            // It is not told that it may no longer: the server's socket is not its own.
            let _sent = socket.send(b"more").is_ok();
            agent
                .flows(1000)
                .is_ok_and(|records| records.iter().any(is_it))
        });
        ensure!(ended, "the flow goes on: {}", agent.log());
        let record = recorded(&agent, is_it)?;
        ensure!(record["end_reason"] == "revoked", "{record}");
        is_listener(&record, &udp)?;
    }
    Ok(())
}

#[test]
fn what_only_sends_is_permitted_and_counted_as_ever() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let to = scene.server.v4(PORT);
    let socket = scene.friend.within(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.connect(to)?;
    for _ in 0..40 {
        socket.send(b"hello")?;
    }
    scene.policy(CLOSED)?;
    let record = {
        let is_it = |record: &Value| is_about(record, "end", "ingress", Protocol::Udp, to);
        let ended = eventually(RECORDED, || {
            let _sent = socket.send(b"more").is_ok();
            agent
                .flows(1000)
                .is_ok_and(|records| records.iter().any(is_it))
        });
        ensure!(ended, "the flow goes on: {}", agent.log());
        recorded(&agent, is_it)?
    };
    let packets = record["forward"]["packets"].as_u64().unwrap_or(0);
    ensure!(packets >= 39, "{record}");
    Ok(())
}

// === By cgroup ===

#[test]
fn in_a_cgroup_both_sides_are_named_at_once() -> Result<()> {
    let lab = Lab::bridged()?;
    let friend = lab.peer("friend", 2)?;
    let group = Cgroup::create(&lab, "service", HELPER)?;
    let id = fs::metadata(group.path())?.ino();
    let inventory = manifest::cgroup(group.name(), "host", "service", &[("app", "service")]);
    let inventory = lab.write("policies/inventory.yaml", &inventory)?;
    let agent = Agent::enforcing(&lab, &[&inventory])?;
    for protocol in Protocol::ALL {
        let _service = friend.serve(protocol, PORT)?;
        let _confined = group.serve(lab.host(), protocol, PORT)?;
        let members = fs::read_to_string(group.path().join("cgroup.procs"))?;
        let members: Vec<u64> = members.lines().filter_map(|pid| pid.parse().ok()).collect();

        let to = SocketAddr::new(lab.host_addresses()[0], PORT);
        friend.reaches(protocol, to)?;
        let record = recorded(&agent, |record| {
            is_about(record, "start", "ingress", protocol, to)
        })?;
        let process = &record["process"];
        ensure!(process["via"] == "listener", "{record}");
        ensure!(
            pid(&record).is_some_and(|pid| members.contains(&pid)),
            "{members:?} {record}"
        );
        ensure!(
            process["comm"] == "lab-peer" && process["cgroup_id"] == id,
            "{record}"
        );

        let to = friend.v4(PORT);
        let seen = group.probe(lab.host(), protocol, to)?;
        ensure!(seen == Outcome::Allowed, "{seen}");
        let record = recorded(&agent, |record| {
            is_about(record, "start", "egress", protocol, to)
        })?;
        let process = &record["process"];
        ensure!(process.get("via").is_none(), "{record}");
        ensure!(
            process["comm"] == "lab-peer" && process["cgroup_id"] == id,
            "{record}"
        );
        ensure!(
            pid(&record).is_some_and(|pid| !members.contains(&pid)),
            "{record}"
        );
    }
    Ok(())
}

// === What is amiss ===

#[test]
fn a_socket_without_room_is_counted_and_its_flows_have_no_process() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    // Of each namespace its own since 6.8; what is of the whole machine is left alone.
    if scene.server.sysctl("core/optmem_max", "0").is_err() {
        eprintln!("skipped: the limit of sockets' memory is not a namespace's own");
        return Ok(());
    }
    let lost = |agent: &Agent| {
        agent
            .status()
            .map(|status| status["processes"]["lost"].clone())
    };
    ensure!(lost(&agent)? == 0, "{:?}", lost(&agent));
    let to = scene.friend.v4(PORT);
    scene.server.reaches(Protocol::Tcp, to)?;
    let record = went_out(&agent, "start", Protocol::Tcp, to)?;
    ensure!(record.get("process").is_none(), "{record}");
    // Where it was made, and where it was connected.
    ensure!(lost(&agent)? == 2, "{:?}", lost(&agent));
    Ok(())
}

#[test]
fn who_sees_a_part_of_the_machine_says_so() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let group = Cgroup::create(&scene.lab, "part", HELPER)?;
    let mut agent = scene.agent()?.within(&group);
    agent.start()?;
    let says = agent.status_eventually(RECORDED, |status| {
        let processes = &status["processes"];
        let messages = processes["messages"].to_string();
        processes["noted"] == true && messages.contains("only a part of the cgroup hierarchy")
    });
    ensure!(
        says,
        "{:?}",
        agent.status().map(|status| status["processes"].clone())
    );
    let to = scene.friend.v4(PORT);
    scene.server.reaches(Protocol::Tcp, to)?;
    let record = went_out(&agent, "start", Protocol::Tcp, to)?;
    ensure!(
        record.get("process").is_none(),
        "this process is not in it: {record}"
    );
    Ok(())
}

fn process_links(agent: &Agent) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(agent.bpffs().join("links"))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    let is_it = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("process-"))
    };
    Ok(paths.into_iter().filter(is_it).collect())
}

/// A process that connects now is named.
fn names(scene: &Scene, agent: &Agent, port_of: &dyn Fn() -> SocketAddr) -> Result<()> {
    let to = port_of();
    let speaker = Speaker::start(&scene.server, &mut helper("probe", Protocol::Tcp, to))?;
    let pid = u64::from(speaker.pid());
    recorded(agent, |record| {
        record["kind"] == "start" && record["process"]["pid"] == pid
    })?;
    speaker.ends()
}

#[test]
fn programs_that_are_taken_off_are_put_back_and_told_of() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let links = process_links(&agent)?;
    ensure!(links.len() == 5, "{links:?}");
    let told = |how: &str| {
        eventually(RECORDED, || {
            let records = agent.flows(1000).unwrap_or_default();
            records.iter().any(|record| {
                let what = record["what"].as_str().unwrap_or_default();
                record["kind"] == "tampering"
                    && record["how"] == how
                    && record["restored"] == true
                    && what.starts_with("cgroup ")
            })
        })
    };
    for link in &links {
        fs::remove_file(link)?;
    }
    ensure!(told("unpinned"), "{}", agent.log());
    ensure!(process_links(&agent)?.len() == 5, "pins are missing");
    for link in &links {
        kernel::detach_link(link)?;
    }
    ensure!(told("detached"), "{}", agent.log());
    let named = eventually(RECORDED, || {
        names(&scene, &agent, &|| scene.friend.v4(PORT)).is_ok()
    });
    ensure!(named, "{}", agent.log());
    Ok(())
}

#[test]
fn what_was_noted_outlives_the_agent_and_nothing_is_left_after_detach() -> Result<()> {
    let scene = Scene::with(FRIEND_AT_ANY_PORT)?;
    let mut agent = scene.enforced()?;
    agent.kill()?;
    // Its listener is of a time without an agent.
    let confined = Speaker::listens(&scene.server, Protocol::Tcp, LATE_PORT)?;
    agent.start()?;
    let to = scene.server.v4(LATE_PORT);
    scene.friend.reaches(Protocol::Tcp, to)?;
    let record = recorded(&agent, |record| {
        is_about(record, "end", "ingress", Protocol::Tcp, to)
    })?;
    is_named(&record, confined.pid())?;
    agent.terminate()?;
    ensure!(process_links(&agent)?.len() == 5, "they end with the agent");
    agent.detach()?;
    ensure!(!agent.bpffs().exists(), "pins are left");
    Ok(())
}

#[test]
fn two_agents_name_side_by_side_and_one_leaves_the_other_alone() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let first = scene.enforced()?;
    let mut second = Agent::prepare(&scene.lab, "second", &[&scene.policies()])?;
    second.start()?;
    let to = || scene.friend.v4(PORT);
    names(&scene, &first, &to)?;
    names(&scene, &second, &to)?;
    second.terminate()?;
    second.detach()?;
    names(&scene, &first, &to)
}
