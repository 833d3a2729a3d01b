//! Pods of this node are found by their cgroups and network namespaces, whatever made them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfence_lab::agent;
use ringfence_lab::cgroup::{Cgroup, Confined};
use ringfence_lab::kept;
use ringfence_lab::lab::{Lab, Netns};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::wait::{always, patient};
use serde_json::Value;

/// For what is announced, and for what is not, on a busy machine.
const FOUND: Duration = Duration::from_secs(20);

/// Several looks long.
const STAYS: Duration = Duration::from_secs(2);

const UID: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "99999999-8888-7777-6666-555555555555";

/// What is told of pods below a group of the test's own.
struct Node {
    told: Receiver<Value>,
    seen: Vec<Value>,
    process: Child,
    /// The innermost first.
    above: Vec<Cgroup>,
    top: Cgroup,
    lab: Lab,
}

impl Node {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let top = Cgroup::create(&lab, "pods", env!("CARGO_BIN_EXE_lab-peer"))?;
        let mut command = Command::new(agent::binary()?);
        command.args(["pods", "--follow", "--output", "json", "--below"]);
        command.arg(top.path()).stdout(Stdio::piped());
        let mut process = lab.host().spawn(&mut command)?;
        let stdout = process.stdout.take().context("no stdout")?;
        let (tell, told) = mpsc::sync_channel(64);
        // Ends with the process.
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let told = lines.filter_map(|line| serde_json::from_str(&line).ok());
            let _ended = told.map(|line| tell.send(line)).find(Result::is_err);
        });
        Ok(Self {
            told,
            seen: Vec::new(),
            process,
            above: Vec::new(),
            top,
            lab,
        })
    }

    /// Waits for what is told of a pod: where it is, or (`None`) that it has gone.
    fn expect(&mut self, uid: &str, at: Option<&str>, addresses: usize) -> Result<Value> {
        let until = Instant::now() + patient(FOUND);
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.told.recv_timeout(rest) else {
                bail!(
                    "{uid} is not at {at:?} with {addresses} addresses: {:#?}",
                    self.seen
                );
            };
            self.seen.push(line.clone());
            let has = line["addresses"].as_array().map_or(0, Vec::len);
            if line["uid"] == uid && line["at"].as_str() == at && has == addresses {
                return Ok(line);
            }
        }
    }

    /// Groups within each other, of which the last two are a pod's and its container's. Those go with what is
    /// given back, in its order; the others with the node.
    fn group(&mut self, folders: &[&str]) -> Result<Vec<Cgroup>> {
        let (above, own) = folders.split_at(folders.len().saturating_sub(2));
        let mut name = self.top.name().to_owned();
        for folder in above {
            let parent = self.above.iter().find(|group| group.name() == name);
            let parent = parent.unwrap_or(&self.top);
            name = format!("{name}/{folder}");
            if !self.above.iter().any(|group| group.name() == name) {
                let group = parent.within(folder)?;
                self.above.insert(0, group);
            }
        }
        let mut groups: Vec<Cgroup> = Vec::new();
        for folder in own {
            let above = self.above.iter().find(|group| group.name() == name);
            let group = groups
                .first()
                .or(above)
                .context("no group")?
                .within(folder)?;
            groups.insert(0, group);
        }
        Ok(groups)
    }

    /// A pod's groups as the driver `cgroupfs` has them, that of a container first.
    fn pod(&mut self, class: &str, uid: &str) -> Result<Vec<Cgroup>> {
        self.group(&["kubepods", class, &format!("pod{uid}"), "0123abcd"])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = self
            .process
            .kill()
            .and_then(|()| self.process.wait())
            .is_ok();
    }
}

fn runs(group: &[Cgroup], netns: &Netns) -> Result<Confined> {
    let container = group.first().context("no group")?;
    container.serve(netns, Protocol::Udp, 9)
}

fn at_interface(name: &str) -> String {
    format!("interface {name}")
}

/// A namespace behind a veth of the host, without an address.
fn sandbox(node: &Node, name: &str) -> Result<Netns> {
    let netns = Netns::create(format!("{}-{name}", node.lab.prefix()))?;
    let inside = netns.name();
    node.lab.host().ip(&format!(
        "link add {name} type veth peer name eth0 netns {inside}\nlink set {name} up"
    ))?;
    netns.ip("link set eth0 up")?;
    Ok(netns)
}

