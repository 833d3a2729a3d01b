//! The kernel answers as the host does: random policies, random packets, in sequences.
//!
//! Both run the same `judge`; what is compared is everything around it: the compiler and the
//! verifier, the maps against plain collections, the reading of a socket buffer against a slice.

#[path = "equality/group.rs"]
mod group;
#[path = "equality/tiers.rs"]
mod tiers;
#[path = "equality/traffic.rs"]
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use agent_common::{
    decide::Tables,
    event::Event,
    flow::{FlowKey, FlowState},
    judge::Datapath as _,
    parse::{Network, network},
    protocol::Address as _,
    rejection::{Form, Invoking, Toward, form},
    table::{Counter, Decision, Endpoint, OwnAddress, PolicyKey, PortKey, Versioned},
    testing::{FamilyFlows, Slice, Twin},
    verdict::{Action, Reason},
    withdrawn::is_withdrawn,
};
use agent_policy::{
    compile::{Scope, compile},
    compiled::{At, Clock, Compiled},
    model::{SubjectName, Time, World},
    strategies,
};
use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use ringfence::datapath::{
    object::{Frames, Sizes},
    sockets::Connected,
    testbed::{Hook, Testbed},
};
use rustix::time::{ClockId, clock_gettime};

use crate::traffic::{Sent, Traffic};

const WORLDS: usize = 60;
const WORLDS_OF_GROUPS: usize = 25;
/// Packets under a world's first policy, and as many under its second.
const PACKETS: usize = 120;

#[test]
fn the_kernel_judges_as_the_host_does() {
    let mut runner = TestRunner::deterministic();
    let mut bed = testbed("equality");
    let (mut packets, mut passed, mut reasons) = (0, 0, BTreeSet::new());
    let mut followed = 0;
    let mut cases = BTreeSet::new();
    let (mut withdrawn, mut reprieved, mut told) = (0, 0, 0);
    for number in 0..WORLDS {
        let mut node = Node::new(&mut bed, world(&mut runner));
        let mut denied = Vec::new();
        for _ in 0..2 {
            // What is remembered of a denial must not outlive the policies that denied it.
            for sent in denied.drain(..) {
                reprieved += usize::from(node.judge_alike(number, &sent));
            }
            let traffic = Traffic::of(&node.world, &node.compiled, &node.endpoints);
            for _ in 0..PACKETS {
                let Some(sent) = traffic.packet(&mut runner) else {
                    break;
                };
                packets += 1;
                let allows = node.judge_alike(number, &sent);
                passed += usize::from(allows);
                if !allows {
                    // The second time from memory, unless it is observed then.
                    node.judge_alike(number, &sent);
                    denied.push(sent.clone());
                }
                if let Some(later) = sent.later() {
                    followed += usize::from(node.judge_alike(number, &later));
                }
            }
            node.compare(number);
            reasons.extend(node.reasons());
            cases.extend(node.timed());
            let other = world(&mut runner);
            node.change_policies(other);
            withdrawn += node.search_alike(number);
        }
        told += node.told;
        node.flush();
    }
    assert!(told > 100, "only {told} senders were told");
    eprintln!(
        "{packets} packets, {passed} passed, {followed} later fragments too, reasons {reasons:?}, \
         {withdrawn} withdrawn, {reprieved} denied before"
    );
    assert!(packets >= 10_000, "only {packets} packets were judged");
    assert!(
        passed * 5 > packets && passed * 5 < packets * 4,
        "{passed} of {packets} passed: a test of one answer"
    );
    assert!(followed >= 50, "only {followed} fragments followed a first");
    assert!(
        reprieved > 50,
        "only {reprieved} packets were denied before"
    );
    assert!(withdrawn > 100, "only {withdrawn} flows were withdrawn");
    let missing: Vec<_> = REASONS
        .iter()
        .filter(|reason| !reasons.contains(reason))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
    let timed = [(false, "ends later"), (true, "has ended")];
    for (over, name) in timed {
        assert!(
            cases.contains(&(Action::Reject, over)) && cases.contains(&(Action::Deny, over)),
            "no table in force where something {name}: {cases:?}"
        );
    }
}

