//! A flow table whose flows can be looked at while others come and go, as in the kernel.

use core::cell::{Cell, OnceCell, RefCell};
use std::{boxed::Box, collections::BTreeMap, vec::Vec};

use crate::{
    flow::{Flow, FlowKey, FlowState},
    shared::Shared,
};

/// Flows by key. One that is taken out stays readable until the table is cleared.
#[derive(Debug)]
pub struct Flows<A> {
    places: RefCell<BTreeMap<FlowKey<A>, usize>>,
    /// Block `n` has 2ⁿ places, so that a place never moves.
    blocks: [OnceCell<Box<[OnceCell<Flow>]>>; 32],
    next: Cell<usize>,
    capacity: usize,
}

impl<A: Copy + Ord> Flows<A> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: RefCell::default(),
            blocks: [const { OnceCell::new() }; 32],
            next: Cell::new(0),
            capacity,
        }
    }

    pub(super) fn get(&self, key: &FlowKey<A>) -> Option<&Flow> {
        let place = self.places.borrow().get(key).copied()?;
        self.cell(place).get()
    }

    /// False if there is no room; a flow with the same key makes room for this one.
    pub(super) fn insert(&self, key: &FlowKey<A>, state: &FlowState) -> bool {
        let mut places = self.places.borrow_mut();
        if places.len() >= self.capacity && !places.contains_key(key) {
            return false;
        }
        let place = self.next.get();
        self.next.set(place + 1);
        places.insert(*key, place);
        self.cell(place).set(flow(state)).is_ok()
    }

    /// How many flows an endpoint has.
    pub(super) fn held(&self, endpoint: u16) -> u64 {
        let places = self.places.borrow();
        let held = places.keys().filter(|key| key.endpoint == endpoint);
        held.count() as u64
    }

    /// How many more find room.
    pub(super) fn free(&self) -> u64 {
        (self.capacity - self.places.borrow().len()) as u64
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    pub(super) fn all(&self) -> BTreeMap<FlowKey<A>, FlowState> {
        let keys: Vec<FlowKey<A>> = self.places.borrow().keys().copied().collect();
        keys.into_iter()
            .filter_map(|key| Some((key, self.get(&key)?.state())))
            .collect()
    }

    fn cell(&self, place: usize) -> &OnceCell<Flow> {
        let block = (place + 1).ilog2();
        let first = (1_usize << block) - 1;
        let cells = self.blocks[block as usize]
            .get_or_init(|| (0..1_usize << block).map(|_| OnceCell::new()).collect());
        &cells[place - first]
    }
}

pub(crate) fn flow(state: &FlowState) -> Flow {
    let FlowState {
        generation,
        rule,
        reason,
        origin,
        tcp_flags,
        closed,
        rtt,
        opened,
        last_seen,
        packets,
        bytes,
    } = *state;
    Flow {
        generation: Shared::new(generation),
        rule: Shared::new(rule),
        reason: Shared::new(reason),
        origin,
        tcp_flags: tcp_flags.map(Shared::new),
        closed: Shared::new(closed),
        rtt: Shared::new(rtt),
        opened,
        last_seen: Shared::new(last_seen),
        packets: packets.map(Shared::new),
        bytes: bytes.map(Shared::new),
    }
}
