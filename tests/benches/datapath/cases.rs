//! What is measured.

use std::{collections::BTreeMap, time::Instant};

use agent_common::{
    flow::tcp::{ACK, SYN},
    table::{Direction, Endpoint},
    testing::PacketBuilder,
};
use ringfence::datapath::testbed::{Hook, Peers, Ports, Rotation, Testbed};

use crate::policy::{self, ENDPOINT, FLAGS, LOCAL_V4, LOCAL_V6, PORT};

/// Repetitions of one packet.
const REPEAT: u32 = 400_000;
/// Flows that are looked up in turn.
const FLOWS: u32 = 65_536;
/// New flows between two drains of the ring buffer: less than it has room for.
const BATCH: u16 = 16_384;
const SOURCE: u16 = 40_000;
const EGRESS: Hook = Hook::Interface(Direction::Egress);
const INGRESS: Hook = Hook::Interface(Direction::Ingress);

/// Nanoseconds per packet, by what is measured.
pub(crate) type Round = BTreeMap<&'static str, f64>;

pub(crate) const NULL: &str = "null program";
pub(crate) const CGROUP_NULL: &str = "null program, cgroup";

/// What a case is to cost at most, as a ratio to the null program of its hook; for 10,000 entries where it
/// depends on them.
pub(crate) const TARGETS: &[(&str, f64)] = &[
    (ESTABLISHED, 2.5),
    (IN_TURN, 8.0),
    (AT_RANDOM, 12.0),
    (CGROUP, 1.5),
    (FIRST, 40.0),
    (DENIED, 5.0),
    (DENIED_FIRST, 12.0),
];
const ESTABLISHED: &str = "established";
const IN_TURN: &str = "established, 64k in turn";
const AT_RANDOM: &str = "established, 64k at random";
pub(crate) const CGROUP: &str = "established, cgroup";
const FIRST: &str = "first packet";
const DENIED: &str = "denied, repeated";
const DENIED_FIRST: &str = "denied, first of its kind";

pub(crate) struct Bench {
    bed: Testbed,
    entries: u32,
    seed: u64,
}

impl Bench {
    pub(crate) fn new(mut bed: Testbed) -> anyhow::Result<Self> {
        bed.place(Endpoint {
            id: ENDPOINT,
            flags: FLAGS,
        })?;
        bed.place_in_cgroup(Endpoint {
            id: ENDPOINT,
            flags: 0,
        })?;
        Ok(Self {
            bed,
            entries: 0,
            seed: 1,
        })
    }

    pub(crate) fn program(&mut self, entries: u32) -> anyhow::Result<()> {
        self.entries = entries;
        let endpoints = BTreeMap::from([(ENDPOINT, policy::subject())]);
        self.bed.apply(&policy::compiled(entries), &endpoints)
    }

    pub(crate) fn round(&mut self) -> anyhow::Result<Round> {
        let v4 = || PacketBuilder::v4(LOCAL_V4, policy::peer_v4());
        let v6 = || PacketBuilder::v6(LOCAL_V6, policy::peer_v6());
        let back = PacketBuilder::v4(policy::peer_v4(), LOCAL_V4);
        let frame = |packet: PacketBuilder| packet.payload(64).frame();
        let ack = frame(v4().tcp(SOURCE, PORT, ACK));
        let ack_v6 = frame(v6().tcp(SOURCE, PORT, ACK));
        let syn = frame(v4().tcp(SOURCE, PORT, SYN));
        let syn_v6 = frame(v6().tcp(SOURCE, PORT, SYN));
        let nowhere = frame(PacketBuilder::v4(LOCAL_V4, [192, 0, 2, 1]).tcp(SOURCE, PORT, SYN));
        let wrong_port = frame(v4().tcp(SOURCE, PORT + 1, SYN));
        let reply = frame(back.tcp(PORT, SOURCE, ACK));
        // The rotating program goes on from the packet's own port.
        let quarters = [0, 1, 2, 3].map(|quarter| frame(v4().tcp(quarter * BATCH, PORT, ACK)));

        self.bed.flush_flows()?;
        self.bed.flush_denials()?;
        let mut round = Round::new();
        let null = self.repeated(Hook::Null, &ack, true)?;
        round.insert(NULL, null);
        round.insert(ESTABLISHED, self.repeated(EGRESS, &ack, true)?);
        round.insert("reply", self.repeated(INGRESS, &reply, true)?);
        round.insert("established, IPv6", self.repeated(EGRESS, &ack_v6, true)?);
        let cgroup = self.repeated(Hook::CgroupNull(ENDPOINT), &ack, true)?;
        round.insert(CGROUP_NULL, cgroup);
        let cgroup = Hook::Cgroup(ENDPOINT, Direction::Egress);
        round.insert(CGROUP, self.repeated(cgroup, &ack, true)?);
        round.insert(DENIED, self.repeated(EGRESS, &wrong_port, false)?);
        let nowhere = self.repeated(EGRESS, &nowhere, false)?;
        round.insert("denied, repeated, no network", nowhere);
        self.establish(&quarters)?;
        let in_turn = self.established(&quarters[0], Ports::InTurn)?;
        round.insert(IN_TURN, null + in_turn);
        let at_random = self.established(&quarters[0], Ports::AtRandom)?;
        round.insert(AT_RANDOM, null + at_random);
        let networks = Peers::Networks(self.entries);
        let hosts = Peers::Hosts(self.entries);
        let first = self.fresh(&syn, networks, true)?;
        round.insert(FIRST, null + first);
        let first = self.fresh(&syn_v6, networks, true)?;
        round.insert("first packet, IPv6", null + first);
        let first = self.fresh(&syn, hosts, true)?;
        round.insert("first packet, pods", null + first);
        let first = self.fresh(&syn_v6, hosts, true)?;
        round.insert("first packet, pods, IPv6", null + first);
        // Few are seen twice.
        let denied = self.fresh(&wrong_port, Peers::Networks(1 << 20), false)?;
        round.insert(DENIED_FIRST, null + denied);
        anyhow::ensure!(self.bed.events_lost()? == 0, "events were lost on the way");
        Ok(round)
    }