/// The programs of cgroups, which are others: no frames, no pieces, no answers.
#[test]
fn the_kernel_judges_as_the_host_does_in_groups() {
    let mut runner = TestRunner::deterministic();
    let mut bed = testbed("group-equality");
    let (mut packets, mut passed, mut reasons) = (0, 0, BTreeSet::new());
    let mut loaded = BTreeSet::new();
    for number in 0..WORLDS_OF_GROUPS {
        let mut node = Node::new(&mut bed, world(&mut runner));
        for _ in 0..2 {
            let traffic = Traffic::of(&node.world, &node.compiled, &node.endpoints);
            for _ in 0..PACKETS {
                let Some(sent) = traffic.packet(&mut runner) else {
                    break;
                };
                packets += 1;
                passed += usize::from(node.judge_alike_in_group(number, &sent, &mut loaded));
            }
            node.compare(number);
            reasons.extend(node.reasons());
            let other = world(&mut runner);
            node.change_policies(other);
            node.search_alike(number);
        }
        node.flush();
    }
    eprintln!("{packets} packets, {passed} passed, reasons {reasons:?}");
    assert!(packets >= 3_000, "only {packets} packets were judged");
    assert!(
        passed * 10 > packets && passed * 10 < packets * 9,
        "{passed} of {packets} passed: a test of one answer"
    );
    let missing: Vec<_> = REASONS_IN_GROUPS
        .iter()
        .filter(|reason| !reasons.contains(reason))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// Policies as the strategies make them, with ranked ones that deny, reject and end.
fn world(runner: &mut TestRunner) -> World {
    let mut world = any(runner, strategies::world());
    let policies = any(runner, tiers::policies(&world, COMPILED_AT));
    world.tier_policies.extend(policies);
    world
}

/// The tables are of a moment that is a while ago, so that some of what they say has come to pass.
const COMPILED_AT: Time = Time::from_unix(1_700_000_000);
const AGO: i64 = 1000;

/// Nanoseconds of the boot clock.
fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// What a denied frame is answered with, if policy says so.
fn form_of(frame: &[u8], toward: Toward) -> Form {
    let packet = Slice(frame);
    let (mut v4, mut v6) = (Invoking::<[u8; 4]>::EMPTY, Invoking::<[u8; 16]>::EMPTY);
    match network(&packet) {
        Network::V4 => form(&packet, &mut v4, toward),
        Network::V6 => form(&packet, &mut v6, toward),
        Network::Arp | Network::Other | Network::Short => Form::Silence,
    }
}

/// What the traffic has to bring about to be worth something.
const REASONS: &[Reason] = &[
    Reason::Rule,
    Reason::NotIsolated,
    Reason::OwnAddress,
    Reason::OwnNode,
    Reason::Related,
    Reason::NeighbourDiscovery,
    Reason::Arp,
    Reason::Observed,
    Reason::AllowedFrame,
    Reason::Dhcp,
    Reason::DefaultDeny,
    Reason::SpoofedSource,
    Reason::NoState,
    Reason::Malformed,
    Reason::Fragment,
    Reason::ExtensionHeader,
    Reason::NotIp,
    Reason::RogueRouter,
    Reason::Revoked,
    Reason::DenyRule,
    Reason::StaleSchedule,
    Reason::SpoofedNeighbour,
];

const REASONS_IN_GROUPS: &[Reason] = &[
    Reason::Rule,
    Reason::NotIsolated,
    Reason::Related,
    Reason::NeighbourDiscovery,
    Reason::DefaultDeny,
    Reason::NoState,
    Reason::Malformed,
    Reason::Fragment,
    Reason::ExtensionHeader,
    Reason::NotIp,
    Reason::RogueRouter,
    Reason::DenyRule,
];

/// A node in the kernel and its twin on the host.
struct Node<'b> {
    bed: &'b mut Testbed,
    twin: Twin<Held>,
    world: World,
    compiled: Compiled,
    endpoints: BTreeMap<u16, SubjectName>,
    /// The kernel counts from the start of all worlds.
    counted: BTreeMap<u16, BTreeMap<Reason, Counter>>,
    judged: usize,
    /// Packets whose senders were told.
    told: usize,
    /// Else every packet is one that the node has made.
    can_arrive: bool,
}

