//! The datapath on the host: [`judge`] over plain collections.

use core::cell::RefCell;
use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::flows::Flows;
use crate::{
    decide::Tables,
    denial,
    event::{DenialKey, Event, EventKind},
    flow::{Flow, FlowKey, FlowState, Side},
    fragment,
    judge::{Datapath, Place, Sight, judge, unparsed, unreadable},
    neighbour,
    parse::{Family, Headers, Network, Packet, frame_type, network, parse},
    process::Process,
    protocol::Address,
    rtt::RoundTrip,
    share::may_hold_more,
    table::{
        Counter, Decision, Direction, Endpoint, OwnAddress, PolicyKey, PortKey, Versioned, Word,
    },
    verdict::{Reason, Verdict},
};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// What the kernel's maps hold, and what the programs would have said.
///
/// It knows no other processor, no memory that runs out but the flow table's, and no clock that
/// runs by itself.
#[derive(Debug)]
pub struct Twin<T> {
    /// Where the answers stand: of a compiled policy, or made by a test.
    pub tables: T,
    pub words: BTreeMap<u16, Word>,
    pub own: BTreeSet<OwnAddress>,
    /// Types of frames that pass beside IP and ARP.
    pub frames: BTreeSet<u16>,
    pub jiffies: u64,
    /// Nanoseconds of the boot clock.
    pub now: u64,
    /// Whose the sockets of all packets are.
    pub process: Process,
    /// What they have measured, in microseconds.
    pub round_trip: u32,
    flows_v4: Flows<[u8; 4]>,
    flows_v6: Flows<[u8; 16]>,
    firsts: RefCell<BTreeMap<u32, u64>>,
    denials: RefCell<BTreeMap<DenialKey, Counter>>,
    /// What was denied once, by its place.
    denied_once: RefCell<BTreeMap<u32, u64>>,
    counters: RefCell<BTreeMap<(u16, Reason), Counter>>,
    events: RefCell<Vec<Event>>,
}

/// Where the flows of a family are.
pub trait FamilyFlows: Family {
    #[doc(hidden)]
    fn flows<T>(twin: &Twin<T>) -> &Flows<Self>;
}

impl FamilyFlows for [u8; 4] {
    fn flows<T>(twin: &Twin<T>) -> &Flows<Self> {
        &twin.flows_v4
    }
}

impl FamilyFlows for [u8; 16] {
    fn flows<T>(twin: &Twin<T>) -> &Flows<Self> {
        &twin.flows_v6
    }
}

/// A packet as a slice.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'p>(pub &'p [u8]);

// === impl Twin ===

impl<T> Twin<T> {
    /// Empty tables, with room for so many flows of each family.
    pub fn new(tables: T, flows: usize) -> Self {
        Self {
            tables,
            words: BTreeMap::new(),
            own: BTreeSet::new(),
            frames: BTreeSet::new(),
            jiffies: 1,
            now: 1,
            process: Process::NOBODY,
            round_trip: 0,
            flows_v4: Flows::new(flows),
            flows_v6: Flows::new(flows),
            firsts: RefCell::default(),
            denials: RefCell::default(),
            denied_once: RefCell::default(),
            counters: RefCell::default(),
            events: RefCell::default(),
        }
    }

    pub fn flows_v4(&self) -> BTreeMap<FlowKey<[u8; 4]>, FlowState> {
        self.flows_v4.all()
    }

    pub fn flows_v6(&self) -> BTreeMap<FlowKey<[u8; 16]>, FlowState> {
        self.flows_v6.all()
    }

    /// Denied packets but for those that were told by themselves.
    pub fn denials(&self) -> BTreeMap<DenialKey, Counter> {
        self.denials.borrow().clone()
    }

    /// Packets and bytes of an endpoint by reason.
    pub fn counters(&self, endpoint: u16) -> BTreeMap<Reason, Counter> {
        let counters = self.counters.borrow();
        counters
            .iter()
            .filter(|((id, _), _)| *id == endpoint)
            .map(|((_, reason), counter)| (*reason, *counter))
            .collect()
    }

    /// Takes the events that have not been taken yet.
    pub fn events(&mut self) -> Vec<Event> {
        self.events.take()
    }

    pub fn flush_flows(&mut self) {
        self.flows_v4.clear();
        self.flows_v6.clear();
    }

    /// How an endpoint sees a packet of so many bytes from the network header on.
    pub fn sight(
        &self,
        endpoint: Endpoint,
        direction: Direction,
        length: usize,
        made_here: bool,
    ) -> Sight {
        Sight {
            endpoint,
            word: self.words.get(&endpoint.id).copied().unwrap_or(Word::UNSET),
            direction,
            length: u32::try_from(length).expect("a packet is shorter than 4 GiB"),
            made_here,
            ifindex: 1,
        }
    }
}

