//! The node as a whole is a subject of policy.
//!
//! The agent of these tests takes a group of their own for the root of the hierarchy, so that the
//! machine that runs them is never confined.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::{Cgroup, Confined};
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::serve::Service;

const PORT: u16 = 8080;
/// Open to everybody by the settings, whatever policy says.
const FAILSAFE_PORT: u16 = 9090;

const POLICY: &str = "
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {name: hosts}
spec:
  tier: Admin
  priority: 7
  subject: {nodes: {matchLabels: {role: edge}}}
  ingress:
  - action: Allow
    from: [{workloads: {selector: {matchLabels: {app: friend}}}}]
  - action: Deny
  egress:
  - action: Allow
    to: [{workloads: {selector: {matchLabels: {app: friend}}}}]
  - action: Deny
";

const SETTINGS: &str = "
failsafe:
  entries:
  - {name: rescue, direction: ingress, cidrs: [0.0.0.0/0, '::/0'], ports: [{tcp: {port: 9090}}]}
";

/// Services of the node in the group, and two peers. Dropped in order.
struct Host {
    _services: Vec<Service>,
    _confined: Vec<Confined>,
    agent: Agent,
    group: Cgroup,
    friend: Peer,
    stranger: Peer,
    lab: Lab,
}

impl Host {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
        let group = Cgroup::create(&lab, "node", env!("CARGO_BIN_EXE_lab-peer"))?;
        let mut confined = Vec::new();
        for port in [PORT, FAILSAFE_PORT] {
            confined.push(group.serve(lab.host(), Protocol::Tcp, port)?);
        }
        let services = vec![friend.serve_tcp(PORT)?, stranger.serve_tcp(PORT)?];
        let addresses: Vec<String> = lab
            .host_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        let node = format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: lab-node, labels: {{role: edge}}}}\n\
             status: {{addresses: [{{type: InternalIP, address: '{}'}}, \
             {{type: InternalIP, address: '{}'}}]}}\n",
            addresses[0], addresses[1]
        );
        let inventory = [
            manifest::interface(&friend, "shop", &[("app", "friend")]),
            manifest::interface(&stranger, "shop", &[("app", "stranger")]),
            node,
        ];
        let inventory = lab.write("policies/inventory.yaml", &inventory.concat())?;
        let policy = lab.write("policies/policy.yaml", POLICY)?;
        let settings = lab.write("settings.yaml", SETTINGS)?;
        let agent = agent(&lab, &group, &[&inventory, &policy], &settings)?;
        Ok(Self {
            _services: services,
            _confined: confined,
            agent,
            group,
            friend,
            stranger,
            lab,
        })
    }

    fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.lab
            .host_addresses()
            .map(|address| (address, port).into())
    }

    /// From a process of the group.
    fn probe(&self, from: &Netns, to: SocketAddr) -> Result<Outcome> {
        self.group.probe(from, Protocol::Tcp, to)
    }
}

fn agent(lab: &Lab, group: &Cgroup, policies: &[&Path], settings: &Path) -> Result<Agent> {
    let settings = settings.to_str().context("a path of UTF-8")?;
    let mut agent = Agent::prepare(lab, "agent", policies)?
        .with(&["--node", "lab-node", "--config", settings])
        .within(group);
    agent.start()?;
    Ok(agent)
}

#[test]
fn a_node_is_confined_at_its_own_addresses() -> Result<()> {
    let host = Host::new()?;
    let log = || host.agent.log();
    let status = host.agent.status()?;
    let endpoints = status["endpoints"].as_array().context("endpoints")?;
    let node = endpoints.iter().find(|one| one["name"] == "node/lab-node");
    let node = node.with_context(|| format!("no endpoint for the node: {status:#}"))?;
    // A part of the hierarchy is not the node, and status does not take it for that.
    let message = node["message"].as_str().unwrap_or_default();
    ensure!(
        node["state"] == "failed" && message.contains("a part of the cgroup hierarchy"),
        "{node:#}"
    );

    for to in host.friend.at(PORT) {
        let seen = host.probe(host.lab.host(), to)?;
        ensure!(seen == Outcome::Allowed, "friend {to}: {seen}\n{}", log());
    }
    for to in host.stranger.at(PORT) {
        let seen = host.probe(host.lab.host(), to)?;
        ensure!(seen != Outcome::Allowed, "stranger {to}: {seen}\n{}", log());
        // What is not of the group is not of the node, to this agent.
        host.lab.host().reaches(Protocol::Tcp, to)?;
    }
    for to in host.at(PORT) {
        host.friend.reaches(Protocol::Tcp, to).with_context(log)?;
        host.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}

#[test]
fn the_failsafe_of_the_settings_ranks_above_policy() -> Result<()> {
    let host = Host::new()?;
    for to in host.at(FAILSAFE_PORT) {
        host.stranger.reaches(Protocol::Tcp, to)?;
    }
    let status = host.agent.status()?;
    let names: Vec<_> = status["failsafe"]
        .as_array()
        .context("failsafe")?
        .iter()
        .map(|entry| entry["name"].as_str().unwrap_or_default())
        .collect();
    ensure!(names == ["dhcp", "dhcp", "rescue"], "{names:?}");
    let rescue = &status["failsafe"][2];
    ensure!(rescue["ports"][0] == "TCP/9090", "{rescue}");
    Ok(())
}

#[test]
fn a_node_leaves_pods_and_loopback_alone() -> Result<()> {
    let host = Host::new()?;
    // A process of the group in the network namespace of a peer: a pod, seen by the same hook.
    for to in host.stranger.at(PORT) {
        let seen = host.probe(&host.friend, to)?;
        ensure!(
            seen == Outcome::Allowed,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    let loopback = ["127.0.0.1", "::1"].map(str::parse::<IpAddr>);
    for address in loopback {
        let to = (address?, PORT).into();
        let seen = host.probe(host.lab.host(), to)?;
        ensure!(
            seen == Outcome::Allowed,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    for to in host.at(PORT) {
        let seen = host.probe(host.lab.host(), to)?;
        ensure!(
            seen == Outcome::Allowed,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    Ok(())
}

#[test]
fn a_live_connection_to_the_node_is_adopted_if_policy_permits_it() -> Result<()> {
    let host = Host::new()?;
    let [to, _] = host.at(PORT);
    let mut host = host;
    host.agent.terminate()?;
    host.agent.detach()?;
    let (permitted, denied) = (host.friend.stream(to)?, host.stranger.stream(to)?);
    host.agent.start()?;
    permitted.advances()?;
    ensure!(denied.advances().is_err(), "{}", host.agent.log());
    let most = host.agent.cost_of_attaching()?;
    permitted.finish().unbroken_but_for(most)
}

#[test]
fn a_node_that_nobody_declares_is_not_taken_for_confined() -> Result<()> {
    let lab = Lab::bridged()?;
    let policy = lab.write("policy.yaml", POLICY)?;
    let agent = Agent::enforcing(&lab, &[&policy])?;
    let status = agent.status()?;
    let [node] = &status["endpoints"].as_array().context("endpoints")?[..] else {
        anyhow::bail!("{status:#}");
    };
    ensure!(
        node["state"] == "failed" && status["enforcing"] == false,
        "{status:#}"
    );
    Ok(())
}