#[test]
fn a_pod_is_found_by_its_interface_with_what_addresses_it_has() -> Result<()> {
    let mut node = Node::new()?;
    let peer = node.lab.peer("pod", 2)?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, &peer)?;
    let line = node.expect(UID, Some(&at_interface(peer.interface())), 2)?;
    let has = |address: &str| {
        let addresses = line["addresses"].as_array();
        addresses.is_some_and(|addresses| addresses.iter().any(|it| it == address))
    };
    ensure!(has("10.77.0.2") && has("fd77::2"), "{line}");
    ensure!(line.get("notes").is_none(), "{line}");
    Ok(())
}

#[test]
fn systemds_slices_are_pods_too() -> Result<()> {
    let mut node = Node::new()?;
    let peer = node.lab.peer("pod", 2)?;
    let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
    let group = node.group(&[
        "kubepods.slice",
        "kubepods-besteffort.slice",
        &slice,
        "cri-containerd-0123.scope",
    ])?;
    let _process = runs(&group, &peer)?;
    node.expect(UID, Some(&at_interface(peer.interface())), 2)?;
    Ok(())
}

#[test]
fn an_address_that_comes_later_is_told() -> Result<()> {
    let mut node = Node::new()?;
    let netns = sandbox(&node, "rfpod")?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, &netns)?;
    node.expect(UID, Some("interface rfpod"), 0)?;
    netns.ip("addr add 10.88.0.2/24 dev eth0")?;
    node.expect(UID, Some("interface rfpod"), 1)?;
    Ok(())
}

#[test]
fn an_interface_that_comes_later_is_told() -> Result<()> {
    let mut node = Node::new()?;
    let netns = Netns::create(format!("{}-late", node.lab.prefix()))?;
    let group = node.pod("besteffort", UID)?;
    let _process = runs(&group, &netns)?;
    let inside = netns.name();
    node.lab.host().ip(&format!(
        "link add rflate type veth peer name eth0 netns {inside}"
    ))?;
    netns.ip("link set eth0 up\naddr add 10.88.0.2/24 dev eth0")?;
    node.expect(UID, Some("interface rflate"), 1)?;
    Ok(())
}

#[test]
fn a_sandbox_that_is_made_again_is_followed() -> Result<()> {
    let mut node = Node::new()?;
    let (first, second) = (node.lab.peer("first", 2)?, node.lab.peer("second", 3)?);
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &first)?;
    node.expect(UID, Some(&at_interface(first.interface())), 2)?;
    drop(process);
    drop(first);
    let _process = runs(&group, &second)?;
    node.expect(UID, Some(&at_interface(second.interface())), 2)?;
    Ok(())
}

#[test]
fn a_pod_of_the_nodes_network_is_its_cgroup() -> Result<()> {
    let mut node = Node::new()?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, node.lab.host())?;
    let name = format!("cgroup {}/kubepods/burstable/pod{UID}", node.top.name());
    node.expect(UID, Some(&name), 0)?;
    drop(group);
    Ok(())
}

#[test]
fn a_killed_pod_is_held_until_its_interface_is_gone() -> Result<()> {
    let mut node = Node::new()?;
    let peer = node.lab.peer("pod", 2)?;
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &peer)?;
    let at = at_interface(peer.interface());
    node.expect(UID, Some(&at), 2)?;
    // Forced: neither process nor cgroup is there any more, while the sandbox is.
    drop(process);
    drop(group);
    let other = node.pod("burstable", OTHER)?;
    let _other = runs(&other, &peer)?;
    node.expect(OTHER, Some(&at), 2)?;
    // The interface is one pod's, and the one before has gone before.
    let gone = node
        .seen
        .iter()
        .position(|line| line["uid"] == UID && line.get("at").is_none());
    ensure!(gone.is_some(), "{:#?}", node.seen);
    drop(peer);
    node.expect(OTHER, None, 0)?;
    Ok(())
}

