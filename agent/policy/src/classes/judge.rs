//! The answers for pairs of places, each distinct one asked for once.

mod answers;
mod interned;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use self::{answers::Answers, interned::Interned};
use super::{Behind, Judged, Place, PortMap, Seen, Server, Servers, State};
use crate::connection::{Port, Side, Verdict};

/// Answers for pairs of places.
#[derive(Debug)]
pub(crate) struct Judge<'s, 'w> {
    answers: Answers<'s, 'w>,
    /// What single ports say that lead elsewhere.
    elsewhere: Interned<BTreeMap<Port, u32>>,
    known: Known,
}

/// Numbers of what has been found out.
#[derive(Debug, Default)]
struct Known {
    /// By state, peer, and what serves behind a port.
    servers: HashMap<(usize, usize, usize), u32>,
    /// By state, who asks, and what is behind an address.
    behind: HashMap<(usize, Asker, usize), u32>,
    /// By the map of an address and what its ports say instead.
    exchanged: HashMap<(u32, u32), u32>,
    /// By state, what is behind an address, and the maps of it with and without its socket.
    translated: HashMap<(usize, usize, [u32; 2]), u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    Peer(usize),
    /// Whoever serves there is not judged by itself, so that its like have other answers.
    Server(usize, IpAddr),
}

/// Numbers of the maps that hold a pair's answers: of the source's egress, and of the destination's
/// ingress. Where a port leads elsewhere, that is the ingress of the first who serves there and does
/// not permit, else of the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    pub(crate) egress: u32,
    pub(crate) ingress: u32,
}

// === impl Judge ===

impl<'s, 'w> Judge<'s, 'w> {
    pub(crate) fn new(states: &'s [State<'w>]) -> Self {
        Self {
            answers: Answers::new(states),
            elsewhere: Interned::default(),
            known: Known::default(),
        }
    }

    /// The answers for a connection in a state, where both ends are there; `None` if there is no way
    /// between them.
    pub(crate) fn pair(&mut self, state: usize, from: &Place, to: &Place) -> Option<Pair> {
        if !from.scope.reaches(&to.scope) {
            return None;
        }
        let subject = from.judged.as_ref();
        let egress = self.answers.egress(state, subject, to.seen());
        let ingress = self.answers.ingress(state, to.judged.as_ref(), from.seen());
        let behind = to.behind.as_ref().filter(|_| !from.is_itself(to));
        let Some(behind) = behind else {
            return Some(Pair { egress, ingress });
        };
        let elsewhere = self.behind(state, from, behind);
        Some(Pair {
            egress: self.translated(state, egress, (subject, to), behind),
            ingress: self.exchanged(ingress, elsewhere),
        })
    }

    pub(crate) fn ports(&self, pair: Pair) -> PortMap<(u32, u32)> {
        let nothing = PortMap::constant(u32::MAX);
        let map = |number| self.answers.maps.get(number).unwrap_or(&nothing);
        map(pair.egress).zip(map(pair.ingress), |egress, ingress| (*egress, *ingress))
    }

    pub(crate) fn side(&self, number: u32) -> Option<&Side> {
        self.answers.sides.get(number)
    }

    pub(crate) fn permits(&self, number: u32) -> bool {
        let side = self.side(number);
        side.is_some_and(|side| side.verdict == Verdict::Allow)
    }

    /// What a subject says of what it sends to an address, and of what comes from there: numbers of
    /// maps.
    pub(super) fn about(&mut self, state: usize, subject: &Judged, seen: Seen<'_>) -> [u32; 2] {
        let subject = Some(subject);
        [
            self.answers.egress(state, subject, seen),
            self.answers.ingress(state, subject, seen),
        ]
    }

    /// Whose socket it is, is not told at the ports that lead elsewhere.
    fn translated(
        &mut self,
        state: usize,
        told: u32,
        (subject, to): (Option<&Judged>, &Place),
        behind: &Behind,
    ) -> u32 {
        let seen = to.seen().without_socket();
        let plain = self.answers.egress(state, subject, seen);
        if plain == told {
            return told;
        }
        let asked = (state, behind.number, [told, plain]);
        if let Some(known) = self.known.translated.get(&asked) {
            return *known;
        }
        let maps = (self.answers.maps.get(told), self.answers.maps.get(plain));
        let (Some(map), Some(plain)) = maps else {
            return u32::MAX;
        };
        let ports = behind.ports.keys();
        let others = ports.map(|port| (*port, *plain.at(*port)));
        let map = map.with(&others.collect());
        let number = self.answers.maps.number(map);
        self.known.translated.insert(asked, number);
        number
    }

    /// What is said by those who serve behind the ports of an address.
    fn behind(&mut self, state: usize, from: &Place, behind: &Behind) -> u32 {
        let peer = from.peer.number;
        let asked = if behind.own.contains(&from.address) {
            (state, Asker::Server(peer, from.address), behind.served)
        } else {
            (state, Asker::Peer(peer), behind.number)
        };
        if let Some(known) = self.known.behind.get(&asked) {
            return *known;
        }
        let mut sides = BTreeMap::new();
        for (port, servers) in &behind.ports {
            if let Some(side) = self.servers(state, from, *port, servers) {
                sides.insert(*port, side);
            }
        }
        let number = self.elsewhere.number(sides);
        self.known.behind.insert(asked, number);
        number
    }

    fn servers(&mut self, state: usize, from: &Place, at: Port, servers: &Servers) -> Option<u32> {
        if servers.own.contains(&from.address) {
            return self.first_that_counts(state, from, at, &servers.all);
        }
        let asked = (state, from.peer.number, servers.number);
        if let Some(known) = self.known.servers.get(&asked) {
            return Some(*known);
        }
        let side = self.first_that_counts(state, from, at, &servers.distinct)?;
        self.known.servers.insert(asked, side);
        Some(side)
    }

    /// What the first says that does not permit, else the first of all.
    fn first_that_counts(
        &mut self,
        state: usize,
        from: &Place,
        at: Port,
        servers: &[Server],
    ) -> Option<u32> {
        let mut first = None;
        for server in servers {
            let seen = from.seen().without_socket();
            let map = self.answers.ingress(state, server.judged.as_ref(), seen);
            let number = server.port;
            let side = *self.answers.maps.get(map)?.at(Port { number, ..at });
            if !self.permits(side) {
                return Some(side);
            }
            first = first.or(Some(side));
        }
        first
    }

    fn exchanged(&mut self, plain: u32, elsewhere: u32) -> u32 {
        if let Some(known) = self.known.exchanged.get(&(plain, elsewhere)) {
            return *known;
        }
        let maps = (self.answers.maps.get(plain), self.elsewhere.get(elsewhere));
        let (Some(map), Some(others)) = maps else {
            return u32::MAX;
        };
        let number = self.answers.maps.number(map.with(others));
        self.known.exchanged.insert((plain, elsewhere), number);
        number
    }
}
