//! Interfaces that are a workload's by their name, while no workload is declared for them.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::hold::Hold;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT};
use ringfence_lab::wait::{always, eventually};
use serde_json::Value;

/// For what takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// In which everything is looked at several times.
const LOOKS: Duration = Duration::from_secs(2);
/// Attempts of a prober in well more than a second.
const WHILE: u64 = 150;

const STRICT: &str = "workload_interfaces: {names: ['veth-*', 'uplink']}\n";
const COMPATIBLE: &str =
    "workload_interfaces: {names: ['veth-*', 'uplink'], unknown: compatible}\n";

/// Peers of a bridge, of which only those are known that the inventory names.
struct Ground {
    lab: Lab,
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        lab.write("policies/policy.yaml", FRIEND_ONLY)?;
        Ok(Self { lab })
    }

    fn declare(&self, peers: &[&Peer]) -> Result<()> {
        let inventory = peers
            .iter()
            .map(|peer| manifest::interface(peer, "shop", &[("app", peer.role())]));
        let inventory = inventory.collect::<String>();
        self.lab.write("policies/inventory.yaml", &inventory)?;
        Ok(())
    }

    fn agent(&self, settings: &str) -> Result<Agent> {
        let settings = self.lab.write("settings.yaml", settings)?;
        let settings = settings.to_str().context("a path of text")?.to_owned();
        let policies = self.lab.folder().join("policies");
        let mut agent = Agent::prepare(&self.lab, "agent", &[&policies])?.with(&[
            "--config",
            &settings,
            "--log-format",
            "json",
        ]);
        agent.start()?;
        Ok(agent)
    }
}

fn unknown(status: &Value) -> Vec<(&str, &str)> {
    let interfaces = status["unknown_interfaces"]["interfaces"].as_array();
    let interfaces = interfaces.into_iter().flatten();
    interfaces
        .filter_map(|link| Some((link["name"].as_str()?, link["state"].as_str()?)))
        .collect()
}

/// Waits until the interface is shown as in this state.
fn is_shown(agent: &Agent, peer: &Peer, state: &str) -> Result<()> {
    let shown = agent.status_eventually(SOON, |status| {
        unknown(status).contains(&(peer.interface(), state))
    });
    ensure!(
        shown,
        "{} is not {state}: {:#}\n{}",
        peer.interface(),
        agent.status()?["unknown_interfaces"],
        agent.log()
    );
    Ok(())
}

/// Nothing comes to the peer, and nothing from it, whoever sends.
fn is_closed(lab: &Lab, peer: &Peer) -> Result<()> {
    for address in peer.addresses() {
        let seen = lab.host().ping(address);
        ensure!(seen == Outcome::TimedOut, "the host to {address}: {seen}");
    }
    for address in lab.host_addresses() {
        let seen = peer.ping(address);
        // What it sends ends where the neighbour is asked for.
        ensure!(
            seen != Outcome::Allowed,
            "{} to {address}: {seen}",
            peer.role()
        );
    }
    Ok(())
}

fn comes_to_reach(from: &Peer, to: &Peer) -> Result<()> {
    for to in to.at(PORT) {
        let reached = eventually(SOON, || from.tcp(to) == Outcome::Allowed);
        ensure!(reached, "{} does not reach {to}", from.role());
    }
    Ok(())
}