    /// The same packet again and again, after one that is not counted.
    fn repeated(&mut self, hook: Hook, frame: &[u8], passes: bool) -> anyhow::Result<f64> {
        self.time(hook, frame, 1000, passes)?;
        self.time(hook, frame, REPEAT, passes)
    }

    /// Begins flows that differ in one port.
    fn establish(&mut self, quarters: &[Vec<u8>; 4]) -> anyhow::Result<()> {
        self.bed.flush_flows()?;
        self.bed.rotate(&turning(Ports::InTurn), EGRESS)?;
        for frame in quarters {
            self.time(Hook::Rotated, frame, u32::from(BATCH), true)?;
            self.bed.events();
        }
        Ok(())
    }

    /// Each of those flows is met again after all the others, or after some.
    fn established(&mut self, frame: &[u8], ports: Ports) -> anyhow::Result<f64> {
        let rotation = turning(ports);
        self.bed.rotate(&rotation, EGRESS)?;
        let time = self.time(Hook::Rotated, frame, FLOWS * 4, true)?;
        Ok(time - self.rotation(&rotation, frame)?)
    }

    /// Packets that have not been seen before, with the events that they bring about.
    fn fresh(&mut self, frame: &[u8], peers: Peers, passes: bool) -> anyhow::Result<f64> {
        const BATCHES: u32 = 3;
        let mut sum = 0.0;
        for _ in 0..BATCHES {
            self.bed.flush_flows()?;
            self.bed.flush_denials()?;
            self.seed += 1;
            let rotation = Rotation {
                seed: self.seed,
                peers,
                ports: Ports::InTurn,
            };
            self.bed.rotate(&rotation, EGRESS)?;
            let time = self.time(Hook::Rotated, frame, u32::from(BATCH), passes)?;
            self.bed.events();
            sum += time - self.rotation(&rotation, frame)?;
        }
        self.bed.flush_flows()?;
        Ok(sum / f64::from(BATCHES))
    }

    /// What changing the packet costs, with an empty program behind it.
    fn rotation(&mut self, rotation: &Rotation, frame: &[u8]) -> anyhow::Result<f64> {
        self.bed.rotate(rotation, Hook::Null)?;
        self.time(Hook::Rotated, frame, REPEAT, true)
    }

    fn time(&mut self, hook: Hook, frame: &[u8], repeat: u32, passes: bool) -> anyhow::Result<f64> {
        let start = Instant::now();
        let ran = self.bed.run(hook, frame, false, repeat)?;
        let elapsed = start.elapsed();
        anyhow::ensure!(ran.passes == passes, "{hook:?}: passes: {}", ran.passes);
        Ok(elapsed.as_secs_f64() * 1e9 / f64::from(repeat))
    }
}

/// Only the port changes.
fn turning(ports: Ports) -> Rotation {
    Rotation {
        seed: 1,
        peers: Peers::Kept,
        ports,
    }
}
