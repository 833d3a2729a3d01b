//! What policy says holds for a workload known by its control group.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::{Cgroup, Confined};
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::serve::Service;

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 9090;
/// For a changed file to be in force, on a busy machine.
const ENDED: Duration = Duration::from_secs(10);

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: host, name: service}
spec:
  podSelector: {matchLabels: {app: service}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// A service of the host in a group, and two peers to talk with. Dropped in order.
struct Host {
    _services: Vec<Service>,
    _confined: Vec<Confined>,
    group: Cgroup,
    agent: Agent,
    friend: Peer,
    stranger: Peer,
    lab: Lab,
}

impl Host {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
        let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
        let mut services = Vec::new();
        let mut confined = Vec::new();
        for protocol in Protocol::ALL {
            for port in [PORT, OTHER_PORT] {
                services.push(friend.serve(protocol, port)?);
                services.push(stranger.serve(protocol, port)?);
                confined.push(group.serve(lab.host(), protocol, port)?);
            }
        }
        let inventory = [
            manifest::interface(&friend, "shop", &[("app", "friend")]),
            manifest::interface(&stranger, "shop", &[("app", "stranger")]),
            manifest::cgroup(group.name(), "host", "service", &[("app", "service")]),
        ];
        let inventory = lab.write("policies/inventory.yaml", &inventory.concat())?;
        let policy = lab.write("policies/policy.yaml", POLICY)?;
        let agent = Agent::enforcing(&lab, &[&inventory, &policy])?;
        Ok(Self {
            _services: services,
            _confined: confined,
            group,
            agent,
            friend,
            stranger,
            lab,
        })
    }

    /// The service's addresses: the node's.
    fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.lab
            .host_addresses()
            .map(|address| (address, port).into())
    }
}

#[test]
fn what_a_group_may_reach_it_reaches_and_nothing_else() -> Result<()> {
    let host = Host::new()?;
    let log = || host.agent.log();
    for protocol in Protocol::ALL {
        for to in host.friend.at(PORT) {
            let seen = host.group.probe(host.lab.host(), protocol, to)?;
            ensure!(
                seen == Outcome::Allowed,
                "friend {protocol} {to}: {seen}\n{}",
                log()
            );
        }
        for to in host
            .friend
            .at(OTHER_PORT)
            .into_iter()
            .chain(host.stranger.at(PORT))
        {
            // A sender in the group may be told: the kernel gives it EPERM for a datagram.
            let seen = host.group.probe(host.lab.host(), protocol, to)?;
            ensure!(
                seen != Outcome::Allowed,
                "{protocol} {to}: {seen}\n{}",
                log()
            );
            // The node's other processes are nobody's business.
            host.lab.host().reaches(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn who_may_reach_a_group_reaches_it_and_nobody_else() -> Result<()> {
    let host = Host::new()?;
    for protocol in Protocol::ALL {
        for to in host.at(PORT) {
            host.friend.reaches(protocol, to)?;
            host.stranger.is_dropped_to(protocol, to)?;
        }
        for to in host.at(OTHER_PORT) {
            host.friend.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_is_no_longer_permitted_ends_for_its_owner_and_the_others_go_on() -> Result<()>
{
    let host = Host::new()?;
    let mut cut = Vec::new();
    for to in host.friend.at(PORT) {
        cut.push(host.group.hold(host.lab.host(), to)?);
    }
    // Of another process of the node, to the same address: nobody's business.
    let spared = host.lab.host().stream(host.friend.v4(PORT))?;
    let nobody = POLICY.replace("app: friend", "app: nobody");
    host.lab.write("policies/policy.yaml", &nobody)?;
    for held in cut {
        let said = held.says(ENDED);
        ensure!(
            said.as_deref() == Some("ConnectionAborted"),
            "{said:?}\n{}",
            host.agent.log()
        );
    }
    spared.advances()?;
    spared.finish().unbroken()
}

#[test]
fn a_killed_agent_leaves_a_group_confined() -> Result<()> {
    let mut host = Host::new()?;
    host.agent.kill()?;
    for to in host.at(PORT) {
        host.friend.reaches(Protocol::Tcp, to)?;
        host.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}

#[test]
fn a_group_that_appears_later_is_confined_then() -> Result<()> {
    let lab = Lab::bridged()?;
    let stranger = lab.peer("stranger", 3)?;
    let _service = stranger.serve_tcp(PORT)?;
    let name = format!("{}-late", lab.prefix());
    let inventory = manifest::cgroup(&name, "host", "service", &[("app", "service")]);
    lab.write("policies/inventory.yaml", &inventory)?;
    lab.write("policies/policy.yaml", POLICY)?;
    let _agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    let group = Cgroup::create(&lab, "late", env!("CARGO_BIN_EXE_lab-peer"))?;
    let confined = ringfence_lab::wait::eventually(std::time::Duration::from_secs(10), || {
        group
            .probe(lab.host(), Protocol::Tcp, stranger.v4(PORT))
            .is_ok_and(|seen| seen != Outcome::Allowed)
    });
    ensure!(confined, "the group is not confined");
    Ok(())
}