fn pins(agent: &Agent) -> Result<Vec<String>> {
    let entries = fs::read_dir(agent.bpffs().join("links"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[test]
fn in_strict_mode_an_interface_is_closed_until_it_is_declared() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (server, stranger) = (lab.peer("server", 2)?, lab.peer("stranger", 4)?);
    let _service = server.serve_tcp(PORT)?;
    ground.declare(&[&server, &stranger])?;
    let mut agent = ground.agent(STRICT)?;

    let friend = lab.unheard_peer("friend", 3)?;
    is_shown(&agent, &friend, "denied")?;
    is_closed(lab, &friend)?;
    let status = agent.status()?;
    let shown = &status["unknown_interfaces"];
    ensure!(
        shown["mode"] == "strict" && shown["observed"] == 0,
        "{shown:#}"
    );
    let dropped = shown["drops"]["not-programmed"].as_u64();
    ensure!(dropped > Some(0), "{shown:#}");
    ensure!(
        unknown(&status).len() == 1,
        "declared ones are shown: {shown:#}"
    );

    ground.declare(&[&server, &stranger, &friend])?;
    comes_to_reach(&friend, &server).with_context(|| agent.log())?;
    stranger.is_dropped_to(Protocol::Tcp, server.v4(PORT))?;
    let none = agent.status_eventually(SOON, |status| unknown(status).is_empty());
    ensure!(none, "{:#}", agent.status()?);
    let pins = pins(&agent)?;
    ensure!(
        !pins
            .iter()
            .any(|pin| pin.starts_with("unknown-") || pin.starts_with("tc-0-")),
        "{pins:?}"
    );
    ensure!(agent.is_running(), "{}", agent.log());
    Ok(())
}

#[test]
fn a_workload_that_is_declared_no_longer_is_open_at_no_moment() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (server, friend, stranger) = (
        lab.peer("server", 2)?,
        lab.peer("friend", 3)?,
        lab.peer("stranger", 4)?,
    );
    let _service = server.serve_tcp(PORT)?;
    ground.declare(&[&server, &friend, &stranger])?;
    let agent = ground.agent(STRICT)?;
    let probers = Protocol::ALL.map(|protocol| stranger.prober(protocol, server.v4(PORT)));
    for prober in &probers {
        prober.makes(20)?;
    }
    ground.declare(&[&friend, &stranger])?;
    is_shown(&agent, &server, "denied")?;
    friend.is_dropped_to(Protocol::Tcp, server.v4(PORT))?;
    ground.declare(&[&server, &friend, &stranger])?;
    comes_to_reach(&friend, &server).with_context(|| agent.log())?;
    for prober in probers {
        prober.finish_denied().with_context(|| agent.log())?;
    }
    Ok(())
}

#[test]
fn in_compatible_mode_traffic_flows_and_is_judged_when_it_is_known() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let agent = ground.agent(COMPATIBLE)?;
    let (server, friend, stranger) = (
        lab.peer("server", 2)?,
        lab.peer("friend", 3)?,
        lab.peer("stranger", 4)?,
    );
    let _service = server.serve_tcp(PORT)?;
    for peer in [&server, &friend, &stranger] {
        is_shown(&agent, peer, "observed")?;
    }
    let permitted = friend.stream(server.v4(PORT))?;
    let permitted_v6 = friend.stream(server.v6(PORT))?;
    let forbidden = stranger.stream(server.v4(PORT))?;
    for stream in [&permitted, &permitted_v6, &forbidden] {
        stream.advances()?;
    }
    let shown = agent.status()?["unknown_interfaces"].clone();
    ensure!(shown["mode"] == "compatible", "{shown:#}");
    ensure!(shown["observed"].as_u64() > Some(0), "{shown:#}");
    ensure!(
        shown["drops"]["not-programmed"].as_u64().unwrap_or(0) == 0,
        "{shown:#}"
    );

    ground.declare(&[&server, &friend, &stranger])?;
    let cut = eventually(SOON, || forbidden.progress().broken.is_some());
    ensure!(cut, "the forbidden one goes on\n{}", agent.log());
    stranger.is_dropped_to(Protocol::Tcp, server.v4(PORT))?;
    for stream in [permitted, permitted_v6] {
        stream.advances().with_context(|| agent.log())?;
        let whole = stream.finish().unbroken();
        whole.with_context(|| {
            format!(
                "{}\n{}",
                agent.status().unwrap_or_default()["drops"],
                agent.log()
            )
        })?;
    }
    let none = agent.status_eventually(SOON, |status| unknown(status).is_empty());
    ensure!(none, "{:#}", agent.status()?);
    Ok(())
}