/// Frames of this type pass beside IP and ARP.
const NAMED: u16 = 0x88f7;

/// By endpoint.
type Sockets = BTreeMap<u16, BTreeSet<Connected>>;

/// Of so many packets one comes while its endpoint is only observed.
const OBSERVED: usize = 8;
/// And of so many of these one when that has lasted too long.
const OVERDUE: usize = 4;

/// Compiled tables of its own.
struct Held(Compiled);

impl<A> Tables<A> for Held
where
    for<'c> At<'c>: Tables<A>,
{
    fn identity(&self, address: &A) -> Versioned {
        Tables::<A>::identity(&self.at(), address)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        Tables::<A>::port_table(&self.at(), key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        Tables::<A>::decision(&self.at(), key)
    }

    fn now(&self) -> u64 {
        boot_nanos()
    }
}

impl Held {
    fn at(&self) -> At<'_> {
        At::new(&self.0, boot_nanos())
    }
}

impl<'b> Node<'b> {
    fn new(bed: &'b mut Testbed, world: World) -> Self {
        let names = world.workloads.keys().cloned().map(SubjectName::from);
        let endpoints: BTreeMap<u16, SubjectName> = (1..).zip(names).collect();
        let counted = endpoints
            .keys()
            .map(|id| (*id, bed.counters(*id).unwrap()))
            .collect();
        let mut twin = Twin::new(Held(Compiled::default()), 100_000);
        twin.frames.insert(NAMED);
        let mut node = Self {
            can_arrive: bed.can_arrive().unwrap(),
            bed,
            twin,
            compiled: Compiled::default(),
            world,
            endpoints,
            counted,
            judged: 0,
            told: 0,
        };
        node.program();
        node
    }

    fn change_policies(&mut self, other: World) {
        let World {
            network_policies,
            tier_policies,
            ..
        } = other;
        self.world.network_policies = network_policies;
        self.world.tier_policies = tier_policies;
        // Two have changed addresses: what either has begun with its own is not its flow any more.
        let mut workloads = self.world.workloads.values_mut();
        if let (Some(one), Some(other)) = (workloads.next(), workloads.next_back()) {
            let (one, other) = (Arc::make_mut(one), Arc::make_mut(other));
            std::mem::swap(&mut one.addresses, &mut other.addresses);
        }
        self.program();
    }

    /// Puts the world in force, there and here.
    fn program(&mut self) {
        let scope = Scope {
            subjects: self.endpoints.values().cloned().collect(),
            this_node: self.world.nodes["one"].addresses.clone(),
        };
        let up = i64::try_from(boot_nanos() / 1_000_000_000).unwrap();
        let clock = Clock {
            now: COMPILED_AT,
            boot: Time::from_unix(COMPILED_AT.unix() + AGO - up),
        };
        self.compiled = compile(&self.world, &scope, &self.compiled.port_tables, clock);
        self.bed.apply(&self.compiled, &self.endpoints).unwrap();
        self.twin.tables = Held(self.compiled.clone());
        self.twin.words = self
            .endpoints
            .keys()
            .map(|id| (*id, self.bed.word(*id)))
            .collect();
        self.twin.own = self
            .endpoints
            .iter()
            .filter_map(|(id, name)| Some((*id, self.compiled.subjects.get(name)?)))
            .flat_map(|(id, subject)| subject.addresses.iter().map(move |ip| (id, *ip)))
            .map(|(id, ip)| OwnAddress {
                endpoint: u32::from(id),
                address: match ip {
                    std::net::IpAddr::V4(ip) => ip.octets().mapped(),
                    std::net::IpAddr::V6(ip) => ip.octets(),
                },
            })
            .collect();
    }