#[test]
fn an_address_is_one_pods_after_the_other() -> Result<()> {
    let mut node = Node::new()?;
    let (one, two) = (sandbox(&node, "rfone")?, sandbox(&node, "rftwo")?);
    one.ip("addr add 10.88.0.2/24 dev eth0")?;
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &one)?;
    node.expect(UID, Some("interface rfone"), 1)?;
    drop(process);
    drop(one);
    node.lab.host().ip("link del rfone").unwrap_or(());
    two.ip("addr add 10.88.0.2/24 dev eth0")?;
    let other = node.pod("besteffort", OTHER)?;
    let _process = runs(&other, &two)?;
    node.expect(OTHER, Some("interface rftwo"), 1)?;
    let at = |uid: &str, there: bool| {
        let mut seen = node.seen.iter();
        seen.rposition(|line| line["uid"] == uid && line.get("at").is_some() == there)
    };
    let (gone, came) = (at(UID, false), at(OTHER, true));
    ensure!(gone.is_some() && gone < came, "{:#?}", node.seen);
    Ok(())
}

#[test]
fn without_a_host_side_the_cgroup_is_held_and_that_is_said() -> Result<()> {
    let mut node = Node::new()?;
    // As with ipvlan, macvlan and hardware: whatever it leads to, it is nothing of the node's.
    let netns = Netns::create(format!("{}-past", node.lab.prefix()))?;
    let elsewhere = Netns::create(format!("{}-else", node.lab.prefix()))?;
    let beyond = elsewhere.name();
    netns.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {beyond}\n\
         link set eth0 up\naddr add 10.88.0.2/24 dev eth0"
    ))?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, &netns)?;
    let name = format!("cgroup {}/kubepods/burstable/pod{UID}", node.top.name());
    let line = node.expect(UID, Some(&name), 1)?;
    ensure!(
        line["notes"][0]
            .as_str()
            .is_some_and(|note| note.contains("eth0 (veth)")),
        "{line}"
    );
    Ok(())
}

#[test]
fn an_agent_holds_pods_that_it_finds_and_may_enter_no_namespace_itself() -> Result<()> {
    let mut node = Node::new()?;
    let (client, peer) = (node.lab.peer("client", 2)?, node.lab.peer("pod", 3)?);
    let _service = peer.serve(Protocol::Tcp, 8080)?;
    let objects = [
        kept::pod("shop", "server", UID, "server"),
        kept::unreachable("shop", "server"),
    ];
    let mut agent = kept::agent(&node.lab, &objects)?;
    agent.start()?;
    ensure!(
        client.probe(Protocol::Tcp, peer.v4(8080)) == Outcome::Allowed,
        "{}",
        agent.log()
    );
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &peer)?;
    let is_held = |status: &Value| {
        let endpoints = status["endpoints"].as_array();
        endpoints.is_some_and(|endpoints| {
            endpoints.iter().any(|endpoint| {
                endpoint["name"] == "shop/server"
                    && endpoint["spec"] == "interface veth-pod"
                    && endpoint["state"] == "attached"
            })
        })
    };
    ensure!(agent.status_eventually(FOUND, is_held), "{}", agent.log());
    for at in peer.at(8080) {
        ensure!(
            client.probe(Protocol::Tcp, at) == Outcome::TimedOut,
            "{at} is reached"
        );
    }
    // Another agent finds it before it enforces, and so takes nothing off.
    agent.kill()?;
    agent.start()?;
    ensure!(is_held(&agent.status()?), "{}", agent.log());
    // What is left of the pod is its sandbox.
    drop(process);
    drop(group);
    ensure!(
        client.probe(Protocol::Tcp, peer.v4(8080)) == Outcome::TimedOut,
        "it is reached"
    );
    drop(peer);
    let is_gone = |status: &Value| status["endpoints"][0]["state"] == "waiting";
    ensure!(agent.status_eventually(FOUND, is_gone), "{}", agent.log());
    Ok(())
}

