//! Whatever happens to the agent, the kernel goes on: who must not get in does not, ten thousand
//! times a second, and who may loses no packet.

use std::cell::Cell;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_common::abi::{ABI_VERSION, FLOWS_SINCE};
use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::flood::{Flood, Receiver};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::stream::Stream;
use ringfence_lab::wait::eventually;
use rustix::process::Signal;

const UDP: u16 = 7000;
const ANSWERING: u16 = 7001;
const ANSWERING_LATER: u16 = 7002;
/// Of who is denied.
const TRIES: u32 = 10_000;
/// Of who is permitted.
const RATE: u32 = 2_000;
/// What is sent before and after each event: a second's worth.
const SOME: u64 = TRIES as u64;
const ENDED: Duration = Duration::from_secs(20);

/// Traffic over both families. Dropped in order.
struct Traffic {
    permitted: Vec<Flood>,
    denied: Vec<Flood>,
    streams: Vec<Stream>,
    receiver: Receiver,
    /// What the server sends to one who has asked for it: it may begin nothing itself.
    replies: Flood,
    asker: Receiver,
    begun: Instant,
    /// How often a second's worth was waited for.
    turns: Cell<u64>,
}

fn scene() -> Result<Scene> {
    let ports = "ports: [{protocol: UDP, port: 7000}, {protocol: UDP, port: 7001}, \
                 {protocol: UDP, port: 7002}, ";
    let policy = FRIEND_ONLY
        .replace("ports: [", ports)
        .replace("ingress:", "policyTypes: [Ingress, Egress]\n  ingress:");
    let scene = Scene::with(&policy)?;
    // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
    for peer in [&scene.friend, &scene.stranger] {
        for address in scene.server.addresses() {
            ensure!(peer.ping(address) == Outcome::Allowed, "{}", peer.role());
        }
    }
    Ok(scene)
}

