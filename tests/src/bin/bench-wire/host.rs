//! The host that forwards, and what it holds the traffic to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::collectors;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::Protocol;
use ringfence_lab::wait::eventually;
use serde::Serialize;

/// What is permitted.
pub(crate) const PORT: u16 = 8080;
/// What is not.
const OTHER_PORT: u16 = 9090;
/// Networks of 16 addresses that may reach the server, the client's own address beside them.
const PREFIXES: u32 = 10_000;
const NETWORK: &str = "10.128.0.0";
/// Of `/proc/PID/stat`, in a second (`USER_HZ`).
const TICKS: u32 = 100;
/// For the last records to be read.
const READ: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    None,
    Nftables,
    Ringfence,
    /// With a sink of each kind.
    AllSinks,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Nftables, Self::Ringfence, Self::AllSinks];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no policy",
            Self::Nftables => "nftables",
            Self::Ringfence => "ringfence",
            Self::AllSinks => "five sinks",
        }
    }
}

/// What became of flow records in all rounds; of several sinks, in all of them together.
#[derive(Debug, Default, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Records {
    pub(crate) events: u64,
    pub(crate) lost_in_kernel: u64,
    pub(crate) written: u64,
    pub(crate) lost_by_sinks: u64,
    pub(crate) read_by_client: u64,
}

/// Dropped in order.
pub(crate) struct Host {
    agent: Agent,
    /// With all sinks.
    teller: Agent,
    pub(crate) ends: Ends,
    pub(crate) records: BTreeMap<Variant, Records>,
    lab: Lab,
}

pub(crate) struct Ends {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
}

impl Ends {
    pub(crate) fn to(&self) -> SocketAddr {
        self.server.v4(PORT)
    }
}

impl Host {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::routed()?;
        let server = lab.peer("server", 2)?;
        let client = lab.peer("client", 3)?;
        client.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        let workload = manifest::interface(&server, "bench", &[("app", "server")]);
        lab.write("policies/inventory.yaml", &workload)?;
        lab.write("policies/policy.yaml", &policy(&client))?;
        lab.write("table.nft", &table(&client, &server))?;
        let policies = lab.folder().join("policies");
        let agent = Agent::prepare(&lab, "agent", &[&policies])?;
        let folder = lab.folder().join("records");
        std::fs::create_dir_all(&folder)?;
        let settings = collectors::settings_of_all(&folder, lab.host())?;
        let settings = lab.write("settings.yaml", &settings)?;
        let teller = Agent::prepare(&lab, "teller", &[&policies])?.without_flow_file();
        let teller = teller.with(&["--config", &settings.display().to_string()]);
        Ok(Self {
            agent,
            teller,
            ends: Ends { client, server },
            records: BTreeMap::new(),
            lab,
        })
    }

    /// Does `work` while a variant is in force, and only then.
    pub(crate) fn with<T>(
        &mut self,
        variant: Variant,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let nft = |argument: &[&str]| self.lab.host().ask("nft", argument).map(|_| ());
        match variant {
            Variant::None => {
                self.is_open()?;
                work(self)
            }
            Variant::Nftables => {
                let file = self.lab.folder().join("table.nft");
                nft(&["-f", &file.to_string_lossy()])?;
                self.is_confined()?;
                let done = work(self);
                nft(&["flush", "ruleset"])?;
                done
            }
            Variant::Ringfence | Variant::AllSinks => {
                self.agent_of(variant).start()?;
                self.is_confined()?;
                let running = match variant {
                    Variant::AllSinks => &self.teller,
                    _ => &self.agent,
                };
                let reader = Reader::begin(&self.lab, running)?;
                let done = work(self);
                self.count(variant, reader)?;
                let agent = self.agent_of(variant);
                agent.terminate()?;
                agent.detach()?;
                done
            }
        }
    }

    fn agent_of(&mut self, variant: Variant) -> &mut Agent {
        if variant == Variant::AllSinks {
            &mut self.teller
        } else {
            &mut self.agent
        }
    }

    /// What the agent has used of processors, while one runs.
    pub(crate) fn agent_time(&self) -> Option<Duration> {
        let process = self.agent.process().or_else(|| self.teller.process())?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // After the name, which may hold anything: user and system time, 12th and 13th.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks = ticks
            .map(|ticks| ticks.parse::<u32>().ok())
            .sum::<Option<u32>>()?;
        Some(Duration::from_secs(1) / TICKS * ticks)
    }

    /// Adds up what became of records.
    fn count(&mut self, variant: Variant, reader: Reader) -> Result<()> {
        let agent = self.agent_of(variant);
        let mut status = agent.status()?;
        let written = |status: &serde_json::Value| -> [u64; 3] {
            let sinks = status["records"]["sinks"].as_object();
            ["seen", "exported", "lost"].map(|name| {
                let sinks = sinks.into_iter().flat_map(serde_json::Map::values);
                sinks.filter_map(|counts| counts[name].as_u64()).sum()
            })
        };
        let settled = eventually(READ, || {
            let before = written(&status);
            status = agent.status().unwrap_or_default();
            let [seen, exported, lost] = written(&status);
            [seen, exported, lost] == before && seen == exported + lost
        });
        ensure!(settled, "records are under way: {}", status["records"]);
        let [_, exported, lost] = written(&status);
        let number = |name: &str| status["events"][name].as_u64().unwrap_or_default();
        let lines = reader.end()?;
        ensure!(lines > 0, "nobody has read records");
        let records = self.records.entry(variant).or_default();
        records.events += number("seen");
        records.lost_in_kernel += number("lost");
        records.written += exported;
        records.lost_by_sinks += lost;
        records.read_by_client += lines;
        Ok(())
    }

    /// Nothing is measured of a policy that is not there.
    fn is_confined(&self) -> Result<()> {
        let Ends { client, server } = &self.ends;
        let _services = services(server)?;
        for protocol in Protocol::ALL {
            client.reaches(protocol, server.v4(PORT))?;
            client.is_dropped_to(protocol, server.v4(OTHER_PORT))?;
        }
        Ok(())
    }

    fn is_open(&self) -> Result<()> {
        let Ends { client, server } = &self.ends;
        let _services = services(server)?;
        for protocol in Protocol::ALL {
            client.reaches(protocol, server.v4(OTHER_PORT))?;
        }
        Ok(())
    }
}

