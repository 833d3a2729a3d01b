//! Policy flips as fast as it can be put into force, under traffic at full rate: every packet is
//! judged by the one or by the other, and never by a mix of both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_common::table::Endpoint;
use agent_policy::compile::{Scope, compile};
use agent_policy::compiled::{Clock, Compiled};
use agent_policy::load::{InputFile, load};
use agent_policy::model::SubjectName;
use anyhow::{Context, Result, ensure};
use ringfence::datapath::link;
use ringfence::datapath::object::Sizes;
use ringfence::datapath::testbed::Testbed;
use ringfence_lab::agent::Agent;
use ringfence_lab::flood::{Flood, Receiver};
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::Outcome;
use ringfence_lab::wait::eventually;

const PORT: u16 = 7000;
/// How long policy flips.
const SPAN: Duration = Duration::from_secs(15);
/// Between two flips of files, which are looked at five times a second.
const SEEN: Duration = Duration::from_secs(10);

/// Of the two policies, each permits another role, and one more workload. Their inventories give two
/// workloads the roles the other way round: `both` always has the one that is permitted, `neither`
/// never has. The old labels by the new policy, or the new ones by the old, would be wrong of both.
fn permit(role: &str, only: &str) -> String {
    format!(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: server}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress:
    - from:
        - podSelector: {{matchLabels: {{role: {role}}}}}
        - podSelector: {{matchLabels: {{app: {only}}}}}
      ports: [{{protocol: UDP, port: {PORT}}}]
"
    )
}

/// Dropped in order.
struct Ground {
    receiver: Receiver,
    both: Peer,
    neither: Peer,
    first: Peer,
    second: Peer,
    server: Peer,
    lab: Lab,
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::bridged()?;
        let server = lab.peer("server", 2)?;
        let ground = Self {
            receiver: server.hear(PORT)?,
            both: lab.peer("both", 3)?,
            neither: lab.peer("neither", 4)?,
            first: lab.peer("first", 5)?,
            second: lab.peer("second", 6)?,
            server,
            lab,
        };
        // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
        for peer in ground.peers() {
            for address in ground.server.addresses() {
                ensure!(peer.ping(address) == Outcome::Allowed, "{}", peer.role());
            }
        }
        Ok(ground)
    }

    fn peers(&self) -> [&Peer; 4] {
        [&self.both, &self.neither, &self.first, &self.second]
    }

    /// One state of policy and inventory, in one file, so that it changes at once.
    fn documents(&self, state: State) -> String {
        self.mixed(state, state)
    }

    fn mixed(&self, inventory: State, policy: State) -> String {
        let (role, other) = match inventory {
            State::First => ("x", "y"),
            State::Second => ("y", "x"),
        };
        let permitted = match policy {
            State::First => permit("x", "first"),
            State::Second => permit("y", "second"),
        };
        let workload = |peer: &Peer, role: &str| {
            manifest::interface(peer, "shop", &[("app", peer.role()), ("role", role)])
        };
        [
            workload(&self.server, "none"),
            workload(&self.first, "none"),
            workload(&self.second, "none"),
            workload(&self.both, role),
            workload(&self.neither, other),
            permitted,
        ]
        .join("\n---\n")
    }

    fn floods(&self) -> Result<Floods> {
        let to = self.server.v4(PORT);
        Ok(Floods {
            both: self.both.flood(to, 5_000)?,
            neither: self.neither.flood(to, 20_000)?,
            first: self.first.flood(to, 2_000)?,
            second: self.second.flood(to, 2_000)?,
        })
    }

    fn heard(&self, peer: &Peer) -> u64 {
        let [v4, _] = peer.addresses();
        self.receiver.heard(v4)
    }
}

#[derive(Clone, Copy)]
enum State {
    First,
    Second,
}

struct Floods {
    both: Flood,
    neither: Flood,
    first: Flood,
    second: Flood,
}

impl Floods {
    /// Ends them all, with an error if any packet had a verdict that neither policy gives.
    fn end(self, ground: &Ground) -> Result<()> {
        let [both, neither, first, second] =
            [self.both, self.neither, self.first, self.second].map(Flood::finish);
        eventually(SEEN, || ground.heard(&ground.both) >= both);
        let heard = ground.peers().map(|peer| ground.heard(peer));
        eprintln!("sent {both}, {neither}, {first}, {second}; heard {heard:?}");
        let [heard_both, heard_neither, heard_first, heard_second] = heard;
        ensure!(
            heard_both == both,
            "of {both} datagrams that both policies permit, {heard_both} arrived"
        );
        ensure!(
            heard_neither == 0,
            "of {neither} datagrams that neither policy permits, {heard_neither} arrived"
        );
        // Each of the two policies has been in force while these sent.
        ensure!(
            heard_first > 0 && heard_first < first,
            "{heard_first} of {first}"
        );
        ensure!(
            heard_second > 0 && heard_second < second,
            "{heard_second} of {second}"
        );
        Ok(())
    }
}

