//! What the programs tell of traffic: events, the flow tables, counters.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use agent_common::{
    denial::Denied,
    dns::DnsHead,
    event::{DenialKey, Event, Loss},
    flow::{FlowKey, FlowState},
    protocol::Address,
};
use anyhow::Context as _;
use aya::maps::{HashMap, MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use crate::{
    datapath::{
        engine::lock,
        held::Held,
        maps::{self, FlowMaps},
        object::Programs,
        raw::{self, Raw},
        told::Telling,
    },
    flow::names::Heard,
};

/// At most this many events at a time, so that one batch stays small.
pub(crate) const BATCH: usize = 1024;

/// Reads events as they come.
pub(crate) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Needs a tokio runtime.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        // SAFETY: the map's descriptor is open and the same for as long as the ring, which the
        // result owns.
        let ring = unsafe { AsyncFd::register(maps::events(folder)?) };
        Ok(Self {
            ring: ring.map_err(io::Error::from)?,
        })
    }

    /// Waits for events; never empty. What is not read stays in the ring.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Event>> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut events = Vec::new();
            while events.len() < BATCH {
                let Some(item) = ring.next() else { break };
                events.extend(raw::read::<Event>(&item));
            }
            if events.len() < BATCH {
                ready.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// Reads what endpoints and resolvers say to each other.
pub(crate) struct Spoken {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Spoken {
    /// Needs a tokio runtime.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        // SAFETY: as for events.
        let ring = unsafe { AsyncFd::register(maps::names(folder)?) };
        Ok(Self {
            ring: ring.map_err(io::Error::from)?,
        })
    }

    /// Waits until there is something.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// What there is, but for what comes when more than a ring holds has been read.
    pub(crate) fn read(&mut self) -> Vec<Heard> {
        let ring = self.ring.get_mut();
        let mut all = Vec::new();
        while all.len() < 2 * BATCH {
            let Some(item) = ring.next() else { break };
            all.extend(heard(&item));
        }
        all
    }
}

fn heard(item: &[u8]) -> Option<Heard> {
    let (head, payload) = item.split_at_checked(size_of::<DnsHead>())?;
    let head = raw::read::<DnsHead>(head)?;
    let length = usize::try_from(head.length).ok()?;
    Some(Heard {
        head,
        payload: payload.get(..length)?.into(),
    })
}

/// Lists the kernel's tables.
pub(crate) struct Tables {
    maps: FlowMaps,
    programs: Arc<Mutex<Programs>>,
    telling: Option<Arc<Telling>>,
    held: Held,
    hertz: u64,
    /// What was lost before this agent began to read.
    events_lost_before: u64,
    flows_lost_before: u64,
}

/// A listing. It is not of one moment: flows come and go while it is made.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) v4: Vec<(FlowKey<[u8; 4]>, FlowState)>,
    pub(crate) v6: Vec<(FlowKey<[u8; 16]>, FlowState)>,
    pub(crate) denials: Vec<(DenialKey, Denied)>,
    /// The kernel's jiffies, read after the flows.
    pub(crate) jiffies: u64,
    /// Jiffies a second.
    pub(crate) hertz: u64,
    /// Since this agent began to read.
    pub(crate) events_lost: u64,
    /// As [`Listing::events_lost`].
    pub(crate) flows_lost: u64,
}

impl Tables {
    pub(crate) fn open(folder: &Path, programs: Arc<Mutex<Programs>>) -> anyhow::Result<Self> {
        let maps = FlowMaps::open(folder)?;
        let (hertz, telling) = {
            let mut programs = lock(&programs);
            (programs.hertz(&maps)?, programs.telling())
        };
        Ok(Self {
            events_lost_before: maps.lost(Loss::Event)?,
            flows_lost_before: maps.lost(Loss::Flow)?,
            held: Held::open(folder)?,
            maps,
            telling,
            programs,
            hertz,
        })
    }

    pub(crate) fn list(&self) -> anyhow::Result<Listing> {
        if let Some(telling) = &self.telling {
            // Without it, those that their sockets know would be taken for idle.
            let told = telling.tell();
            told.context("flows may have counted more than is known")?;
        }
        Ok(Listing {
            v4: flows(&self.held, &self.maps.v4)?,
            v6: flows(&self.held, &self.maps.v6)?,
            denials: maps::entries(&self.maps.denials)?,
            jiffies: lock(&self.programs).jiffies(&self.maps)?,
            hertz: self.hertz,
            events_lost: self.since(Loss::Event, self.events_lost_before)?,
            flows_lost: self.since(Loss::Flow, self.flows_lost_before)?,
        })
    }

    fn since(&self, loss: Loss, before: u64) -> anyhow::Result<u64> {
        Ok(self.maps.lost(loss)?.saturating_sub(before))
    }

    /// Takes a flow out, unless it has been used since it was listed.
    pub(crate) fn remove_v4(&mut self, key: FlowKey<[u8; 4]>, opened: u64, last_seen: u64) {
        remove(&self.held, &mut self.maps.v4, key, opened, last_seen);
    }

    /// As [`Tables::remove_v4`].
    pub(crate) fn remove_v6(&mut self, key: FlowKey<[u8; 16]>, opened: u64, last_seen: u64) {
        remove(&self.held, &mut self.maps.v6, key, opened, last_seen);
    }
}

fn flows<A: Address>(
    held: &Held,
    table: &HashMap<MapData, Raw<FlowKey<A>>, Raw<FlowState>>,
) -> io::Result<Vec<(FlowKey<A>, FlowState)>>
where
    FlowKey<A>: agent_common::abi::Abi,
{
    let before = held.snapshot::<A>();
    let flows = maps::entries(table)?;
    held.settle::<A>(&before, flows.iter().map(|(key, _)| key.endpoint));
    Ok(flows)
}

fn remove<A: Address>(
    held: &Held,
    table: &mut HashMap<MapData, Raw<FlowKey<A>>, Raw<FlowState>>,
    key: FlowKey<A>,
    opened: u64,
    last_seen: u64,
) where
    FlowKey<A>: agent_common::abi::Abi,
{
    let unused = table
        .get(&Raw(key), 0)
        .is_ok_and(|Raw(state)| state.opened == opened && state.last_seen == last_seen);
    if !unused {
        return;
    }
    match table.remove(&Raw(key)) {
        Ok(()) => held.release::<A>(key.endpoint),
        Err(error) => tracing::debug!(%error, "flow was already gone"),
    }
}