fn services(server: &Peer) -> Result<Vec<ringfence_lab::serve::Service>> {
    let ports = [PORT, OTHER_PORT];
    let all = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| ports.map(|port| server.serve(protocol, port)));
    all.collect()
}

fn prefixes() -> impl Iterator<Item = String> {
    let network: Ipv4Addr = NETWORK.parse().expect("an address");
    (0..PREFIXES).map(move |number| {
        let address = Ipv4Addr::from_bits(network.to_bits() | (number * 7) << 4);
        format!("{address}/28")
    })
}

fn policy(client: &Peer) -> String {
    let mut text = "apiVersion: networking.k8s.io/v1\n\
                    kind: NetworkPolicy\n\
                    metadata: {namespace: bench, name: server}\n\
                    spec:\n  \
                      podSelector: {matchLabels: {app: server}}\n  \
                      ingress:\n  \
                      - ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]\n    \
                        from:\n"
        .to_owned();
    let own = client.v4(PORT).ip();
    for block in prefixes().chain([format!("{own}/32")]) {
        writeln!(text, "    - ipBlock: {{cidr: {block}}}").expect("a string takes all");
    }
    text
}

fn table(client: &Peer, server: &Peer) -> String {
    let mut elements = String::new();
    let own = client.v4(PORT).ip();
    for block in prefixes().chain([format!("{own}/32")]) {
        writeln!(elements, "      {block} . {PORT},").expect("a string takes all");
    }
    let interface = server.interface();
    format!(
        "table ip bench {{\n\
           set permitted {{\n\
             type ipv4_addr . inet_service\n    flags interval\n\
             elements = {{\n{elements}    }}\n\
           }}\n\
           chain forward {{\n\
             type filter hook forward priority 0; policy accept;\n\
             ct state established,related accept\n\
             oifname != \"{interface}\" accept\n\
             meta l4proto {{ tcp, udp }} ip saddr . th dport @permitted accept\n\
             drop\n\
           }}\n\
         }}\n"
    )
}

/// `ringfence flows --follow`, read as fast as it comes.
struct Reader {
    child: Child,
    lines: JoinHandle<u64>,
}

impl Reader {
    fn begin(lab: &Lab, agent: &Agent) -> Result<Self> {
        let mut command = Command::new(agent.binary());
        command.args(["flows", "--follow", "-o", "json", "--socket"]);
        command.arg(agent.socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = lab.host().spawn(&mut command)?;
        let stdout = child.stdout.take().context("no output")?;
        let lines = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            u64::try_from(lines.count()).unwrap_or(u64::MAX)
        });
        Ok(Self { child, lines })
    }

    /// How many lines it has read.
    fn end(mut self) -> Result<u64> {
        self.child.kill().context("cannot end the reader")?;
        self.child.wait().context("cannot wait for the reader")?;
        let lines = self.lines.join();
        lines.map_err(|_| anyhow::anyhow!("the reader of records panicked"))
    }
}
