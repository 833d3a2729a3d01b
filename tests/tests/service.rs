//! Under a service manager: what it is told, and what its unit allows.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::process;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use rustix::process::Signal;

const UNIT: &str = include_str!("../../agent/systemd/ringfence.service");
/// For hosts whose workloads have network namespaces.
const NAMESPACES: &str = include_str!("../../agent/systemd/ringfence.service.d/namespaces.conf");

/// A watchdog that is impatient enough for a test.
const WATCHDOG: Duration = Duration::from_millis(400);
/// For what comes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent says to its manager.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn watch(scene: &Scene) -> Result<(Self, Agent)> {
        let path = scene.lab.folder().join("notify");
        let socket = UnixDatagram::bind(&path).context("cannot listen")?;
        let agent = scene
            .agent()?
            .with_variable("NOTIFY_SOCKET", path)
            .with_variable("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        Ok((Self { socket }, agent))
    }

    fn hears(&self, wanted: &str, patience: Duration) -> Result<bool> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut message = [0; 4096];
        loop {
            let length = match self.socket.recv(&mut message) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let message = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            if message.lines().any(|line| line.starts_with(wanted)) {
                return Ok(true);
            }
        }
    }

    /// Throws away what has been said.
    fn forget(&self) -> Result<()> {
        while self.hears("", Duration::from_millis(1))? {}
        Ok(())
    }
}

#[test]
fn the_manager_hears_when_policy_is_in_force_and_whether_the_agent_is_at_work() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let (manager, mut agent) = Manager::watch(&scene)?;
    agent.start()?;
    ensure!(manager.hears("READY=1", PATIENCE)?, "it is not told");
    for _ in 0..3 {
        ensure!(manager.hears("WATCHDOG=1", PATIENCE)?, "{}", agent.log());
    }
    // One that hangs says nothing, and what is in force stays in force.
    agent.signal(Signal::STOP)?;
    manager.forget()?;
    ensure!(!manager.hears("WATCHDOG=1", WATCHDOG * 2)?);
    let server = scene.server.v4(PORT);
    scene.stranger.is_dropped_to(Protocol::Tcp, server)?;
    scene.friend.reaches(Protocol::Tcp, server)?;
    agent.signal(Signal::CONT)?;
    ensure!(manager.hears("WATCHDOG=1", PATIENCE)?, "{}", agent.log());
    agent.terminate()?;
    ensure!(manager.hears("STOPPING=1", PATIENCE)?, "it is not told");
    Ok(())
}

/// The value of a setting of the unit, or of what is laid over it.
fn setting(unit: &'static str, name: &str) -> Result<&'static str> {
    let mut lines = unit.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.with_context(|| format!("the unit has no {name}"))
}

/// An agent with no more capabilities than these units give it: settings of this one add up.
fn confined(scene: &Scene, units: &[&'static str]) -> Result<Agent> {
    let mut bounds = "--bounding-set=-all".to_owned();
    for unit in units {
        for name in setting(unit, "CapabilityBoundingSet")?.split(' ') {
            let name = name.strip_prefix("CAP_").context("not a capability")?;
            bounds = format!("{bounds},+{}", name.to_lowercase());
        }
    }
    let start = ["setpriv", "--no-new-privs", "--inh-caps=-all", &bounds];
    Ok(scene.agent()?.started_by(&start))
}

#[test]
fn with_the_unit_alone_nobody_enters_namespaces_and_with_its_addition_only_the_helper() -> Result<()>
{
    let kept = ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"];
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = confined(&scene, &[UNIT])?;
    agent.start()?;
    let privileges = agent.status()?["privileges"].clone();
    ensure!(privileges["capabilities"] == serde_json::json!(kept));
    ensure!(privileges["helper"].is_null(), "{privileges}");
    ensure!(privileges["messages"].to_string().contains("CAP_SYS_ADMIN"));
    agent.terminate()?;

    let mut agent = confined(&scene, &[UNIT, NAMESPACES])?;
    agent.start()?;
    let privileges = agent.status()?["privileges"].clone();
    ensure!(privileges["capabilities"] == serde_json::json!(kept));
    let has_helper = agent.status_eventually(PATIENCE, |status| {
        status["privileges"]["helper"]["pid"].is_u64()
    });
    ensure!(has_helper, "{privileges}");
    ensure!(privileges["messages"].is_null(), "{privileges}");
    let own = process::Rights::of(agent.process().context("the agent has no process")?)?;
    ensure!(own.bounding == own.permitted, "{own:?}");
    agent.terminate()?;
    Ok(())
}

#[test]
fn the_capabilities_of_the_unit_are_enough() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = confined(&scene, &[UNIT])?;
    agent.start()?;
    for to in scene.server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    // A changed policy, too.
    scene.policy(&FRIEND_ONLY.replace("app: friend", "app: stranger"))?;
    let followed = ringfence_lab::wait::eventually(PATIENCE, || {
        let server = scene.server.v4(PORT);
        scene.stranger.reaches(Protocol::Tcp, server).is_ok()
    });
    ensure!(followed, "{}", agent.log());
    agent.terminate()?;
    Ok(())
}

/// Each word of the unit's command is one that the agent knows.
#[test]
fn the_command_of_the_unit_is_one_of_the_agent() -> Result<()> {
    let command = setting(UNIT, "ExecStart")?;
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let scene = Scene::with(FRIEND_ONLY)?;
    let output = scene.agent()?.call(&[&words[..], &["--help"]].concat())?;
    ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
