//! How many flows each endpoint holds, by which the programs refuse it more than its share.
//!
//! The programs count up, each processor for itself; so does the agent for what it puts in. The agent alone
//! takes flows out, and counts down. Who
//! is stopped in between has counted wrong, so each listing of the table puts the counts right.

use std::{collections::BTreeMap, path::Path};

use agent_common::{
    protocol::Address,
    share::{FAMILIES, may_hold_more, slot_of},
    table::Endpoint,
};

use crate::datapath::{maps, words::Words};

#[derive(Debug)]
pub(crate) struct Held {
    counts: Words,
    /// Flows that there is room for, of each family.
    room: u64,
}

/// The counts of a family at one time, by endpoint.
#[derive(Debug)]
pub(crate) struct Snapshot(BTreeMap<u16, u64>);

impl Held {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let held = Self {
            counts: maps::held(folder)?,
            room: u64::try_from(maps::capacity(folder, "FLOWS_V4")?)?,
        };
        held.balance::<[u8; 4]>();
        held.balance::<[u8; 16]>();
        Ok(held)
    }

    /// Whether one more flow is the endpoint's due.
    pub(crate) fn has_room<A: Address>(&self, endpoint: u16) -> bool {
        may_hold_more(self.of::<A>(endpoint), self.of::<A>(Endpoint::NOBODY.id))
    }

    /// A flow of the endpoint has been put in.
    pub(crate) fn take<A: Address>(&self, endpoint: u16) {
        self.add::<A>(endpoint, 1);
        self.add::<A>(Endpoint::NOBODY.id, -1);
    }

    /// A flow of the endpoint has been taken out.
    pub(crate) fn release<A: Address>(&self, endpoint: u16) {
        self.add::<A>(endpoint, -1);
        self.add::<A>(Endpoint::NOBODY.id, 1);
    }

    /// To be taken before a listing is begun.
    pub(crate) fn snapshot<A: Address>(&self) -> Snapshot {
        let counts = self.endpoints().map(|id| (id, self.of::<A>(id)));
        Snapshot(counts.filter(|(_, count)| *count != 0).collect())
    }

    /// Puts the counts right by the endpoints of all flows of a listing. While it was made, flows may have
    /// come, and none may have been taken out.
    pub(crate) fn settle<A: Address>(&self, before: &Snapshot, listed: impl Iterator<Item = u16>) {
        let mut flows = BTreeMap::<u16, u64>::new();
        for endpoint in listed {
            *flows.entry(endpoint).or_default() += 1;
        }
        for id in self.endpoints() {
            let least = flows.get(&id).copied().unwrap_or_default();
            let then = before.0.get(&id).copied().unwrap_or_default();
            let now = self.of::<A>(id);
            let came = now.wrapping_sub(then).cast_signed().max(0);
            let most = least.saturating_add_signed(came).cast_signed();
            let right = now.cast_signed().clamp(least.cast_signed(), most);
            self.add::<A>(id, right - now.cast_signed());
        }
        self.balance::<A>();
    }

    /// What nobody holds is free.
    fn balance<A: Address>(&self) {
        let held: u64 = self.endpoints().map(|id| self.of::<A>(id)).sum();
        let free = self.room.wrapping_sub(held);
        let told = self.of::<A>(Endpoint::NOBODY.id);
        self.add::<A>(Endpoint::NOBODY.id, free.wrapping_sub(told).cast_signed());
    }

    fn endpoints(&self) -> impl Iterator<Item = u16> {
        let end = u16::try_from(self.counts.len() / FAMILIES).unwrap_or(u16::MAX);
        1..end
    }

    fn of<A: Address>(&self, endpoint: u16) -> u64 {
        self.counts.load(slot_of::<A>(endpoint))
    }

    fn add<A: Address>(&self, endpoint: u16, change: i64) {
        if change != 0 {
            self.counts.add(slot_of::<A>(endpoint), change);
        }
    }
}