    fn judge_alike(&mut self, number: usize, sent: &Sent) -> bool {
        let Sent {
            id,
            direction,
            made_here,
            packet,
        } = sent;
        let made_here = *made_here || !self.can_arrive;
        let flags = self.compiled.subjects[&self.endpoints[id]].flags;
        self.judged += 1;
        let endpoint = Endpoint { id: *id, flags };
        // Every other one gets its addresses by DHCP.
        let endpoint = if id.is_multiple_of(2) {
            endpoint.with(Endpoint::DHCP_CLIENT)
        } else {
            endpoint
        };
        let (endpoint, seen) = if self.judged.is_multiple_of(OBSERVED) {
            let until = if self.judged.is_multiple_of(OBSERVED * OVERDUE) {
                boot_nanos()
            } else {
                u64::MAX
            };
            self.bed.observe(*id, until);
            let endpoint = endpoint.observed();
            (endpoint, endpoint.by(boot_nanos(), until))
        } else {
            (endpoint, endpoint)
        };
        let frame = packet.frame();
        self.twin.now = boot_nanos();
        let verdict = self.twin.frame(seen, *direction, &frame, made_here);
        self.bed.place(endpoint).unwrap();
        let ran = self
            .bed
            .run(Hook::Interface(*direction), &frame, made_here, 1)
            .unwrap();
        // The first segment of a cut connection goes on, as the reset for the far end.
        let is_parting = verdict.parts() && form_of(&frame, Toward::Receiver) == Form::Reset;
        assert_eq!(
            ran.passes,
            verdict.allows() || is_parting,
            "world {number}, {endpoint:?}, {sent:?}: the host says {verdict:?}; {:#?}",
            self.world
        );
        let is_told = verdict.rejects() && !verdict.parts();
        assert!(
            !ran.is_sent_back || is_told && form_of(&frame, Toward::Sender) != Form::Silence,
            "world {number}, {endpoint:?}, {sent:?}: {verdict:?} is answered"
        );
        self.told += usize::from(ran.is_sent_back);
        verdict.allows()
    }

    /// By the programs of a cgroup, of which each endpoint has its own; `loaded` have theirs.
    fn judge_alike_in_group(
        &mut self,
        number: usize,
        sent: &Sent,
        loaded: &mut BTreeSet<u16>,
    ) -> bool {
        let Sent {
            id,
            direction,
            packet,
            ..
        } = sent;
        // It has the node's addresses, and none of its own.
        let endpoint = Endpoint { id: *id, flags: 0 };
        if loaded.insert(*id) {
            self.bed.place_in_cgroup(endpoint).unwrap();
        }
        let frame = packet.frame();
        self.twin.now = boot_nanos();
        let verdict = group::judged(&self.twin, endpoint, *direction, &frame);
        let hook = Hook::Cgroup(*id, *direction);
        let ran = self.bed.run(hook, &frame, true, 1).unwrap();
        assert_eq!(
            ran.passes,
            verdict.allows(),
            "world {number}, {endpoint:?}, {sent:?}: the host says {verdict:?}; {:#?}",
            self.world
        );
        verdict.allows()
    }

    /// Everything that the packets have left behind is the same.
    fn compare(&mut self, number: usize) {
        for id in self.endpoints.keys() {
            let counters = since(&self.counted[id], &self.bed.counters(*id).unwrap());
            assert_eq!(
                counters,
                self.twin.counters(*id),
                "counters of {id}, world {number}"
            );
        }
        assert_eq!(
            timeless(self.bed.flows_v4().unwrap()),
            timeless(self.twin.flows_v4()),
            "IPv4 flows, world {number}"
        );
        assert_eq!(
            timeless(self.bed.flows_v6().unwrap()),
            timeless(self.twin.flows_v6()),
            "IPv6 flows, world {number}"
        );
        assert_eq!(
            self.bed.denials().unwrap(),
            self.twin.denials(),
            "denials, world {number}"
        );
        let seen: Vec<Event> = self.bed.events().into_iter().map(undated).collect();
        let expected: Vec<Event> = self.twin.events().into_iter().map(undated).collect();
        assert_eq!(seen, expected, "events, world {number}");
        assert_eq!(self.bed.events_lost().unwrap(), 0);
    }

