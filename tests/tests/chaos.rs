//! Policy flips as fast as it can be put into force, under traffic at full rate: every packet is
//! judged by the one or by the other, and never by a mix of both.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent_common::table::{Counter, Endpoint};
use agent_common::verdict::{Action, Reason};
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
use ringfence_lab::wait::{eventually, slowness};

const PORT: u16 = 7000;
/// How long the files flip.
const SPAN: Duration = Duration::from_secs(15);
/// Servers whose policies flip, each by tables of its own and on a thread of its own: a flip waits for
/// the kernel's grace periods most of the time, and those are shared.
const SERVERS: u8 = 8;
/// How often the tables of each of them flip.
const FLIPS: u64 = 250;
/// And of each of two that get all that two processors can send.
const FLIPS_OF_TWO: u64 = 1_000;
/// Before a runner would end it. With ten others on two processors it was 14 s, beside a soak more than 45.
const FLIPPED: Duration = Duration::from_secs(100);
/// Of a server's tables: there are several, and each is small.
const SIZES: Sizes = Sizes {
    endpoints: 4,
    prefixes: 1024,
    policy: 1024,
    ports: 1024,
    own_addresses: 16,
    flows: 4096,
    denials: 1024,
    events: 1 << 20,
    names: 0,
};
/// Datagrams a second of each sender, to all servers together.
const RATES: [u32; 4] = [6_000, 24_000, 2_400, 2_400];
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
    receivers: Vec<Receiver>,
    both: Peer,
    neither: Peer,
    first: Peer,
    second: Peer,
    servers: Vec<Peer>,
    lab: Lab,
}

