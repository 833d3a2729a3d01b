//! An agent that dies, or hangs, while it observes what it attaches for the first time: what is denied
//! does not pass for good.

use std::path::PathBuf;
use std::time::Duration;

use agent_common::abi::ABI_VERSION;
use agent_common::table::Endpoint;
use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use ringfence::datapath::link;
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use rustix::process::Signal;

/// For an agent on a busy machine to come so far.
const COMES: Duration = Duration::from_secs(30);
/// Twice as long as an observation lasts by itself, and more.
const ENDS: Duration = Duration::from_secs(30);
/// The tables of an agent, as anybody with the right to can open them.
struct Tables(PathBuf);

impl Tables {
    fn of(agent: &Agent) -> Self {
        Self(agent.bpffs().join(format!("maps-v{ABI_VERSION}")))
    }

    fn open(&self, name: &str) -> Result<MapData> {
        MapData::from_pin(self.0.join(name)).with_context(|| format!("no map {name}"))
    }

    /// Whom the key leads to.
    fn endpoint<K: Pod>(&self, name: &str, key: &K) -> Result<Endpoint> {
        let map: HashMap<_, K, [u8; 4]> = Map::HashMap(self.open(name)?).try_into()?;
        let [i0, i1, f0, f1] = map.get(key, 0)?;
        Ok(Endpoint {
            id: u16::from_le_bytes([i0, i1]),
            flags: u16::from_le_bytes([f0, f1]),
        })
    }

    /// Whether it leads to who is observed, and that will end.
    fn is_observed<K: Pod>(&self, name: &str, key: &K) -> Result<bool> {
        let endpoint = self.endpoint(name, key)?;
        let until: Array<_, u64> = Map::Array(self.open("OBSERVED_UNTIL")?).try_into()?;
        Ok(endpoint.has(Endpoint::OBSERVED) && until.get(&u32::from(endpoint.id), 0)? > 0)
    }
}

/// A workload that is reached after all others: the programs of a cgroup take so long to load that those can
/// be seen waiting for it.
fn slow(lab: &Lab) -> Result<(Cgroup, String)> {
    let group = Cgroup::create(lab, "slow", env!("CARGO_BIN_EXE_lab-peer"))?;
    let inventory = manifest::cgroup(group.name(), "slow", "slow", &[]);
    Ok((group, inventory))
}

/// Starts an agent and does something to it when its programs hang at `endpoint`, while `is_observed` says so.
fn in_the_middle(
    agent: &mut Agent,
    endpoint: &str,
    is_observed: impl Fn(&Tables) -> Result<bool>,
    act: impl FnOnce(&mut Agent) -> Result<()>,
) -> Result<()> {
    let tables = Tables::of(agent);
    agent.launch()?;
    let seen = eventually(COMES, || {
        let log = agent.log();
        let mut lines = log.lines().filter(|line| line.contains(endpoint));
        lines.any(|line| line.contains("attached")) && is_observed(&tables).unwrap_or(false)
    });
    ensure!(seen, "nothing is observed: {}", agent.log());
    act(agent)?;
    // It did not get any further.
    ensure!(is_observed(&tables)?, "too late: {}", agent.log());
    Ok(())
}

struct Stage {
    scene: Scene,
    server: u32,
    agent: Agent,
    _slow: Cgroup,
}

impl Stage {
    /// The server has a connection, so that it is observed, for as long as others are being reached.
    fn set() -> Result<Self> {
        let scene = Scene::with(FRIEND_ONLY)?;
        let (group, inventory) = slow(&scene.lab)?;
        scene.lab.write("policies/slow.yaml", &inventory)?;
        let links = scene.lab.host().within(link::links)?;
        let server = links
            .iter()
            .find(|link| link.name == scene.server.interface())
            .context("the server has no interface")?
            .index;
        Ok(Self {
            agent: scene.agent()?,
            scene,
            server,
            _slow: group,
        })
    }
}

fn is_closed_to(stranger: &Peer, server: &Peer) -> bool {
    server
        .at(PORT)
        .iter()
        .all(|at| stranger.tcp(*at) == Outcome::TimedOut)
}