impl Traffic {
    fn begin(scene: &Scene) -> Result<Self> {
        let receiver = scene.server.hear(UDP)?;
        let (replies, asker) = asked(scene, ANSWERING)?;
        let mut traffic = Self {
            permitted: Vec::new(),
            denied: Vec::new(),
            streams: Vec::new(),
            receiver,
            replies,
            asker,
            begun: Instant::now(),
            turns: Cell::new(0),
        };
        for (to, stream) in scene.server.at(UDP).into_iter().zip(scene.server.at(PORT)) {
            traffic.permitted.push(scene.friend.flood(to, RATE / 2)?);
            traffic.denied.push(scene.stranger.flood(to, TRIES / 2)?);
            traffic.streams.push(scene.friend.stream(stream)?);
        }
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Waits for a second's worth of all of it.
    fn goes_on(&self) -> Result<()> {
        for flood in &self.denied {
            flood.sends(SOME / 2)?;
        }
        self.turns.set(self.turns.get() + 1);
        self.streams.iter().try_for_each(Stream::advances)
    }

    fn end(self, scene: &Scene) -> Result<()> {
        let Self {
            permitted,
            denied,
            streams,
            receiver,
            replies,
            asker,
            begun,
            turns,
        } = self;
        let (span, mut all_tries) = (begun.elapsed(), 0);
        let [server, _] = scene.server.addresses();
        asker.hears(server, replies.finish()).context("replies")?;
        for (flood, from) in permitted.into_iter().zip(scene.friend.addresses()) {
            receiver.hears(from, flood.finish()).context("permitted")?;
        }
        for (flood, from) in denied.into_iter().zip(scene.stranger.addresses()) {
            let tries = flood.finish();
            all_tries += tries;
            receiver
                .hears(from, 0)
                .with_context(|| format!("denied, {tries} tries"))?;
        }
        let rate = f64::from(u32::try_from(all_tries)?) / span.as_secs_f64();
        eprintln!("{all_tries} tries that had to fail, {rate:.0} a second");
        ensure!(all_tries >= turns.get() * SOME, "only {all_tries} tries");
        streams
            .into_iter()
            .try_for_each(|stream| stream.finish().unbroken())
    }
}

/// The friend asks once, and the server goes on answering.
fn asked(scene: &Scene, port: u16) -> Result<(Flood, Receiver)> {
    let server = scene.server.v4(port);
    let answering = scene.server.within(|| UdpSocket::bind(server))?;
    let asking = scene
        .friend
        .within(|| UdpSocket::bind(scene.friend.v4(0)))?;
    asking.send_to(b"go on", server)?;
    answering.set_read_timeout(Some(ENDED))?;
    let (_, asker) = answering.recv_from(&mut [0; 16])?;
    let replies = Flood::from(answering, asker, RATE);
    Ok((replies, Receiver::of(asking)?))
}

fn judged_anew(scene: &Scene) -> Result<()> {
    for to in scene.server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}

#[test]
fn an_agent_that_is_killed() -> Result<()> {
    let scene = scene()?;
    let mut agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    for _ in 0..3 {
        agent.kill()?;
        traffic.goes_on().context("after kill -9")?;
        agent.start()?;
        traffic.goes_on().context("after the restart")?;
    }
    judged_anew(&scene)?;
    traffic.end(&scene)
}

#[test]
fn an_agent_that_hangs() -> Result<()> {
    let scene = scene()?;
    let agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    agent.signal(Signal::STOP)?;
    for _ in 0..5 {
        traffic.goes_on().context("while it hangs")?;
    }
    judged_anew(&scene).context("while it hangs")?;
    agent.signal(Signal::CONT)?;
    traffic.goes_on().context("when it goes on")?;
    ensure!(agent.status()?["enforcing"] == true, "{}", agent.log());
    traffic.end(&scene)
}

/// The kernel itself ends it, because its control group has no memory left.
#[test]
fn an_agent_that_the_kernel_kills_for_memory() -> Result<()> {
    let scene = scene()?;
    let memory = MemoryGroup::create(scene.lab.prefix())?;
    let starter = memory.starter()?;
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let mut agent = scene.agent()?.started_by(&starter);
    agent.start()?;
    let traffic = Traffic::begin(&scene)?;
    memory.allow(memory.used()? + (4 << 20))?;
    // More to read than there is room for.
    let many = (0..200_000).map(|number| format!("# {number} and more\n"));
    let many: String = many.collect();
    let documents = (0..20_000).map(|number| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{namespace: shop, name: many-{number}}}\nspec: {{podSelector: {{}}}}\n"
        )
    });
    let documents: String = documents.collect();
    let path = scene
        .lab
        .write("policies/many.yaml", &(many + &documents))?;
    let ended = eventually(ENDED, || !agent.is_running());
    ensure!(ended, "it goes on\n{}", agent.log());
    ensure!(
        memory.kills()? > 0,
        "it was not the kernel\n{}",
        agent.log()
    );
    traffic.goes_on().context("after the kernel killed it")?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    memory.allow(1 << 40)?;
    // It is dead; this takes note of it.
    agent.kill()?;
    agent.start()?;
    traffic.goes_on().context("after the restart")?;
    judged_anew(&scene)?;
    traffic.end(&scene)
}

/// There is one binary to test. What it finds is what an agent of another version leaves: programs that
/// are attached, and maps that are not where it looks for its own.
fn taken_over(version: u32) -> Result<(Scene, Agent, Traffic)> {
    let scene = scene()?;
    let mut agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    agent.kill()?;
    let [ours, theirs] = [ABI_VERSION, version].map(|version| maps(&agent, version));
    fs::rename(&ours, &theirs).context("cannot move the maps")?;
    traffic.goes_on().context("before the start")?;
    agent.start()?;
    traffic.goes_on().context("after the start")?;
    ensure!(ours.is_dir(), "no maps of this version");
    ensure!(!theirs.exists(), "maps of the other version are left");
    judged_anew(&scene)?;
    Ok((scene, agent, traffic))
}