/// For longer than an endpoint is observed by itself.
#[test]
fn in_compatible_mode_it_stays_open_without_an_agent() -> Result<()> {
    const ATTEMPTS: u64 = 1200;
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let mut agent = ground.agent(COMPATIBLE)?;
    let (server, stranger) = (lab.peer("server", 2)?, lab.peer("stranger", 3)?);
    let _service = server.serve_tcp(PORT)?;
    for peer in [&server, &stranger] {
        is_shown(&agent, peer, "observed")?;
    }
    agent.kill()?;
    let prober = stranger.prober(Protocol::Tcp, server.v6(PORT));
    prober.makes(ATTEMPTS)?;
    stranger.reaches(Protocol::Tcp, server.v4(PORT))?;
    let (attempts, successes) = prober.finish();
    ensure!(successes > 0, "0 of {attempts}");
    Ok(())
}

/// A connection of before the agent: closed meanwhile, and goes on where policy permits it.
#[test]
fn what_was_closed_is_judged_without_being_opened_first() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (server, friend, stranger) = (
        lab.peer("server", 2)?,
        lab.peer("friend", 3)?,
        lab.peer("stranger", 4)?,
    );
    let _service = server.serve_tcp(PORT)?;
    ground.declare(&[&friend, &stranger])?;
    let permitted = friend.stream(server.v4(PORT))?;
    let forbidden = stranger.stream(server.v4(PORT))?;
    permitted.advances()?;
    forbidden.advances()?;
    let agent = ground.agent(STRICT)?;
    is_shown(&agent, &server, "denied")?;
    let prober = stranger.prober(Protocol::Udp, server.v4(PORT));
    let _echo = server.serve_udp(PORT)?;
    prober.makes(20)?;
    ground.declare(&[&server, &friend, &stranger])?;
    permitted.advances().with_context(|| agent.log())?;
    let cut = eventually(SOON, || forbidden.progress().broken.is_some());
    ensure!(cut, "the forbidden one goes on\n{}", agent.log());
    prober.makes(20)?;
    prober.finish_denied().with_context(|| agent.log())
}

#[test]
fn an_interface_that_comes_again_under_its_name_is_closed_again() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let server = lab.peer("server", 2)?;
    let _service = server.serve_tcp(PORT)?;
    ground.declare(&[&server])?;
    let mut agent = ground.agent(STRICT)?;
    for _ in 0..2 {
        let friend = lab.unheard_peer("friend", 3)?;
        is_shown(&agent, &friend, "denied")?;
        is_closed(lab, &friend)?;
        drop(friend);
        let none = agent.status_eventually(SOON, |status| unknown(status).is_empty());
        ensure!(none, "{:#}", agent.status()?);
    }
    // Declared while it is not there, and there again.
    let friend = lab.unheard_peer("friend", 3)?;
    ground.declare(&[&server, &friend])?;
    comes_to_reach(&friend, &server).with_context(|| agent.log())?;
    drop(friend);
    let friend = lab.unheard_peer("friend", 3)?;
    comes_to_reach(&friend, &server).with_context(|| agent.log())?;
    ensure!(agent.is_running(), "{}", agent.log());
    Ok(())
}

#[test]
fn it_stays_closed_without_an_agent_and_after_it() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
    let _services = (stranger.serve_tcp(PORT)?, friend.serve_tcp(PORT)?);
    ground.declare(&[&friend])?;
    let mut agent = ground.agent(STRICT)?;
    is_shown(&agent, &stranger, "denied")?;
    let prober = friend.prober(Protocol::Tcp, stranger.v4(PORT));
    prober.makes(20)?;
    agent.kill()?;
    prober.makes(WHILE)?;
    agent.start()?;
    is_shown(&agent, &stranger, "denied")?;
    agent.kill()?;
    // Declared while no agent is there.
    ground.declare(&[&friend, &stranger])?;
    prober.finish_denied()?;
    agent.start()?;
    comes_to_reach(&friend, &stranger).with_context(|| agent.log())?;
    Ok(())
}