fn compiled(documents: String) -> Result<Compiled> {
    let loaded = load([InputFile {
        name: "chaos.yaml".into(),
        bytes: documents.into_bytes(),
    }]);
    ensure!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let name = loaded
        .world
        .workloads
        .keys()
        .find(|name| name.name == "server");
    let server: SubjectName = name.context("a server")?.clone().into();
    let scope = Scope {
        subjects: [server].into(),
        ..Scope::default()
    };
    Ok(compile(
        &loaded.world,
        &scope,
        &BTreeMap::new(),
        Clock::default(),
    ))
}

/// Programs at the server's interface, and the policy that is in force there.
fn placed(ground: &Ground, state: &Compiled) -> Result<(Testbed, BTreeMap<u16, SubjectName>)> {
    let subject = state.subjects.iter().next();
    let (name, subject) = subject.context("the server is selected")?;
    let endpoints = BTreeMap::from([(1, name.clone())]);
    let endpoint = Endpoint {
        id: 1,
        flags: subject.flags,
    };
    let mut bed = Testbed::new(&ground.lab.bpffs().join("chaos"), Sizes::default())?;
    bed.apply(state, &endpoints)?;
    let links = link::links()?;
    let interface = ground.server.interface();
    let link = links.iter().find(|link| link.name == interface);
    bed.attach(endpoint, link.context("an interface")?.index)?;
    Ok((bed, endpoints))
}

/// What the other tests would see of a mix: they are worth something.
#[test]
fn a_mix_of_two_policies_shows() -> Result<()> {
    let ground = Ground::new()?;
    let mixed = compiled(ground.mixed(State::First, State::Second))?;
    ground.lab.host().within(|| {
        let (_bed, _) = placed(&ground, &mixed)?;
        let floods = ground.floods()?;
        let shows = eventually(SEEN, || ground.heard(&ground.neither) > 0);
        ensure!(shows, "who is never permitted is not let in by a mix");
        ensure!(floods.end(&ground).is_err(), "a mix is taken for a policy");
        Ok(())
    })
}

/// The tables themselves, without the agent's loop: as many flips as the kernel's grace periods allow.
#[test]
fn no_packet_is_judged_by_a_mix_of_two_policies() -> Result<()> {
    let ground = Ground::new()?;
    let states = [State::First, State::Second];
    let states = states.map(|state| compiled(ground.documents(state)));
    let [first, second] = states;
    let (first, second) = (first?, second?);
    ground.lab.host().within(|| {
        let (mut bed, endpoints) = placed(&ground, &first)?;
        let floods = ground.floods()?;
        let (begin, mut flips) = (Instant::now(), 0_u64);
        while begin.elapsed() < SPAN {
            for state in [&second, &first] {
                bed.apply(state, &endpoints)?;
                flips += 1;
            }
            let foreign = bed.restore(Duration::from_millis(5))?;
            ensure!(foreign.is_empty(), "taken for somebody else's: {foreign:?}");
        }
        eprintln!("{flips} flips");
        floods.end(&ground)?;
        ensure!(flips >= 100, "only {flips} flips in {SPAN:?}");
        Ok(())
    })
}

/// The same from end to end, as fast as files are read.
#[test]
fn files_that_flip_are_never_mixed() -> Result<()> {
    let ground = Ground::new()?;
    let write = |state| {
        ground
            .lab
            .write("policies/all.yaml", &ground.documents(state))
    };
    write(State::First)?;
    let agent = Agent::enforcing(&ground.lab, &[&ground.lab.folder().join("policies")])?;
    let generation = || {
        let status = agent.status().unwrap_or_default();
        status["generation"].as_u64().unwrap_or(0)
    };
    let floods = ground.floods()?;
    let (begin, mut flips) = (Instant::now(), 0_u64);
    while begin.elapsed() < SPAN {
        for state in [State::Second, State::First] {
            let before = generation();
            write(state)?;
            let seen = eventually(SEEN, || generation() != before);
            ensure!(seen, "a change is not in force\n{}", agent.log());
            flips += 1;
        }
    }
    eprintln!("{flips} flips");
    floods.end(&ground)?;
    let status = agent.status()?;
    ensure!(status["tampered"].is_null(), "{}", status["tampered"]);
    Ok(())
}
