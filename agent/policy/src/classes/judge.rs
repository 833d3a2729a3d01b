//! The answers for pairs of classes, each distinct one asked for once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::{PolicyKey, PortKey, THIS_NODE, WORLD};

use super::{Judged, Place, PortMap, State};
use crate::{
    compiled::{Compiled, PortTable},
    connection::{Perspective, Reason, Side, Verdict},
    model::{Direction, SubjectName},
    question::{Evaluator, Origin, Question},
};

/// Answers for pairs of places; each distinct one is asked for once.
#[derive(Debug)]
pub(crate) struct Judge<'s, 'w> {
    states: &'s [State<'w>],
    sides: Interned<Side>,
    maps: Interned<PortMap<u32>>,
    known: BTreeMap<Known, u32>,
}

/// All that a map of answers hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    state: usize,
    tables: usize,
    set: u32,
    flags: u16,
    direction: Direction,
    identity: u32,
    made_here: bool,
}

/// Numbers of the maps that hold a pair's answers: of the source's egress, and of the destination's
/// ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) egress: u32,
    pub(crate) ingress: u32,
}

/// Numbers for distinct values.
#[derive(Debug)]
struct Interned<T> {
    numbers: BTreeMap<T, u32>,
    values: Vec<T>,
}

// === impl Judge ===

impl<'s, 'w> Judge<'s, 'w> {
    pub(crate) fn new(states: &'s [State<'w>]) -> Self {
        Self {
            states,
            sides: Interned::default(),
            maps: Interned::default(),
            known: BTreeMap::new(),
        }
    }

    /// The answers for a connection in a state, where both ends are there.
    pub(crate) fn pair(&mut self, state: usize, from: &Place, to: &Place) -> Pair {
        let is_own_node = from.voice.is_some() && from.voice == to.home;
        let origin = if is_own_node {
            Origin::ThisNode
        } else {
            Origin::Forwarded
        };
        Pair {
            egress: self.answers(state, Direction::Egress, from, to, Origin::Forwarded),
            ingress: self.answers(state, Direction::Ingress, to, from, origin),
        }
    }

    pub(crate) fn ports(&self, pair: Pair) -> PortMap<(u32, u32)> {
        let nothing = PortMap::constant(u32::MAX);
        let map = |number| self.maps.get(number).unwrap_or(&nothing);
        map(pair.egress).zip(map(pair.ingress), |egress, ingress| (*egress, *ingress))
    }

    pub(crate) fn side(&self, number: u32) -> Option<&Side> {
        self.sides.get(number)
    }

    pub(crate) fn permits(&self, number: u32) -> bool {
        let side = self.side(number);
        side.is_some_and(|side| side.verdict == Verdict::Allow)
    }

    fn answers(
        &mut self,
        state: usize,
        direction: Direction,
        subject: &Place,
        peer: &Place,
        origin: Origin,
    ) -> u32 {
        let known = subject.judged.as_ref().and_then(|judged| {
            let identity = *peer.identities.get(judged.tables)?;
            let Judged {
                name: _,
                tables,
                set,
                flags,
            } = *judged;
            let known = Known {
                state,
                tables,
                set,
                flags,
                direction,
                identity,
                made_here: origin == Origin::ThisNode,
            };
            Some((known, judged.name.clone()))
        });
        let Some((known, name)) = known else {
            let nobody = Side::without_rule(Verdict::Allow, Reason::NoSubject);
            let side = self.sides.number(nobody);
            return self.maps.number(PortMap::constant(side));
        };
        if let Some(number) = self.known.get(&known) {
            return *number;
        }
        let map = self.ask(known, &name, peer.address, origin);
        let number = self.maps.number(map);
        self.known.insert(known, number);
        number
    }

    fn ask(
        &mut self,
        known: Known,
        subject: &SubjectName,
        peer: IpAddr,
        origin: Origin,
    ) -> PortMap<u32> {
        let Some(state) = self.states.get(known.state) else {
            return PortMap::constant(u32::MAX);
        };
        let Some((_, tables)) = state.tables.nodes().nth(known.tables) else {
            return PortMap::constant(u32::MAX);
        };
        let Perspective { view, at } = state.perspective;
        let sides = PortMap::ask(&borders(tables, known), |port| {
            let answer = state.tables.answer(&Question {
                subject: subject.clone(),
                direction: known.direction,
                peer,
                socket: None,
                protocol: port.protocol,
                port: port.number,
                origin,
                view,
                at,
            });
            Side::new(state.world, &answer)
        });
        let mut numbers = BTreeMap::new();
        for side in sides.values() {
            numbers.insert(side.clone(), self.sides.number(side.clone()));
        }
        sides.map(|side| numbers.get(side).copied().unwrap_or(u32::MAX))
    }
}

/// Where answers may change: in the table of the identity, of the node as such, or of the world.
fn borders(tables: &Compiled, known: Known) -> BTreeMap<u8, BTreeSet<u16>> {
    let way = match known.direction {
        Direction::Ingress => agent_common::table::Direction::Ingress,
        Direction::Egress => agent_common::table::Direction::Egress,
    };
    let mut borders: BTreeMap<u8, BTreeSet<u16>> = BTreeMap::new();
    for identity in [known.identity & !THIS_NODE, THIS_NODE, WORLD] {
        let key = PolicyKey {
            set: known.set,
            direction: way as u32,
            identity,
        };
        let number = tables.policy.get(&key);
        let entries = number.and_then(|number| tables.port_tables.get(number));
        for entry in entries.iter().flat_map(|PortTable(entries)| entries) {
            if entry.bits <= PortKey::TABLE_BITS {
                continue;
            }
            let free = PortKey::PORT_BITS.saturating_sub(entry.bits).min(16);
            let size = 1_u32 << free;
            let first = u32::from(entry.port) / size * size;
            let starts = borders.entry(entry.protocol).or_default();
            starts.extend(u16::try_from(first).ok());
            starts.extend(u16::try_from(first + size).ok());
        }
    }
    borders
}

// === impl Interned ===

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Ord + Clone> Interned<T> {
    fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

impl<T> Interned<T> {
    fn get(&self, number: u32) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)
    }
}
