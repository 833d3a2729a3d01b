//! An agent that may not enter network namespaces, and the process that does it for it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::process::{self, Rights};
use ringfence_lab::scene::{PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::{eventually, eventually_some};
use rustix::process::Signal;

const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`.
const AGENT: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// For a helper to be replaced, and for a changed policy to be carried out.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that may reach its friend, and a helper that has been seen at work.
struct Play {
    agent: Agent,
    scene: Scene,
}

impl Play {
    fn begin() -> Result<Self> {
        let scene = Scene::with(TO_FRIEND_ONLY)?;
        let agent = scene.enforced()?;
        Ok(Self { agent, scene })
    }

    fn agent(&self) -> Result<u32> {
        self.agent.process().context("the agent has no process")
    }

    /// The process that answers, once there is one beside `other`.
    fn worker(&self, other: Option<u32>) -> Result<u32> {
        let found = eventually_some(PATIENCE, || {
            let status = self.agent.status().ok()?;
            let pid = status["privileges"]["helper"]["pid"].as_u64()?;
            u32::try_from(pid).ok().filter(|pid| Some(*pid) != other)
        });
        found.with_context(|| format!("no helper beside {other:?}: {}", self.agent.log()))
    }

    fn restarts(&self) -> Result<u64> {
        let status = self.agent.status()?;
        let restarts = status["privileges"]["helper"]["restarts"].as_u64();
        restarts.with_context(|| format!("{status}"))
    }

    /// A connection of the server's ends with an error at once when policy no longer permits it, which
    /// takes its namespace to be entered.
    fn revokes(&self) -> Result<()> {
        self.scene.policy(TO_FRIEND_ONLY)?;
        let to = self.scene.friend.v4(PORT);
        let permitted = eventually(PATIENCE, || {
            self.scene.server.reaches(Protocol::Tcp, to).is_ok()
        });
        ensure!(permitted, "{}", self.agent.log());
        let mut stream = self.connection()?;
        self.scene.policy(&closed())?;
        let seen = stream.read(&mut [0]);
        let kind = seen.as_ref().map_err(std::io::Error::kind);
        ensure!(
            kind == Err(ErrorKind::ConnectionAborted),
            "{seen:?}\n{}",
            self.agent.log()
        );
        self.scene.server.is_dropped_to(Protocol::Tcp, to)
    }

    /// From the server to its friend.
    fn connection(&self) -> Result<TcpStream> {
        let Scene { server, friend, .. } = &self.scene;
        let to = friend.v4(PORT);
        let mut stream = server.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"a")?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    }
}

/// What [`TO_FRIEND_ONLY`] says, but for other ports.
fn closed() -> String {
    TO_FRIEND_ONLY.replace("8080", "9999")
}

#[test]
fn agent_and_helper_hold_what_is_documented_and_no_more() -> Result<()> {
    let play = Play::begin()?;
    let (agent, worker) = (play.agent()?, play.worker(None)?);
    // After everything that an agent does.
    play.revokes()?;
    let only = |set| Rights {
        effective: set,
        permitted: set,
        bounding: set,
        inheritable: 0,
        ambient: 0,
        no_new: true,
    };
    let threads = Rights::of_threads(agent)?;
    ensure!(threads.len() > 1, "{threads:?}");
    ensure!(
        threads.iter().all(|rights| *rights == only(AGENT)),
        "{threads:?}"
    );
    let visiting = SYS_ADMIN | SYS_PTRACE;
    let threads = Rights::of_threads(worker)?;
    ensure!(threads == [only(visiting)], "{threads:?}");
    let starter = process::parent(worker)?;
    ensure!(process::parent(starter)? == agent, "{starter} is no child");
    let hands_on = Rights {
        effective: 0,
        inheritable: visiting,
        ambient: visiting,
        ..only(visiting)
    };
    let threads = Rights::of_threads(starter)?;
    ensure!(threads == [hands_on], "{threads:?}");
    let names = ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"];
    let status = play.agent.status()?;
    ensure!(
        status["privileges"]["capabilities"] == serde_json::json!(names),
        "{status}"
    );
    Ok(())
}

/// Whether root without `CAP_SYS_PTRACE`, but with all else, may look into a process.
fn is_open(pid: u32) -> Result<bool> {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-all"])
        .args(["ls", "-l", &format!("/proc/{pid}/ns/net")])
        .stdin(Stdio::null())
        .output()
        .context("cannot run setpriv")?;
    // Linux 5.10 gives whom it tells nothing no error either.
    Ok(String::from_utf8_lossy(&output.stdout).contains("net:["))
}

#[test]
fn nobody_looks_into_the_helper() -> Result<()> {
    let play = Play::begin()?;
    let worker = play.worker(None)?;
    ensure!(is_open(play.agent()?)?, "the question is wrong");
    for part in [worker, process::parent(worker)?] {
        // Its number is known before it has closed itself, which is the first that it does.
        let closes = eventually(PATIENCE, || is_open(part).is_ok_and(|is_open| !is_open));
        ensure!(closes, "{part} is open");
    }
    Ok(())
}

#[test]
fn a_helper_that_is_killed_is_replaced() -> Result<()> {
    let play = Play::begin()?;
    let first = play.worker(None)?;
    play.revokes()?;
    process::signal(first, Signal::KILL)?;
    play.revokes()?;
    let second = play.worker(Some(first))?;
    ensure!(play.restarts()? == 1);
    // Nobody has asked for anything: it is replaced all the same, and shown.
    process::signal(second, Signal::KILL)?;
    play.worker(Some(second))?;
    ensure!(play.restarts()? == 2);
    play.revokes()
}

#[test]
fn a_helper_that_hangs_holds_nothing_up_and_is_replaced() -> Result<()> {
    let play = Play::begin()?;
    let first = play.worker(None)?;
    process::signal(first, Signal::STOP)?;
    play.revokes()?;
    play.worker(Some(first))?;
    ensure!(process::has_ended(first), "it was left hanging");
    ensure!(play.restarts()? == 1);
    Ok(())
}

#[test]
fn without_any_helper_the_agent_goes_on_and_says_so() -> Result<()> {
    let play = Play::begin()?;
    let worker = play.worker(None)?;
    process::signal(process::parent(worker)?, Signal::KILL)?;
    let told = play.agent.status_eventually(PATIENCE, |status| {
        status["privileges"]["helper"]["ended"] == true
    });
    ensure!(told, "{}", play.agent.log());
    ensure!(eventually(PATIENCE, || process::has_ended(worker)));
    play.scene.policy(&closed())?;
    let to = play.scene.friend.v4(PORT);
    let dropped = eventually(PATIENCE, || {
        let seen = play.scene.server.is_dropped_to(Protocol::Tcp, to);
        seen.is_ok()
    });
    ensure!(dropped, "{}", play.agent.log());
    Ok(())
}

#[test]
fn no_part_of_the_helper_outlives_the_agent() -> Result<()> {
    let mut play = Play::begin()?;
    let worker = play.worker(None)?;
    let starter = process::parent(worker)?;
    for part in [worker, starter] {
        process::signal(part, Signal::STOP)?;
    }
    play.agent.kill()?;
    for part in [worker, starter] {
        ensure!(eventually(PATIENCE, || process::has_ended(part)), "{part}");
    }
    Ok(())
}

/// In a network namespace of its own, which no mount leads to.
struct Hermit(Child);

impl Hermit {
    fn settle(scene: &Scene, interface: &str) -> Result<Self> {
        let mut command = Command::new("unshare");
        let command = command.args(["-n", "sleep", "600"]).stdin(Stdio::null());
        let hermit = Self(scene.lab.host().spawn(command)?);
        let pid = hermit.0.id();
        let is_there = eventually(PATIENCE, || {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "sleep")
        });
        ensure!(is_there, "it did not leave");
        scene.lab.host().ip(&format!(
            "link add {interface} type veth peer name eth0 netns {pid}\n"
        ))?;
        Ok(hermit)
    }
}

impl Drop for Hermit {
    fn drop(&mut self) {
        let Self(child) = self;
        drop(child.kill().and_then(|()| child.wait()));
    }
}

/// What the status says of live connections of the hermit's, if they could not be asked for.
fn unseen(agent: &Agent) -> Result<Option<String>> {
    let status = agent.status()?;
    let endpoints = status["endpoints"].as_array().context("endpoints")?;
    let mut endpoints = endpoints.iter();
    let hermit = endpoints.find(|endpoint| endpoint["name"] == "shop/hermit");
    let hermit = hermit.with_context(|| format!("{status}"))?;
    ensure!(hermit["state"] == "attached", "{hermit}");
    Ok(hermit["message"].as_str().map(str::to_owned))
}

#[test]
fn a_namespace_that_only_a_process_leads_to_is_found_if_processes_may_be_looked_into() -> Result<()>
{
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let _hermit = Hermit::settle(&scene, "veth-hermit")?;
    let workload = r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: shop, name: hermit}
spec: {addresses: [10.77.0.9], endpoint: {interface: veth-hermit}}
";
    scene.lab.write("policies/hermit.yaml", workload)?;
    let mut agent = scene.enforced()?;
    let told = unseen(&agent)?;
    ensure!(told.is_none(), "{told:?}");
    agent.terminate()?;
    agent.detach()?;

    let blind = ["setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace"];
    let mut agent = agent.started_by(&blind);
    agent.start()?;
    let told = unseen(&agent)?.context("it was seen all the same")?;
    ensure!(told.contains("no name and no process leads"), "{told}");
    let status = agent.status()?["privileges"].to_string();
    ensure!(status.contains("CAP_SYS_PTRACE is missing"), "{status}");
    Ok(())
}

#[test]
fn nobody_but_the_agent_starts_a_helper() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.agent()?;
    for part in ["starter", "worker"] {
        let output = agent.call(&["helper", part])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{part}: {said}");
        ensure!(said.contains("ringfence run"), "{part}: {said}");
    }
    Ok(())
}
