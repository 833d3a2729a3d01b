//! A large cluster in files, and the two peers that are measured with.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::Outcome;

use crate::{BLOCKS, WORKLOADS};

/// The client may reach one of the two at any time.
pub(crate) const PORTS: [u16; 2] = [7000, 7001];
/// Ports that the client may always reach, each a flow of its own.
pub(crate) const FLOWS: (u16, u16) = (20_000, 59_999);
/// Blocks in one policy.
const PER_POLICY: u32 = 1_000;
/// Blocks that a large change adds or removes, each a write or two.
pub(crate) const MANY: u32 = 450;
/// Interfaces that appear.
pub(crate) const LATE: &str = "late";
const SETTINGS: &str = "capacities: {prefixes: 300000, policy_entries: 500000, port_entries: 200000, flows: 2000000}\n";

/// Dropped in order.
pub(crate) struct Ground {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    pub(crate) lab: Lab,
}

/// What the changing file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The client may reach this one of [`PORTS`].
    pub(crate) open: usize,
    /// Blocks beside it.
    pub(crate) blocks: u32,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let server = lab.peer("server", 2)?;
        let client = lab.peer("client", 3)?;
        for address in server.addresses() {
            anyhow::ensure!(client.ping(address) == Outcome::Allowed, "no way");
        }
        let ground = Self {
            client,
            server,
            lab,
        };
        ground
            .lab
            .write("policies/inventory.yaml", &ground.inventory())?;
        ground.lab.write("policies/blocks.yaml", &blocks())?;
        ground.lab.write("settings.yaml", SETTINGS)?;
        ground.change(Change { open: 0, blocks: 0 })?;
        Ok(ground)
    }

    pub(crate) fn agent(&self) -> Result<Agent> {
        let settings = self.lab.folder().join("settings.yaml");
        let folder = self.lab.folder().join("policies");
        let agent = Agent::prepare(&self.lab, "agent", &[&folder])?;
        Ok(agent.with(&["--config", &settings.to_string_lossy()]))
    }

    /// Writes the changing file anew.
    pub(crate) fn change(&self, change: Change) -> Result<()> {
        let Change { open, blocks } = change;
        let port = PORTS.get(open).copied().unwrap_or_default();
        let (first, last) = FLOWS;
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1\n\
             kind: NetworkPolicy\n\
             metadata: {{namespace: bench, name: change}}\n\
             spec:\n  \
               podSelector: {{matchLabels: {{app: server}}}}\n  \
               ingress:\n  \
               - from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]\n    \
                 ports: [{{protocol: UDP, port: {port}}}, \
                         {{protocol: UDP, port: {first}, endPort: {last}}}]\n"
        );
        if blocks > 0 {
            text.push_str("  - ports: [{protocol: TCP, port: 443}]\n    from:\n");
            for number in 0..blocks {
                let block = Ipv4Addr::new(172, 16, 0, 0).to_bits() + (number << 4);
                writeln!(
                    text,
                    "    - ipBlock: {{cidr: {}/28}}",
                    Ipv4Addr::from_bits(block)
                )?;
            }
        }
        self.lab.write("policies/change.yaml", &text).map(|_| ())
    }

    fn inventory(&self) -> String {
        let mut text = [&self.server, &self.client]
            .map(|peer| manifest::interface(peer, "bench", &[("app", peer.role())]))
            .concat();
        let first = Ipv4Addr::new(10, 128, 0, 0).to_bits();
        for number in 0..WORKLOADS {
            let address = Ipv4Addr::from_bits(first + number);
            writeln!(
                text,
                "---\napiVersion: ringfence.io/v1alpha1\nkind: Workload\n\
                 metadata: {{namespace: ns-{}, name: w-{number}, labels: {{app: app-{}}}}}\n\
                 spec: {{addresses: [{address}]}}",
                number % 100,
                number % 50,
            )
            .expect("a string takes all");
        }
        // Waits for its interface.
        write!(
            text,
            "---\napiVersion: ringfence.io/v1alpha1\nkind: Workload\n\
             metadata: {{namespace: bench, name: {LATE}, labels: {{app: server}}}}\n\
             spec: {{addresses: [10.77.1.9], endpoint: {{interface: {LATE}}}}}\n"
        )
        .expect("a string takes all");
        text
    }
}

fn blocks() -> String {
    let mut text = String::new();
    let first = Ipv4Addr::new(11, 0, 0, 0).to_bits();
    for policy in 0..BLOCKS / PER_POLICY {
        writeln!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{namespace: bench, name: blocks-{policy}}}\n\
             spec:\n  podSelector: {{matchLabels: {{app: server}}}}\n  ingress:\n  \
             - ports: [{{protocol: TCP, port: {}}}]\n    from:",
            1000 + policy
        )
        .expect("a string takes all");
        for number in 0..PER_POLICY {
            // Far enough apart that no two are one block.
            let block = Ipv4Addr::from_bits(first + ((policy * PER_POLICY + number) << 5));
            writeln!(text, "    - ipBlock: {{cidr: {block}/28}}").expect("a string takes all");
        }
    }
    text
}