impl<T: Tables<[u8; 4]> + Tables<[u8; 16]>> Twin<T> {
    /// Judges an Ethernet frame, as at an interface.
    pub fn frame(
        &self,
        endpoint: Endpoint,
        direction: Direction,
        frame: &[u8],
        made_here: bool,
    ) -> Verdict {
        let length = frame.len().saturating_sub(ETHERNET);
        let sight = self.sight(endpoint, direction, length, made_here);
        let packet = Slice(frame);
        let unjudged = |reason| unreadable::<[u8; 4], _>(self, &sight, reason);
        match network(&packet) {
            Network::V4 => self.family::<[u8; 4]>(packet, &sight),
            Network::V6 => self.family::<[u8; 16]>(packet, &sight),
            Network::Arp => neighbour::arp(self, &packet, &sight),
            Network::Other if self.frames.contains(&frame_type(&packet)) => {
                unjudged(Reason::AllowedFrame)
            }
            Network::Other => unjudged(Reason::NotIp),
            Network::Short => unjudged(Reason::Malformed),
        }
    }

    fn family<A: FamilyFlows>(&self, packet: Slice<'_>, sight: &Sight) -> Verdict
    where
        T: Tables<A>,
    {
        let mut headers = Headers::<A>::EMPTY;
        if let Err(reason) = parse(&packet, ETHERNET, &mut headers)
            && (reason != Reason::Fragment
                || !fragment::follow(self, &packet, ETHERNET, &mut headers, sight))
        {
            return unparsed(self, &headers, sight, reason);
        }
        let verdict = judge(self, &packet, &headers, sight);
        if headers.begins_pieces() && verdict.allows() {
            fragment::remember::<A, _>(self, &packet, ETHERNET, sight);
        }
        verdict
    }
}

impl<A: Address, T: Tables<A>> Tables<A> for Twin<T> {
    fn identity(&self, address: &A) -> Versioned {
        self.tables.identity(address)
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        self.tables.port_table(key)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        self.tables.decision(key)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

impl<A: FamilyFlows, T: Tables<A>> Datapath<A> for Twin<T> {
    const MEASURES: bool = true;

    fn flow(&self, key: &FlowKey<A>) -> Option<&Flow> {
        A::flows(self).get(key)
    }

    fn remember(&self, key: &FlowKey<A>, flow: &FlowState, place: Place) -> bool {
        let flows = A::flows(self);
        let is_due = match place {
            Place::New => may_hold_more(flows.held(key.endpoint), flows.free()),
            Place::Held => true,
        };
        is_due && flows.insert(key, flow)
    }

    fn owns(&self, endpoint: Endpoint, address: &A) -> bool {
        self.own.contains(&OwnAddress {
            endpoint: u32::from(endpoint.id),
            address: address.mapped(),
        })
    }

    fn first(&self, slot: u32) -> u64 {
        self.firsts.borrow().get(&slot).copied().unwrap_or(0)
    }

    fn keep_first(&self, slot: u32, memory: u64) {
        self.firsts.borrow_mut().insert(slot, memory);
    }

    fn jiffies(&self) -> u64 {
        self.jiffies
    }

    fn is_to_measure(&self, flow: &Flow, side: Side, _: u64) -> bool {
        flow.is_measured_with(side)
    }

    fn round_trip(&self) -> RoundTrip {
        RoundTrip::of_micros(self.round_trip)
    }

    fn report(&self, fill: impl FnOnce(&mut Event)) {
        let mut event = Event::EMPTY;
        fill(&mut event);
        if EventKind::names_process(event.kind) {
            event.process = self.process;
        }
        self.events.borrow_mut().push(event);
    }

    fn report_process(&self, fill: impl FnOnce(&mut Event)) {
        if self.process.is_known() {
            let mut event = Event::EMPTY;
            fill(&mut event);
            event.process = self.process;
            self.events.borrow_mut().push(event);
        }
    }

    fn deny(&self, kind: &DenialKey, length: u32) -> bool {
        let mut denials = self.denials.borrow_mut();
        let number = denial::number(kind);
        let mut once = self.denied_once.borrow_mut();
        let place = denial::place(number);
        if !denials.contains_key(kind) && once.insert(place, number) != Some(number) {
            return true;
        }
        add(denials.entry(*kind).or_insert(NOTHING), length);
        false
    }

    fn count(&self, endpoint: Endpoint, reason: Reason, length: u32) {
        let mut counters = self.counters.borrow_mut();
        add(
            counters.entry((endpoint.id, reason)).or_insert(NOTHING),
            length,
        );
    }

    fn opaque(&self, number: u64) -> u64 {
        number
    }
}

impl Packet for Slice<'_> {
    fn load<H: crate::parse::Header>(&self, offset: usize) -> Option<H> {
        let bytes = self.0.get(offset..)?.get(..size_of::<H>())?;
        // SAFETY: as many bytes as `H` has, read unaligned; `Header` promises that any will do.
        Some(unsafe { bytes.as_ptr().cast::<H>().read_unaligned() })
    }
}

const NOTHING: Counter = Counter {
    packets: 0,
    bytes: 0,
};

fn add(counter: &mut Counter, length: u32) {
    counter.packets += 1;
    counter.bytes += u64::from(length);
}