    /// What the tables in force no longer permit, the kernel finds without a packet; how much that is.
    fn search_alike(&mut self, number: usize) -> usize {
        let flags = self.endpoints.iter();
        let flags = flags
            .map(|(id, name)| (*id, self.compiled.subjects[name].flags))
            .collect();
        self.twin.now = boot_nanos();
        let seen = self.bed.withdrawn(&flags).unwrap().into_iter();
        let seen: Sockets = seen
            .map(|(id, sockets)| (id, sockets.into_iter().collect()))
            .collect();
        let mut expected = Sockets::new();
        for key in self.twin.flows_v4().keys() {
            self.expect_withdrawn(&flags, key, &mut expected);
        }
        for key in self.twin.flows_v6().keys() {
            self.expect_withdrawn(&flags, key, &mut expected);
        }
        assert_eq!(seen, expected, "withdrawn flows, world {number}");
        seen.values().map(BTreeSet::len).sum()
    }

    fn expect_withdrawn<A: FamilyFlows + Into<std::net::IpAddr>>(
        &self,
        flags: &BTreeMap<u16, u16>,
        key: &FlowKey<A>,
        expected: &mut Sockets,
    ) where
        for<'c> At<'c>: Tables<A>,
    {
        let endpoint = Endpoint {
            id: key.endpoint,
            flags: flags[&key.endpoint],
        };
        let flow = self.twin.flow(key).unwrap();
        let word = self.twin.words[&key.endpoint];
        if is_withdrawn(&self.twin, key, flow, endpoint, word) {
            expected.entry(key.endpoint).or_default().insert(Connected {
                protocol: key.protocol,
                local: (key.local.into(), key.local_port),
                remote: (key.remote.into(), key.remote_port),
            });
        }
    }

    fn reasons(&self) -> Vec<Reason> {
        let ids = self.endpoints.keys();
        ids.flat_map(|id| self.twin.counters(*id).into_keys())
            .collect()
    }

    /// What of the tables has an end, by what holds then, and whether that has come.
    fn timed(&self) -> impl Iterator<Item = (Action, bool)> {
        let tables = self.compiled.port_tables.values();
        let decisions = tables.flat_map(|table| table.0.iter().map(|entry| entry.decision));
        let now = boot_nanos();
        decisions
            .filter(|decision| decision.is_timed())
            .filter_map(move |decision| {
                let actions = [Action::Deny, Action::Allow, Action::Reject, Action::Stale];
                let after = actions
                    .into_iter()
                    .find(|action| *action as u32 == decision.after_action)?;
                Some((after, now >= decision.until))
            })
    }

    fn flush(&mut self) {
        self.bed.flush_flows().unwrap();
        self.bed.flush_denials().unwrap();
    }
}

fn testbed(name: &str) -> Testbed {
    let path = format!("/sys/fs/bpf/ringfence-test-{}-{name}", std::process::id());
    let frames = Frames::of([NAMED]).unwrap();
    Testbed::allowing(&PathBuf::from(path), Sizes::default(), &frames).unwrap()
}

fn any<S: Strategy>(runner: &mut TestRunner, strategy: S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

fn since(
    before: &BTreeMap<Reason, Counter>,
    after: &BTreeMap<Reason, Counter>,
) -> BTreeMap<Reason, Counter> {
    after
        .iter()
        .map(|(reason, counter)| {
            let (packets, bytes) = before
                .get(reason)
                .map_or((0, 0), |before| (before.packets, before.bytes));
            let counter = Counter {
                packets: counter.packets - packets,
                bytes: counter.bytes - bytes,
            };
            (*reason, counter)
        })
        .filter(|(_, counter)| counter.packets > 0)
        .collect()
}

fn timeless<K: Ord>(flows: BTreeMap<K, FlowState>) -> BTreeMap<K, FlowState> {
    flows
        .into_iter()
        .map(|(key, flow)| {
            let flow = FlowState {
                opened: 0,
                last_seen: 0,
                ..flow
            };
            (key, flow)
        })
        .collect()
}

fn undated(event: Event) -> Event {
    Event {
        time: 0,
        opened: 0,
        ..event
    }
}