#[test]
fn another_agent_goes_by_its_own_settings() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
    let _service = stranger.serve_tcp(PORT)?;
    ground.declare(&[&friend])?;
    let mut agent = ground.agent(COMPATIBLE)?;
    is_shown(&agent, &stranger, "observed")?;
    comes_to_reach(&friend, &stranger).with_context(|| agent.log())?;
    agent.terminate()?;
    lab.write("settings.yaml", STRICT)?;
    agent.start()?;
    is_shown(&agent, &stranger, "denied")?;
    friend.is_dropped_to(Protocol::Tcp, stranger.v4(PORT))?;
    agent.terminate()?;
    lab.write("settings.yaml", "{}")?;
    agent.start()?;
    comes_to_reach(&friend, &stranger).with_context(|| agent.log())?;
    let status = agent.status()?;
    ensure!(status.get("unknown_interfaces").is_none(), "{status:#}");
    let pins = pins(&agent)?;
    ensure!(
        !pins.iter().any(|pin| pin.starts_with("unknown-")),
        "{pins:?}"
    );
    Ok(())
}

type Deed = fn(&Hold, &Lab) -> Result<()>;

/// Whether it is on an interface of which nobody knows yet whose it is.
fn is_of_nobody(hold: &Hold) -> bool {
    let name = hold.name().file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with("unknown-") || name.starts_with("tc-0-"))
}

#[test]
fn what_others_take_off_is_put_back() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
    let _service = stranger.serve_tcp(PORT)?;
    ground.declare(&[&friend])?;
    let agent = ground.agent(STRICT)?;
    is_shown(&agent, &stranger, "denied")?;
    let deeds: [(&str, Deed); 3] = [
        ("detached", |hold, lab| hold.cut(lab.host())),
        ("replaced", |hold, lab| {
            hold.let_all_pass(lab.host(), &lab.bpffs().join("all-pass"))
        }),
        ("unpinned", |hold, _| hold.unname()),
    ];
    for (how, deed) in deeds {
        let mut holds = Hold::all(&agent)?;
        holds.retain(is_of_nobody);
        ensure!(!holds.is_empty(), "{:?}", pins(&agent)?);
        for hold in holds {
            let counted = |status: &Value| status["tampered"][how].as_u64().unwrap_or(0);
            let before = counted(&agent.status()?);
            deed(&hold, lab)?;
            let told = agent.status_eventually(SOON, |status| counted(status) > before);
            ensure!(told, "{how}: {:#}\n{}", agent.status()?, agent.log());
            let back = eventually(SOON, || hold.name().exists());
            ensure!(back, "{how}: {:?}", pins(&agent)?);
        }
    }
    let closed = eventually(SOON, || friend.tcp(stranger.v4(PORT)) == Outcome::TimedOut);
    ensure!(closed, "{}", agent.log());
    is_closed(lab, &stranger)
}

#[test]
fn detach_leaves_nothing_of_it() -> Result<()> {
    for settings in [STRICT, COMPATIBLE] {
        let ground = Ground::new()?;
        let lab = &ground.lab;
        let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
        let _service = stranger.serve_tcp(PORT)?;
        ground.declare(&[&friend])?;
        let mut agent = ground.agent(settings)?;
        let shown = agent.status_eventually(SOON, |status| unknown(status).len() == 1);
        ensure!(shown, "{:#}", agent.status()?);
        agent.terminate()?;
        agent.detach()?;
        friend.reaches(Protocol::Tcp, stranger.v4(PORT))?;
        let left = fs::read_dir(agent.bpffs()).map_or(0, Iterator::count);
        ensure!(left == 0, "{left} pins are left");
        let filters = lab.host().ask(
            "tc",
            &["filter", "show", "dev", stranger.interface(), "ingress"],
        )?;
        ensure!(filters.is_empty(), "{filters}");
    }
    Ok(())
}