#[test]
fn a_pod_that_was_gone_before_the_agent_began_is_held_until_its_sandbox_is_gone() -> Result<()> {
    let mut node = Node::new()?;
    let (client, peer) = (node.lab.peer("client", 2)?, node.lab.peer("pod", 3)?);
    let _service = peer.serve(Protocol::Tcp, 8080)?;
    let objects = [
        kept::gone(&kept::pod("shop", "server", UID, "server")),
        kept::gone(&kept::pod("shop", "over", OTHER, "server")),
        kept::unreachable("shop", "server"),
    ];
    let mut agent = kept::agent(&node.lab, &objects)?;
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &peer)?;
    agent.start()?;
    let endpoints = agent.status()?["endpoints"].clone();
    let names: Vec<_> = endpoints.as_array().into_iter().flatten().collect();
    ensure!(
        names.len() == 1 && names[0]["name"] == "shop/server" && names[0]["state"] == "attached",
        "{endpoints:#}\n{}",
        agent.log()
    );
    for at in peer.at(8080) {
        ensure!(
            client.probe(Protocol::Tcp, at) == Outcome::TimedOut,
            "{at} is reached"
        );
    }
    drop(process);
    drop(group);
    drop(peer);
    let is_gone = |status: &Value| status["endpoints"].as_array().is_some_and(Vec::is_empty);
    ensure!(agent.status_eventually(FOUND, is_gone), "{}", agent.log());
    Ok(())
}

#[test]
fn a_sandbox_of_which_the_api_has_not_told_is_closed_and_shown() -> Result<()> {
    let mut node = Node::new()?;
    let (client, peer) = (node.lab.peer("client", 2)?, node.lab.peer("pod", 3)?);
    let _service = peer.serve(Protocol::Tcp, 8080)?;
    let mut agent = kept::agent(&node.lab, &[kept::unreachable("shop", "server")])?;
    agent.start()?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, &peer)?;
    let is_shown = |status: &Value| {
        let unknown = status["unknown_interfaces"]["interfaces"].as_array();
        unknown.is_some_and(|all| all.iter().any(|one| one["name"] == "veth-pod"))
    };
    ensure!(
        agent.status_eventually(FOUND, is_shown),
        "{:#}\n{}",
        agent.status()?,
        agent.log()
    );
    for at in peer.at(8080) {
        ensure!(
            client.probe(Protocol::Tcp, at) == Outcome::TimedOut,
            "{at} is reached"
        );
    }
    Ok(())
}

/// As Multus adds one: the pod has a second interface, whose host side leads to the same namespace.
fn second(node: &Node, pod: &Netns) -> Result<()> {
    let inside = pod.name();
    node.lab.host().ip(&format!(
        "link add rfnet1 type veth peer name net1 netns {inside}\n\
         link set rfnet1 up\naddr add 10.88.0.1/24 dev rfnet1"
    ))?;
    pod.ip("link set net1 up\naddr add 10.88.0.2/24 dev net1\n\
         route add default via 10.88.0.1 table 88\nrule add from 10.88.0.2 table 88")
}

#[test]
fn a_second_interface_is_told_beside_the_first_and_at_once() -> Result<()> {
    let mut node = Node::new()?;
    let peer = node.lab.peer("pod", 3)?;
    let group = node.pod("burstable", UID)?;
    let _process = runs(&group, &peer)?;
    let at = at_interface(peer.interface());
    let line = node.expect(UID, Some(&at), 2)?;
    ensure!(line.get("beside").is_none(), "{line}");
    second(&node, &peer)?;
    let until = Instant::now() + patient(FOUND);
    let has = |line: &Value| {
        let beside = &line["beside"][0];
        beside["at"] == "interface rfnet1" && beside["addresses"][0] == "10.88.0.2"
    };
    while !node.seen.iter().any(has) {
        let rest = until.saturating_duration_since(Instant::now());
        let line = node.told.recv_timeout(rest);
        node.seen
            .push(line.with_context(|| format!("{:#?}", node.seen))?);
    }
    // Nothing of it is the first one's.
    let last = node.seen.last().context("nothing")?;
    ensure!(last["at"].as_str() == Some(&at), "{last}");
    ensure!(
        last["addresses"]
            .as_array()
            .is_some_and(|all| all.len() == 2),
        "{last}"
    );
    Ok(())
}