impl Ground {
    fn new(servers: u8) -> Result<Self> {
        let lab = Lab::bridged()?;
        let servers = (0..servers)
            .map(|number| lab.peer(&format!("server-{number}"), 10 + number))
            .collect::<Result<Vec<_>>>()?;
        let receivers = servers.iter().map(|server| server.hear(PORT));
        let ground = Self {
            receivers: receivers.collect::<Result<_>>()?,
            both: lab.peer("both", 3)?,
            neither: lab.peer("neither", 4)?,
            first: lab.peer("first", 5)?,
            second: lab.peer("second", 6)?,
            servers,
            lab,
        };
        // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
        for peer in ground.peers() {
            for address in ground.servers.iter().flat_map(Peer::addresses) {
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
        let workload = |peer: &Peer, app: &str, role: &str| {
            manifest::interface(peer, "shop", &[("app", app), ("role", role)])
        };
        let servers = self.servers.iter();
        servers
            .map(|server| workload(server, "server", "none"))
            .chain([
                workload(&self.first, "first", "none"),
                workload(&self.second, "second", "none"),
                workload(&self.both, "both", role),
                workload(&self.neither, "neither", other),
                permitted,
            ])
            .collect::<Vec<_>>()
            .join("\n---\n")
    }

    fn floods(&self) -> Result<Floods> {
        let mut floods = Floods::default();
        let share = u32::try_from(self.servers.len())?;
        for server in &self.servers {
            let to = server.v4(PORT);
            for (index, (peer, rate)) in self.peers().into_iter().zip(RATES).enumerate() {
                floods.0[index].push(peer.flood(to, rate / share)?);
            }
        }
        Ok(floods)
    }

    /// By all servers.
    fn heard(&self, peer: &Peer) -> u64 {
        let [v4, _] = peer.addresses();
        self.receivers.iter().map(|heard| heard.heard(v4)).sum()
    }
}

#[derive(Clone, Copy)]
enum State {
    First,
    Second,
}

/// Of each of [`Ground::peers`].
#[derive(Default)]
struct Floods([Vec<Flood>; 4]);

impl Floods {
    /// Ends them all, with an error if any packet had a verdict that neither policy gives.
    fn end(self, ground: &Ground) -> Result<()> {
        let sent = self.0.map(|floods| floods.into_iter().map(Flood::finish));
        let [both, neither, first, second] = sent.map(Iterator::sum::<u64>);
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

/// The tables of one server.
fn compiled(documents: String, server: &Peer) -> Result<Compiled> {
    let loaded = load([InputFile {
        name: "chaos.yaml".into(),
        bytes: documents.into_bytes(),
    }]);
    ensure!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let name = loaded
        .world
        .workloads
        .keys()
        .find(|name| name.name == server.role());
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

/// Programs at a server's interface, and the policy that is in force there.
fn placed(
    ground: &Ground,
    server: &Peer,
    state: &Compiled,
) -> Result<(Testbed, BTreeMap<u16, SubjectName>)> {
    let subject = state.subjects.iter().next();
    let (name, subject) = subject.context("the server is selected")?;
    let endpoints = BTreeMap::from([(1, name.clone())]);
    let endpoint = Endpoint {
        id: 1,
        flags: subject.flags,
    };
    let mut bed = Testbed::new(&ground.lab.bpffs().join(server.role()), SIZES)?;
    bed.apply(state, &endpoints)?;
    let links = link::links()?;
    let interface = server.interface();
    let link = links.iter().find(|link| link.name == interface);
    bed.attach(endpoint, link.context("an interface")?.index)?;
    Ok((bed, endpoints))
}

/// What the other tests would see of a mix: they are worth something.
#[test]
fn a_mix_of_two_policies_shows() -> Result<()> {
    let ground = Ground::new(1)?;
    let server = ground.servers.first().context("a server")?;
    let mixed = compiled(ground.mixed(State::First, State::Second), server)?;
    ground.lab.host().within(|| {
        let (_bed, _) = placed(&ground, server, &mixed)?;
        let floods = ground.floods()?;
        let shows = eventually(SEEN, || ground.heard(&ground.neither) > 0);
        ensure!(shows, "who is never permitted is not let in by a mix");
        ensure!(floods.end(&ground).is_err(), "a mix is taken for a policy");
        Ok(())
    })
}

/// A server's policy, from when its programs are attached until enough flips were made by all.
struct Flipping<'g> {
    ground: &'g Ground,
    ready: &'g Barrier,
    /// How often each has to flip.
    enough: u64,
    flips: &'g AtomicU64,
    failed: &'g AtomicBool,
}

impl Flipping<'_> {
    /// With what its programs have counted.
    fn of(&self, server: &Peer) -> Result<BTreeMap<Reason, Counter>> {
        let placed = self.placed(server);
        // Whoever fails is waited for by the others, too.
        self.failed.fetch_or(placed.is_err(), Ordering::SeqCst);
        self.ready.wait();
        self.ready.wait();
        let (mut bed, endpoints, states) = placed?;
        let flipped = self.flip(&mut bed, &endpoints, &states);
        self.failed.fetch_or(flipped.is_err(), Ordering::SeqCst);
        // Programs stay until the last datagram has arrived.
        self.ready.wait();
        flipped.with_context(|| server.role().to_owned())?;
        bed.counters(1)
    }

    fn placed(
        &self,
        server: &Peer,
    ) -> Result<(Testbed, BTreeMap<u16, SubjectName>, [Compiled; 2])> {
        let state = |state| compiled(self.ground.documents(state), server);
        let (first, second) = (state(State::First)?, state(State::Second)?);
        let (bed, endpoints) = placed(self.ground, server, &first)?;
        Ok((bed, endpoints, [second, first]))
    }

    fn flip(
        &self,
        bed: &mut Testbed,
        endpoints: &BTreeMap<u16, SubjectName>,
        states: &[Compiled; 2],
    ) -> Result<()> {
        let mut own = 0_u64;
        while own < self.enough && !self.failed.load(Ordering::Relaxed) {
            for state in states {
                bed.apply(state, endpoints)?;
                self.flips.fetch_add(1, Ordering::Relaxed);
            }
            own += 2;
            if own.is_multiple_of(32) {
                let foreign = bed.restore(Duration::from_millis(5))?;
                ensure!(foreign.is_empty(), "taken for somebody else's: {foreign:?}");
            }
        }
        Ok(())
    }
}

/// Flips the tables of all servers under traffic that `begin` starts and `end` judges; what each server's
/// programs have counted.
fn flipped<F>(
    ground: &Ground,
    enough: u64,
    begin: impl FnOnce() -> Result<F> + Send,
    end: impl FnOnce(F) -> Result<()> + Send,
) -> Result<Vec<BTreeMap<Reason, Counter>>> {
    let ready = Barrier::new(ground.servers.len() + 1);
    let (flips, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let flipping = Flipping {
        ground,
        ready: &ready,
        enough,
        flips: &flips,
        failed: &failed,
    };
    let all = enough * u64::try_from(ground.servers.len())?;
    // Threads are in the namespace of the one that starts them.
    ground.lab.host().within(|| {
        thread::scope(|scope| {
            let flipping = &flipping;
            let servers = ground.servers.iter();
            let threads: Vec<_> = servers
                .map(|server| scope.spawn(move || flipping.of(server)))
                .collect();
            ready.wait();
            // What fails from here on must let the threads go first.
            let floods = begin();
            failed.fetch_or(floods.is_err(), Ordering::SeqCst);
            let begin = Instant::now();
            ready.wait();
            let flipped = eventually(FLIPPED, || {
                flips.load(Ordering::Relaxed) >= all || failed.load(Ordering::Relaxed)
            });
            failed.fetch_or(!flipped, Ordering::SeqCst);
            let count = flips.load(Ordering::Relaxed);
            eprintln!("{count} flips in {:?}", begin.elapsed());
            let judged = floods.and_then(end);
            ready.wait();
            let threads = threads.into_iter();
            let counted = threads.map(|thread| thread.join().expect("a flip does not panic"));
            let counted = counted.collect::<Result<_>>()?;
            judged?;
            ensure!(count >= all, "only {count} flips in {FLIPPED:?}");
            Ok(counted)
        })
    })
}

/// The tables themselves, without the agent's loop.
#[test]
fn no_packet_is_judged_by_a_mix_of_two_policies() -> Result<()> {
    let ground = Ground::new(SERVERS)?;
    let end = |floods: Floods| floods.end(&ground);
    flipped(&ground, FLIPS, || ground.floods(), end).map(drop)
}

/// Packets may be lost then, so what counts is what the programs have said.
#[test]
fn no_verdict_is_a_third_one_under_all_that_two_processors_can_send() -> Result<()> {
    const MANY: u64 = 100_000;
    let ground = Ground::new(2)?;
    let [to_both, to_neither] = [0, 1].map(|at| ground.servers[at].v4(PORT));
    let begin = || {
        let mut floods = Vec::new();
        for processor in 0..2 {
            for (peer, to) in [(&ground.both, to_both), (&ground.neither, to_neither)] {
                let socket = peer.within(|| UdpSocket::bind(peer.v4(0)))?;
                floods.push(Flood::unbounded(socket, to, processor));
            }
        }
        Ok(floods)
    };
    let end = |floods: Vec<Flood>| {
        let sent: Vec<u64> = floods.into_iter().map(Flood::finish).collect();
        eprintln!("sent {sent:?}, of both and neither in turn");
        let [heard, wrong] = [&ground.both, &ground.neither].map(|peer| ground.heard(peer));
        ensure!(wrong == 0, "{wrong} that no policy permits");
        ensure!(heard > MANY / u64::from(slowness()), "only {heard} heard");
        Ok(())
    };
    let counted = flipped(&ground, FLIPS_OF_TWO, begin, end)?;
    let [of_both, of_neither] = &counted[..] else {
        anyhow::bail!("two servers");
    };
    let packets = |counters: &BTreeMap<Reason, Counter>, permitted| {
        let of_kind = counters.iter().filter(|(reason, _)| {
            // Who is where on the link is no matter of policy.
            let is_of_link = matches!(reason, Reason::Arp | Reason::NeighbourDiscovery);
            !is_of_link && (reason.action() == Action::Allow) == permitted
        });
        of_kind.map(|(_, counter)| counter.packets).sum::<u64>()
    };
    ensure!(packets(of_both, false) == 0, "of both: {of_both:?}");
    ensure!(packets(of_neither, true) == 0, "of neither: {of_neither:?}");
    // What goes on is not counted by reason.
    ensure!(packets(of_both, true) > 0, "of both: {of_both:?}");
    let denied = packets(of_neither, false);
    ensure!(
        denied > MANY / u64::from(slowness()),
        "of neither: {of_neither:?}"
    );
    Ok(())
}

/// The same from end to end, as fast as files are read.
#[test]
fn files_that_flip_are_never_mixed() -> Result<()> {
    let ground = Ground::new(1)?;
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