#[test]
fn the_way_out_of_the_node_is_left_alone() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let world = lab.outside("world")?;
    for route in [
        "route add default via 198.51.100.2",
        "route add default via 2001:db8:77::2",
    ] {
        lab.host().ip(&format!("{route}\n"))?;
    }
    let mut agent = ground.agent(STRICT)?;
    is_shown(&agent, &world, "left-alone")?;
    for address in world.addresses() {
        let seen = lab.host().ping(address);
        ensure!(seen == Outcome::Allowed, "{address}: {seen}");
    }
    ensure!(
        agent.log().contains("left alone: a default route"),
        "no warning:\n{}",
        agent.log()
    );
    let table = agent.call(&["status", "--socket", &agent.socket().to_string_lossy()])?;
    let table = String::from_utf8(table.stdout)?;
    for part in [
        "UNKNOWN  strict: 1 interfaces",
        "uplink (#",
        "left alone",
        "a default route of the node",
    ] {
        ensure!(table.contains(part), "{part}:\n{table}");
    }
    // A route that goes for a while would not come back through an interface that was closed.
    for route in ["198.51.100.2", "2001:db8:77::2"] {
        lab.host()
            .ip(&format!("route delete default via {route}\n"))?;
    }
    let stays = always(LOOKS, || {
        let status = agent.status();
        status.is_ok_and(|status| unknown(&status).contains(&(world.interface(), "left-alone")))
    });
    ensure!(stays, "{:#}", agent.status()?);
    // It is the route that makes the difference; over one family is enough.
    agent.kill()?;
    agent.start()?;
    is_shown(&agent, &world, "denied")?;
    lab.host().ip("route add default via 2001:db8:77::2\n")?;
    is_shown(&agent, &world, "left-alone")?;
    let seen = lab.host().ping(world.addresses()[0]);
    ensure!(seen == Outcome::Allowed, "{seen}");
    Ok(())
}

#[test]
fn names_that_cannot_be_meant_are_refused_with_their_place() -> Result<()> {
    let ground = Ground::new()?;
    let settings = "workload_interfaces:\n  names: [veth*, '*', 'lo']\n  unknown: strict\n";
    let path = ground.lab.write("settings.yaml", settings)?;
    let agent = Agent::prepare(&ground.lab, "agent", &[])?;
    let path = path.to_string_lossy();
    let refused = agent.call(&["run", "--config", &path, "--print-config"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success(), "{said}");
    for part in [
        ":2:18: `workload_interfaces.names` is `*`",
        ":2:23: `workload_interfaces.names` is `lo`",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    let path = ground
        .lab
        .write("settings.yaml", "workload_interfaces: {unknown: open}\n")?;
    let path = path.to_string_lossy();
    let refused = agent.call(&["run", "--config", &path, "--print-config"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(said.contains(":1:") && said.contains("strict"), "{said}");
    Ok(())
}

/// How an endpoint's programs hang, as `status` has it.
fn hook(status: &Value, peer: &Peer) -> Option<String> {
    let name = format!("shop/{}", peer.role());
    let endpoints = status["endpoints"].as_array()?;
    let endpoint = endpoints.iter().find(|endpoint| endpoint["name"] == name)?;
    endpoint["hook"].as_str().map(str::to_owned)
}

/// What appears has filters first, and links when there is time, where the kernel has them.
#[test]
fn filters_give_way_to_links_without_a_loss() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (server, friend) = (lab.peer("server", 2)?, lab.peer("friend", 3)?);
    ground.declare(&[&server, &friend])?;
    drop(server);
    let agent = ground.agent(STRICT)?;
    let best = hook(&agent.status()?, &friend).context("the friend is attached")?;
    let server = lab.unheard_peer("server", 2)?;
    let _service = server.serve_tcp(PORT)?;
    comes_to_reach(&friend, &server).with_context(|| agent.log())?;
    let streams = [
        friend.stream(server.v4(PORT))?,
        friend.stream(server.v6(PORT))?,
    ];
    let improved =
        agent.status_eventually(SOON, |status| hook(status, &server) == Some(best.clone()));
    ensure!(improved, "{:#}\n{}", agent.status()?, agent.log());
    for stream in streams {
        stream.advances()?;
        stream.finish().unbroken().with_context(|| agent.log())?;
    }
    let left: Vec<_> = pins(&agent)?;
    let filters = left.iter().any(|pin| pin.starts_with("tc-"));
    ensure!(filters == (best == "clsact"), "{left:?}");
    // Nor is anything left when the interface goes.
    let marks =
        || pins(&agent).map(|pins| pins.iter().filter(|pin| pin.starts_with("qdisc-")).count());
    let before = marks()?;
    drop(server);
    let gone = eventually(SOON, || {
        marks().is_ok_and(|now| best == "clsact" || before == 0 || now < before)
    });
    ensure!(gone, "{:?}", pins(&agent)?);
    Ok(())
}
