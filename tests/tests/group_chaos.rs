//! The policy of a service in a group flips, with the labels that it is about, while the service sends as much
//! as it can over IPv6: what both policies permit arrives, and what neither permits is never sent.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::flood::Flood;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::wait::eventually;

const PORT: u16 = 7000;
/// How long the files flip.
const SPAN: Duration = Duration::from_secs(10);
/// For a changed file to be in force: the kernel's own threads wait for a processor, too, and the agent for them.
const SEEN: Duration = Duration::from_secs(20);
/// Datagrams a second to whom both policies permit: few enough that none is lost for want of room.
const RATE: u32 = 6_000;

/// Policy permits one of two roles, and the inventory gives each of the peers the other one in each state:
/// `both` always has the one that is permitted, `neither` never has.
fn documents(both: &Peer, neither: &Peer, group: &Cgroup, role: &str, other: &str) -> String {
    let mut text = [(both, role), (neither, other)]
        .map(|(peer, role)| manifest::interface(peer, "shop", &[("role", role)]) + "\n---\n")
        .concat();
    text += &manifest::cgroup(group.name(), "shop", "service", &[("app", "service")]);
    let _written = write!(
        text,
        r"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: service}}
spec:
  podSelector: {{matchLabels: {{app: service}}}}
  policyTypes: [Egress]
  egress:
    - to: [{{podSelector: {{matchLabels: {{role: {role}}}}}}}]
      ports: [{{protocol: UDP, port: {PORT}}}]
"
    );
    text
}

#[test]
fn files_that_flip_are_never_mixed_for_a_group() -> Result<()> {
    let lab = Lab::bridged()?;
    let host = lab.host();
    let (both, neither) = (lab.peer("both", 3)?, lab.peer("neither", 4)?);
    let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
    let states = [("x", "y"), ("y", "x")];
    let states = states.map(|(role, other)| documents(&both, &neither, &group, role, other));
    lab.write("policies/all.yaml", &states[0])?;
    let agent = Agent::enforcing(&lab, &[Path::new(&lab.folder().join("policies"))])?;
    let (at_both, at_neither) = (both.hear(PORT)?, neither.hear(PORT)?);
    for peer in [&both, &neither] {
        // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
        for address in peer.addresses() {
            ensure!(host.ping(address) == Outcome::Allowed, "{}", peer.role());
        }
    }
    let puppet = Puppet::inside(&group, host)?;
    let socket = |to| {
        puppet.makes(Protocol::Udp, to)?;
        let socket = puppet.gives(Protocol::Udp)?;
        anyhow::Ok(UdpSocket::from(OwnedFd::from(socket)))
    };
    let permitted = Flood::from(socket(both.v6(PORT))?, both.v6(PORT), RATE);
    let denied = [0, 1].map(|processor| {
        let to = neither.v6(PORT);
        anyhow::Ok(Flood::unbounded(socket(to)?, to, processor))
    });
    let denied = denied.into_iter().collect::<Result<Vec<_>>>()?;
    let generation = || {
        let shown = agent.status().unwrap_or_default();
        shown["generation"].as_u64().unwrap_or(0)
    };
    let (begin, mut flips) = (Instant::now(), 0_u64);
    while begin.elapsed() < SPAN {
        for state in states.iter().rev() {
            let before = generation();
            lab.write("policies/all.yaml", state)?;
            let seen = eventually(SEEN, || generation() != before);
            ensure!(seen, "a change is not in force\n{}", agent.log());
            flips += 1;
        }
    }
    let [_, from] = lab.host_addresses();
    let tried = permitted.tried();
    let sent = permitted.finish();
    let denied: Vec<u64> = denied.iter().map(Flood::tried).collect();
    eprintln!("{flips} flips; {sent} datagrams that had to pass, {denied:?} that had not");
    ensure!(sent >= tried, "{tried} tried, {sent} sent");
    at_both.hears(from, sent)?;
    at_neither.hears(from, 0)
}
