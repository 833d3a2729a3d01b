//! The answers of one subject about one peer, for every port.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_common::table::{self, PolicyKey, PortKey, THIS_NODE, WORLD};

use super::interned::Interned;
use crate::{
    classes::{Judged, PortMap, Seen, State},
    compiled::{Compiled, PortTable, Socket},
    connection::{Perspective, Port, Reason, Side, TOLD, Verdict},
    model::{Direction, Protocol},
    question::{Evaluator, Origin, Question},
};

/// Each distinct one is asked for once.
#[derive(Debug)]
pub(super) struct Answers<'s, 'w> {
    states: &'s [State<'w>],
    /// Those of each state's nodes, in their order.
    tables: Vec<Vec<&'s Compiled>>,
    pub(super) sides: Interned<Side>,
    pub(super) maps: Interned<PortMap<u32>>,
    known: HashMap<Stand, u32>,
    /// The map of whoever is no subject.
    nobody: u32,
}

/// Where answers stand: to most subjects most peers are nobody in particular, so that these are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stand {
    state: usize,
    tables: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    OwnAddress,
    /// `None`: nothing of the policies is about the own node.
    OwnNode(Option<u32>),
    /// `None`: there is no answer.
    PortTable(Tables),
}

/// The port tables that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tables {
    all: Option<u32>,
    /// For the protocols whose sockets are told.
    told: Option<u32>,
}

// === impl Answers ===

impl<'s, 'w> Answers<'s, 'w> {
    pub(super) fn new(states: &'s [State<'w>]) -> Self {
        let tables = states.iter().map(|state| {
            let nodes = state.tables.nodes();
            nodes.map(|(_, tables)| tables).collect()
        });
        let (mut sides, mut maps) = (Interned::default(), Interned::default());
        let nobody = sides.number(Side::without_rule(Verdict::Allow, Reason::NoSubject));
        Self {
            states,
            tables: tables.collect(),
            nobody: maps.number(PortMap::constant(nobody)),
            sides,
            maps,
            known: HashMap::new(),
        }
    }

    /// What a subject says of what it sends to a peer.
    pub(super) fn egress(&mut self, state: usize, subject: Option<&Judged>, to: Seen<'_>) -> u32 {
        self.of(state, subject, Direction::Egress, to, Origin::Forwarded)
    }

    /// What a subject says of what a peer sends to it.
    pub(super) fn ingress(
        &mut self,
        state: usize,
        subject: Option<&Judged>,
        from: Seen<'_>,
    ) -> u32 {
        let home = subject.and_then(|judged| judged.home.as_ref());
        let is_own_node = home.is_some() && home == from.peer.voice.as_ref();
        let origin = if is_own_node {
            Origin::ThisNode
        } else {
            Origin::Forwarded
        };
        self.of(state, subject, Direction::Ingress, from, origin)
    }

    fn of(
        &mut self,
        state: usize,
        subject: Option<&Judged>,
        direction: Direction,
        peer: Seen<'_>,
        origin: Origin,
    ) -> u32 {
        let Some(subject) = subject else {
            return self.nobody;
        };
        let tables = self.tables.get(state);
        let Some(tables) = tables.and_then(|all| all.get(subject.tables).copied()) else {
            return u32::MAX;
        };
        let stand = Stand {
            state,
            tables: subject.tables,
            place: place(tables, subject, direction, peer, origin),
        };
        if let Some(number) = self.known.get(&stand) {
            return *number;
        }
        let socket = peer.socket.filter(|socket| is_told(subject, socket));
        let map = self.ask(stand, tables, |perspective, port| Question {
            subject: subject.name.clone(),
            direction,
            peer: peer.address,
            socket: socket
                .filter(|_| has_sockets(port.protocol))
                .map(|socket| socket.name.clone()),
            protocol: port.protocol,
            port: port.number,
            origin,
            view: perspective.view,
            at: perspective.at,
        });
        let number = self.maps.number(map);
        self.known.insert(stand, number);
        number
    }

    fn ask(
        &mut self,
        stand: Stand,
        tables: &Compiled,
        question: impl Fn(Perspective, Port) -> Question,
    ) -> PortMap<u32> {
        let Some(state) = self.states.get(stand.state) else {
            return PortMap::constant(u32::MAX);
        };
        let sides = PortMap::ask(&borders(tables, stand.place), |port| {
            let answer = state.tables.answer(&question(state.perspective, port));
            Side::new(state.world, &answer)
        });
        let mut numbers = BTreeMap::new();
        for side in sides.values() {
            numbers.insert(side.clone(), self.sides.number(side.clone()));
        }
        sides.map(|side| numbers.get(side).copied().unwrap_or(u32::MAX))
    }
}

/// What `decide` looks at, in its order.
fn place(
    tables: &Compiled,
    subject: &Judged,
    direction: Direction,
    seen: Seen<'_>,
    origin: Origin,
) -> Place {
    let way = match direction {
        Direction::Ingress => table::Direction::Ingress,
        Direction::Egress => table::Direction::Egress,
    };
    let port_table = |identity| {
        let key = PolicyKey {
            set: subject.set,
            direction: way as u32,
            identity,
        };
        tables.policy.get(&key).copied()
    };
    let Seen {
        peer,
        address,
        socket,
    } = seen;
    let identity = peer.identities.get(subject.tables);
    let identity = identity.copied().unwrap_or(WORLD);
    let owns = subject.owns_its_addresses();
    let is_own_node = owns
        && origin == Origin::ThisNode
        && identity & THIS_NODE != 0
        && direction == Direction::Ingress;
    if owns && (address.is_loopback() || subject.own.contains(&address)) {
        Place::OwnAddress
    } else if is_own_node {
        Place::OwnNode(port_table(THIS_NODE))
    } else {
        let identity = identity & !THIS_NODE;
        let told = socket.filter(|socket| is_told(subject, socket));
        let told = told.and_then(|socket| {
            let workload = socket.name.clone();
            let sockets = &tables.sockets;
            sockets.get(&Socket { workload, identity }).copied()
        });
        let table = |identity| port_table(identity).or_else(|| port_table(WORLD));
        Place::PortTable(Tables {
            all: table(identity),
            told: table(told.unwrap_or(identity)),
        })
    }
}

/// Whether a subject is told whose socket it is.
fn is_told(subject: &Judged, socket: &crate::classes::Socket) -> bool {
    subject.is_told && subject.tables == socket.tables
}

fn has_sockets(protocol: u8) -> bool {
    TOLD.map(Protocol::number).contains(&protocol)
}

/// Where answers may change.
fn borders(tables: &Compiled, place: Place) -> BTreeMap<u8, BTreeSet<u16>> {
    let mut borders: BTreeMap<u8, BTreeSet<u16>> = BTreeMap::new();
    let numbers = match place {
        Place::OwnAddress => [None; 2],
        Place::OwnNode(number) => [number, None],
        Place::PortTable(Tables { all, told }) if all == told => [all, None],
        Place::PortTable(Tables { all, told }) => {
            let protocols = TOLD.map(|protocol| (protocol.number(), BTreeSet::new()));
            borders.extend(protocols);
            [all, told]
        }
    };
    let numbers = numbers.into_iter().flatten();
    let all = numbers.filter_map(|number| tables.port_tables.get(&number));
    for entry in all.flat_map(|PortTable(entries)| entries) {
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
    borders
}