#[test]
fn an_interface_whose_agent_dies_observing_does_not_stay_open() -> Result<()> {
    let Stage {
        scene,
        server: index,
        mut agent,
        _slow,
    } = Stage::set()?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    let before = friend.stream(server.v4(PORT))?;
    let is_observed = |tables: &Tables| tables.is_observed("INTERFACES", &index);
    in_the_middle(&mut agent, "shop/server", is_observed, Agent::kill)?;

    let closed = eventually(ENDS, || is_closed_to(stranger, server));
    ensure!(closed, "what is denied passes, without an agent");
    // Nobody but the programs has ended it.
    ensure!(is_observed(&Tables::of(&agent))?, "not observed any more");
    for protocol in Protocol::ALL {
        friend.reaches(protocol, server.v6(PORT))?;
    }
    before.advances()?;

    // The next agent does not open it again to observe.
    let prober = stranger.prober(Protocol::Udp, server.v4(PORT));
    agent.start()?;
    // It may have ended by itself, where an agent takes minutes to start.
    prober.finish_denied().with_context(|| agent.log())?;
    ensure!(is_closed_to(stranger, server), "{}", agent.log());
    ensure!(!is_observed(&Tables::of(&agent))?, "{}", agent.log());
    before.advances().with_context(|| agent.log())?;
    let whole = before.finish().unbroken_but_for(agent.cost_of_attaching()?);
    whole.with_context(|| agent.log())
}

#[test]
fn an_agent_that_hangs_observing_does_not_open_it_again() -> Result<()> {
    let Stage {
        scene,
        server: index,
        mut agent,
        _slow,
    } = Stage::set()?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    let before = friend.stream(server.v6(PORT))?;
    let is_observed = |tables: &Tables| tables.is_observed("INTERFACES", &index);
    in_the_middle(&mut agent, "shop/server", is_observed, |agent| {
        agent.signal(Signal::STOP)
    })?;
    let closed = eventually(ENDS, || is_closed_to(stranger, server));
    ensure!(closed, "what is denied passes: {}", agent.log());
    let prober = stranger.prober(Protocol::Tcp, server.v4(PORT));
    agent.signal(Signal::CONT)?;
    agent.comes_to_enforce()?;
    // It may have ended by itself, where an agent takes minutes to start.
    prober.finish_denied().with_context(|| agent.log())?;
    ensure!(is_closed_to(stranger, server), "{}", agent.log());
    ensure!(!is_observed(&Tables::of(&agent))?, "{}", agent.log());
    before.advances().with_context(|| agent.log())?;
    let whole = before.finish().unbroken_but_for(agent.cost_of_attaching()?);
    whole.with_context(|| agent.log())
}

#[test]
fn a_cgroup_whose_agent_dies_observing_does_not_stay_open() -> Result<()> {
    let lab = Lab::bridged()?;
    let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
    let _services = [friend.serve_tcp(PORT)?, stranger.serve_tcp(PORT)?];
    let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
    let (_slow, slow) = slow(&lab)?;
    let inventory = [
        manifest::interface(&friend, "host", &[("app", "friend")]),
        manifest::interface(&stranger, "host", &[("app", "stranger")]),
        manifest::cgroup(group.name(), "host", "server", &[("app", "server")]),
        slow,
    ];
    lab.write("policies/inventory.yaml", &inventory.concat())?;
    let policy = ringfence_lab::scene::TO_FRIEND_ONLY.replace("namespace: shop", "namespace: host");
    lab.write("policies/policy.yaml", &policy)?;
    let _held = group.hold(lab.host(), friend.v4(PORT))?;
    let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(group.path())?);

    let mut agent = Agent::prepare(&lab, "agent", &[&lab.folder().join("policies")])?;
    let is_observed = |tables: &Tables| tables.is_observed("CGROUPS", &id);
    in_the_middle(&mut agent, "host/server", is_observed, Agent::kill)?;
    let asks = |peer: &Peer| group.probe(lab.host(), Protocol::Tcp, peer.v4(PORT));
    let closed = eventually(ENDS, || {
        asks(&stranger).is_ok_and(|outcome| outcome == Outcome::TimedOut)
    });
    ensure!(closed, "what is denied passes, without an agent");
    ensure!(is_observed(&Tables::of(&agent))?, "not observed any more");
    ensure!(asks(&friend)? == Outcome::Allowed, "closed to a friend");
    agent.start()?;
    ensure!(asks(&stranger)? == Outcome::TimedOut, "{}", agent.log());
    ensure!(asks(&friend)? == Outcome::Allowed, "{}", agent.log());
    ensure!(!is_observed(&Tables::of(&agent))?, "{}", agent.log());
    Ok(())
}
