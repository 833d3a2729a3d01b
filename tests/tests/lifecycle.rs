//! The agent comes and goes; enforcement stays.

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::prober::Prober;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::stream::Stream;

/// Attempts before and after each event.
const SOME: u64 = 50;

/// Traffic that must pass and traffic that must not, over both families.
struct Traffic {
    passing: Vec<Stream>,
    denied: Vec<Prober>,
}

impl Traffic {
    fn begin(scene: &Scene) -> Result<Self> {
        let mut traffic = Self {
            passing: Vec::new(),
            denied: Vec::new(),
        };
        for to in scene.server.at(PORT) {
            traffic.passing.push(scene.friend.stream(to)?);
            for protocol in Protocol::ALL {
                traffic.denied.push(scene.stranger.prober(protocol, to));
            }
        }
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Waits until all of it has been tried some more.
    fn goes_on(&self) -> Result<()> {
        self.denied
            .iter()
            .try_for_each(|prober| prober.makes(SOME))?;
        self.passing.iter().try_for_each(Stream::advances)
    }

    fn end(self) -> Result<()> {
        self.denied
            .into_iter()
            .try_for_each(Prober::finish_denied)?;
        self.passing
            .into_iter()
            .try_for_each(|stream| stream.finish().unbroken())
    }
}

fn judged_anew(scene: &Scene) -> Result<()> {
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_killed_agent_leaves_enforcement_and_the_next_takes_over_without_a_gap() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    for _ in 0..2 {
        agent.kill()?;
        traffic.goes_on().context("after kill -9")?;
        judged_anew(&scene).context("after kill -9")?;
        agent.start()?;
        traffic.goes_on().context("after the restart")?;
        judged_anew(&scene).context("after the restart")?;
    }
    traffic.end()
}

#[test]
fn sigterm_leaves_enforcement() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let traffic = Traffic::begin(&scene)?;
    let status = agent.terminate()?;
    ensure!(status.success(), "SIGTERM is an orderly end, not {status}");
    traffic.goes_on()?;
    judged_anew(&scene)?;
    agent.start()?;
    traffic.goes_on()?;
    traffic.end()
}

#[test]
fn a_policy_changed_while_no_agent_ran_is_in_force_after_the_start() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    agent.kill()?;
    scene.policy(&FRIEND_ONLY.replace("app: friend", "app: stranger"))?;
    judged_anew(&scene).context("while no agent runs")?;
    agent.start()?;
    scene
        .stranger
        .reaches(Protocol::Tcp, scene.server.v4(PORT))?;
    scene
        .friend
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn detach_on_exit_leaves_the_network_as_it_was() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.agent()?.with(&["--detach-on-exit"]);
    agent.start()?;
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))?;
    agent.terminate()?;
    scene.stranger.reaches(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn an_agent_mounts_its_bpffs_where_there_is_none() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.agent()?.with_unmounted_bpffs();
    agent.start()?;
    agent.kill()?;
    judged_anew(&scene)
}

#[test]
fn flow_records_tell_who_was_let_in_and_who_was_not() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent: Agent = scene.enforced()?;
    judged_anew(&scene)?;
    let told = ringfence_lab::wait::eventually(std::time::Duration::from_secs(10), || {
        let records = agent.flows(100).unwrap_or_default();
        let some = |verdict: &str, workload: &str| {
            records.iter().any(|record| {
                record["verdict"] == verdict && record["src"].to_string().contains(workload)
            })
        };
        some("allow", "friend") && some("deny", "stranger")
    });
    ensure!(told, "{:?}\n{}", agent.flows(100), agent.log());
    let file = std::fs::read_to_string(agent.flow_file()).context("no file of flow records")?;
    ensure!(
        file.contains("deny"),
        "the file holds no denied flow:\n{file}"
    );
    Ok(())
}