#[test]
fn an_agent_holds_every_interface_of_a_pod() -> Result<()> {
    let mut node = Node::new()?;
    let (client, peer) = (node.lab.peer("client", 2)?, node.lab.peer("pod", 3)?);
    let _service = peer.serve(Protocol::Tcp, 8080)?;
    second(&node, &peer)?;
    let objects = [
        kept::pod("shop", "server", UID, "server"),
        kept::unreachable("shop", "server"),
    ];
    let mut agent = kept::agent(&node.lab, &objects)?;
    agent.start()?;
    let beside = "10.88.0.2:8080".parse()?;
    client.reaches(Protocol::Tcp, beside)?;
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &peer)?;
    let is_held = |status: &Value, name: &str, spec: &str| {
        let endpoints = status["endpoints"].as_array();
        endpoints.is_some_and(|endpoints| {
            endpoints.iter().any(|endpoint| {
                endpoint["name"] == name
                    && endpoint["spec"] == spec
                    && endpoint["state"] == "attached"
                    && endpoint["policies"] == 1
            })
        })
    };
    let all_held = |status: &Value| {
        is_held(status, "shop/server", "interface veth-pod")
            && is_held(status, "shop/server+rfnet1", "interface rfnet1")
    };
    ensure!(agent.status_eventually(FOUND, all_held), "{}", agent.log());
    client.is_dropped_to(Protocol::Tcp, beside)?;
    client.is_dropped_to(Protocol::Tcp, peer.v4(8080))?;
    // What it sends is nobody's business here.
    let listening = client.serve(Protocol::Tcp, 9000)?;
    peer.reaches(Protocol::Tcp, client.v4(9000))?;
    drop(listening);
    // A process of the pod can move the inner end to where nobody asks, and not off policy.
    let hidden = Netns::create(format!("{}-hidden", node.lab.prefix()))?;
    peer.ip(&format!("link set net1 netns {}", hidden.name()))?;
    ensure!(
        always(STAYS, || agent
            .status()
            .is_ok_and(|status| all_held(&status))),
        "{}",
        agent.log()
    );
    hidden
        .ip("link set net1 up\naddr add 10.88.0.2/24 dev net1\nroute add default via 10.88.0.1")?;
    let _hidden_service = hidden.serve(Protocol::Tcp, 8080)?;
    client.is_dropped_to(Protocol::Tcp, beside)?;
    // Nor is it off with an agent that was not there when it moved.
    agent.kill()?;
    agent.start()?;
    ensure!(all_held(&agent.status()?), "{}", agent.log());
    client.is_dropped_to(Protocol::Tcp, beside)?;
    // It goes alone.
    node.lab.host().ip("link del rfnet1")?;
    let alone = |status: &Value| {
        is_held(status, "shop/server", "interface veth-pod")
            && !is_held(status, "shop/server+rfnet1", "interface rfnet1")
    };
    ensure!(agent.status_eventually(FOUND, alone), "{}", agent.log());
    client.is_dropped_to(Protocol::Tcp, peer.v4(8080))?;
    drop(process);
    Ok(())
}

#[test]
fn a_pod_that_has_moved_its_interface_away_is_held_by_the_next_agent_too() -> Result<()> {
    let mut node = Node::new()?;
    let (client, peer) = (node.lab.peer("client", 2)?, node.lab.peer("pod", 3)?);
    let objects = [
        kept::pod("shop", "server", UID, "server"),
        kept::unreachable("shop", "server"),
    ];
    let mut agent = kept::agent(&node.lab, &objects)?;
    agent.start()?;
    let group = node.pod("burstable", UID)?;
    let process = runs(&group, &peer)?;
    let is_held = |status: &Value| {
        let endpoint = &status["endpoints"][0];
        endpoint["spec"] == "interface veth-pod" && endpoint["state"] == "attached"
    };
    ensure!(agent.status_eventually(FOUND, is_held), "{}", agent.log());
    let hidden = Netns::create(format!("{}-hidden", node.lab.prefix()))?;
    peer.ip(&format!("link set eth0 netns {}", hidden.name()))?;
    let address = peer.v4(0).ip();
    hidden.ip(&format!("link set eth0 up\naddr add {address}/24 dev eth0"))?;
    let service = hidden.serve(Protocol::Tcp, 8080)?;
    client.is_dropped_to(Protocol::Tcp, peer.v4(8080))?;
    agent.kill()?;
    agent.start()?;
    ensure!(is_held(&agent.status()?), "{}", agent.log());
    client.is_dropped_to(Protocol::Tcp, peer.v4(8080))?;
    // What counts is that the sandbox goes, not where it was hidden.
    drop(service);
    drop(process);
    drop(group);
    drop(hidden);
    let is_gone = |status: &Value| status["endpoints"][0]["state"] == "waiting";
    ensure!(agent.status_eventually(FOUND, is_gone), "{}", agent.log());
    Ok(())
}
