//! Within a node, over loopback, groups are told apart by their sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::{Cgroup, Confined};
use ringfence_lab::lab::Lab;
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};

const PORT: u16 = 8080;
/// Served, and open to the node's own processes that are in no group.
const OTHER_PORT: u16 = 9090;

/// The database takes the application only, and nobody at all on the other port but whoever is no
/// group of ours; the stranger may not even begin.
const POLICY: &str = "
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {name: database}
spec:
  tier: Admin
  priority: 5
  subject: {workloads: {selector: {matchLabels: {app: database}}}}
  ingress:
  - action: Allow
    from: [{local: {workloads: {selector: {matchLabels: {app: application}}}}}]
    ports: [{tcp: {port: 8080}}, {udp: {port: 8080}}]
  - action: Deny
    from: [{local: {workloads: {}}}]
";

const OF_STRANGER: &str = "
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {name: stranger}
spec:
  tier: Admin
  priority: 6
  subject: {workloads: {selector: {matchLabels: {app: stranger}}}}
  egress:
  - action: Deny
    to: [{local: {workloads: {selector: {matchLabels: {app: database}}}}}]
    ports: [{tcp: {port: 9090}}]
";

/// Three groups of one node. Dropped in order.
struct Node {
    _confined: Vec<Confined>,
    agent: Agent,
    application: Cgroup,
    stranger: Cgroup,
    _database: Cgroup,
    lab: Lab,
}

impl Node {
    fn new(policies: &str) -> Result<Self> {
        let lab = Lab::bridged()?;
        let group = |name| Cgroup::create(&lab, name, env!("CARGO_BIN_EXE_lab-peer"));
        let database = group("database")?;
        let application = group("application")?;
        let stranger = group("stranger")?;
        let mut confined = Vec::new();
        for protocol in Protocol::ALL {
            for port in [PORT, OTHER_PORT] {
                confined.push(database.serve(lab.host(), protocol, port)?);
            }
        }
        let named = [
            (&database, "database"),
            (&application, "application"),
            (&stranger, "stranger"),
        ];
        let inventory = named
            .map(|(group, name)| manifest::cgroup(group.name(), "host", name, &[("app", name)]));
        let inventory = lab.write("policies/inventory.yaml", &inventory.concat())?;
        let policy = lab.write("policies/policy.yaml", policies)?;
        let agent = Agent::enforcing(&lab, &[&inventory, &policy])?;
        Ok(Self {
            _confined: confined,
            agent,
            application,
            stranger,
            _database: database,
            lab,
        })
    }

    /// Loopback, and the node's own addresses, which lead there too.
    fn at(&self, port: u16) -> Vec<SocketAddr> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let own = self.lab.host_addresses();
        let all = loopback.into_iter().chain(own);
        all.map(|address| (address, port).into()).collect()
    }

    fn expect(&self, from: &Cgroup, port: u16, protocol: Protocol, passes: Passes) -> Result<()> {
        for to in self.at(port) {
            let seen = from.probe(self.lab.host(), protocol, to)?;
            let as_meant = match passes {
                Passes::Yes => seen == Outcome::Allowed,
                // The sender may be told: the kernel gives it EPERM for a datagram.
                Passes::No => seen != Outcome::Allowed,
            };
            ensure!(
                as_meant,
                "{} to {to} over {protocol}: {seen}\n{}",
                from.name(),
                self.agent.log()
            );
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Passes {
    Yes,
    No,
}

#[test]
fn a_group_takes_those_groups_that_policy_names() -> Result<()> {
    let node = Node::new(POLICY)?;
    for protocol in Protocol::ALL {
        node.expect(&node.application, PORT, protocol, Passes::Yes)?;
        node.expect(&node.application, OTHER_PORT, protocol, Passes::No)?;
        node.expect(&node.stranger, PORT, protocol, Passes::No)?;
        // In no group of ours, and named by no rule.
        for to in node.at(PORT) {
            node.lab.host().reaches(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_group_is_kept_from_groups_that_policy_names() -> Result<()> {
    let node = Node::new(OF_STRANGER)?;
    node.expect(&node.stranger, PORT, Protocol::Tcp, Passes::Yes)?;
    node.expect(&node.stranger, OTHER_PORT, Protocol::Tcp, Passes::No)?;
    node.expect(&node.stranger, OTHER_PORT, Protocol::Udp, Passes::Yes)?;
    node.expect(&node.application, OTHER_PORT, Protocol::Tcp, Passes::Yes)
}

#[test]
fn the_agent_says_of_groups_what_the_kernel_does() -> Result<()> {
    let node = Node::new(&[POLICY, OF_STRANGER].join("---"))?;
    let policies = node.lab.folder().join("policies");
    let explained = |from: &str, port: &str| -> Result<String> {
        let policies = policies.to_string_lossy().into_owned();
        let output = node.agent.call(&[
            "policy",
            "explain",
            "-f",
            &policies,
            "--from",
            from,
            "--to",
            "host/database",
            "--port",
            port,
            "-o",
            "json",
        ])?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(said["verdict"].as_str().unwrap_or_default().to_owned())
    };
    for (from, port, verdict) in [
        ("host/application", "TCP/8080", "allow"),
        ("host/application", "TCP/9090", "deny"),
        ("host/stranger", "TCP/8080", "deny"),
        ("host/stranger", "UDP/9090", "deny"),
        // To itself, over the addresses of its node: no rule names it but the denial.
        ("host/database", "TCP/8080", "deny"),
    ] {
        let seen = explained(from, port)?;
        ensure!(seen == verdict, "{from} {port}: {seen}, not {verdict}");
    }
    Ok(())
}