#[test]
fn an_agent_of_another_abi_that_takes_over() -> Result<()> {
    if FLOWS_SINCE == ABI_VERSION {
        // No version before this one remembers flows as this one does.
        return Ok(());
    }
    let (scene, mut agent, traffic) = taken_over(ABI_VERSION - 1)?;
    traffic.end(&scene)?;
    // It is an agent as any other.
    agent.kill()?;
    agent.start()?;
    judged_anew(&scene)
}

/// Flows are forgotten: those that are permitted are taken up by whoever began them.
#[test]
fn an_agent_of_an_abi_with_other_flows_that_takes_over() -> Result<()> {
    let (scene, _agent, mut traffic) = taken_over(FLOWS_SINCE - 1)?;
    let [server, _] = scene.server.addresses();
    // Nobody asks again, so the server is not let answer: what it takes to notice a lost flow.
    let (replies, asker) = asked(&scene, ANSWERING_LATER)?;
    let lost = std::mem::replace(&mut traffic.replies, replies).finish();
    let heard = traffic.asker.heard(server);
    ensure!(heard < lost, "all {lost} replies arrived");
    traffic.asker = asker;
    for stream in std::mem::take(&mut traffic.streams) {
        stream.advances()?;
    }
    traffic.end(&scene)
}

/// What does not come into force takes nothing away of what another version has in force.
#[test]
fn an_agent_of_another_abi_that_cannot_take_over() -> Result<()> {
    let scene = scene()?;
    let mut agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    agent.kill()?;
    let [ours, theirs] = [ABI_VERSION, ABI_VERSION - 1].map(|version| maps(&agent, version));
    fs::rename(&ours, &theirs).context("cannot move the maps")?;
    let small = scene.lab.write(
        "small.yaml",
        "capacities: {endpoints: 1, prefixes: 16, policy_entries: 16, port_entries: 16}\n",
    )?;
    let mut other = scene.agent()?.with(&["--config", &small.to_string_lossy()]);
    let error = other.start().err().context("it has room")?;
    ensure!(format!("{error:#}").contains("has room for"), "{error:#}");
    traffic.goes_on().context("after it failed")?;
    judged_anew(&scene)?;
    // Its drop would detach what is in force.
    std::mem::forget(other);
    agent.start().ok();
    traffic.end(&scene)
}

fn maps(agent: &Agent, version: u32) -> PathBuf {
    agent.bpffs().join(format!("maps-v{version}"))
}

/// A control group whose memory can be limited, of either version of the hierarchy.
struct MemoryGroup {
    path: PathBuf,
    files: Files,
}

/// What limit, use and kills are called.
struct Files {
    limit: &'static str,
    used: &'static str,
    events: &'static str,
}

impl MemoryGroup {
    fn create(name: &str) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (parent, files) = if v1.join("memory.limit_in_bytes").exists() {
            let files = Files {
                limit: "memory.limit_in_bytes",
                used: "memory.usage_in_bytes",
                events: "memory.oom_control",
            };
            (v1.to_owned(), files)
        } else {
            let root = ringfence_lab::cgroup::root()?;
            fs::write(root.join("cgroup.subtree_control"), "+memory")
                .context("no control of memory")?;
            let files = Files {
                limit: "memory.max",
                used: "memory.current",
                events: "memory.events",
            };
            (root, files)
        };
        let path = parent.join(format!("{name}-memory"));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, files })
    }

    /// A command that starts another one in the group.
    fn starter(&self) -> Result<[String; 4]> {
        const JOIN: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;
        let path = self.path.to_str().context("a path in UTF-8")?;
        Ok(["sh", "-c", JOIN, path].map(str::to_owned))
    }

    fn used(&self) -> Result<u64> {
        let used = fs::read_to_string(self.path.join(self.files.used))?;
        Ok(used.trim().parse()?)
    }

    fn allow(&self, bytes: u64) -> Result<()> {
        fs::write(self.path.join(self.files.limit), bytes.to_string()).context("cannot set a limit")
    }

    fn kills(&self) -> Result<u64> {
        let events = fs::read_to_string(self.path.join(self.files.events))?;
        let kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        Ok(kills.context("no count of kills")?.trim().parse()?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        eventually(ENDED, || fs::remove_dir(&self.path).is_ok());
    }
}
