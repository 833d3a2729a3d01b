//! Events and listings from the datapath to the pipeline of records, and removals back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    config::Config,
    daemon::{processes::ThisNode, status::Shared, views::Sets},
    datapath::{
        engine::{Engine, lock},
        memory,
        traffic::{BATCH, Events, Listing, Spoken, Tables},
    },
    flow::{
        clock::BootTime,
        enrich::Known,
        key::Key,
        names::Names,
        pipeline::{Pipeline, PipelineInput},
        report::{Lost, Removal, SweepInput},
        ring::Ring,
        sink::{DEFAULT_QUEUE, Sink},
        stage::Stage,
        tracker::TrackerCapacity,
        views::OpinionCounts,
    },
};

/// Between two listings of the flow tables.
const SWEEP: Duration = Duration::from_secs(5);

/// Between two readings of events, unless more are there than one reading takes: with each event by itself, a
/// flow would cost more in waking the tasks that carry its records than in all they do.
const GATHERING: Duration = Duration::from_millis(1);

/// For the last events to be read, when the agent ends.
const LAST: Duration = Duration::from_secs(1);

/// For sinks to write what they have, or to give it up: longer than any of them takes, but one whose reader has stopped reading.
const WRITTEN: Duration = Duration::from_secs(45);

/// Batches of events, or listings, that may wait for the pipeline. What waits longer stays in the
/// kernel, which counts what it has to drop.
const INPUTS: usize = 16;

/// The tasks that carry records.
#[derive(Debug)]
pub(crate) struct Traffic {
    known: watch::Sender<Known>,
    readers: Vec<JoinHandle<()>>,
    events: JoinHandle<()>,
    stop: watch::Sender<bool>,
    pipeline: JoinHandle<()>,
    writers: Vec<JoinHandle<()>>,
    input: mpsc::Sender<PipelineInput>,
}

impl Traffic {
    pub(crate) fn start(
        config: &Config,
        node: &Arc<str>,
        engine: &Engine,
        ring: &Arc<Ring>,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let folder = engine.folder();
        let events = Events::open(&folder)?;
        let spoken = Spoken::open(&folder)?;
        let tables = Tables::open(&folder, engine.programs())?;
        let (known, names) = watch::channel(Known::default());
        let (input, inputs) = mpsc::channel(INPUTS);
        let (removals, removed) = mpsc::channel(INPUTS);
        let stage = Arc::new(Stage::default());

        let mut sinks = Vec::new();
        let mut writers = Vec::new();
        let mut counts = Vec::new();
        for settings in config.all_sinks() {
            let name = settings.name.clone();
            let (sink, writer) = Sink::start(settings, Arc::clone(node), DEFAULT_QUEUE)
                .with_context(|| format!("cannot write flow records to {name}"))?;
            counts.push((name, sink.counts()));
            sinks.push(sink);
            writers.push(writer);
        }
        let opinions = Arc::new(OpinionCounts::default());
        shared.show_records(Arc::clone(&stage), counts, Arc::clone(&opinions));
        let seen = shared.show_traffic(&folder)?;

        let mut readers = Vec::new();
        if let Some(messages) = lock(&engine.programs()).messages()? {
            readers.push(tokio::spawn(messages));
        }

        let flows = usize::try_from(config.capacities.flows)?;
        let pipeline = Pipeline {
            node: Arc::clone(node),
            cluster: config.cluster.as_deref().map(Arc::from),
            started: BootTime::now(),
            capacity: TrackerCapacity { flows: flows * 2 },
            known: names,
            sinks,
            ring: Arc::clone(ring),
            stage,
            removals,
            sets: Box::new(Sets::open(&folder)?),
            opinions,
            counts: Arc::clone(&shared.flows),
            this_node: Box::new(ThisNode::new(engine.helper())),
            names: Names::new(config.dns.resolvers.clone(), Arc::clone(&shared.names)),
        };
        let (stop, stopped) = watch::channel(false);
        let events = tokio::spawn(read_events((events, spoken), input.clone(), seen, stopped));
        let sweeps = sweep(tables, input.clone(), removed, Arc::clone(shared));
        readers.push(tokio::spawn(sweeps));
        Ok(Self {
            known,
            readers,
            events,
            stop,
            pipeline: tokio::spawn(pipeline.run(inputs)),
            writers,
            input,
        })
    }

    /// Where the controller says who is who.
    pub(crate) fn known(&self) -> watch::Sender<Known> {
        self.known.clone()
    }

    /// Where the controller tells what it has noticed.
    pub(crate) fn input(&self) -> mpsc::Sender<PipelineInput> {
        self.input.clone()
    }

    /// Writes what has been read, and ends. All other inputs have been dropped.
    pub(crate) async fn stop(self) {
        let Self {
            known: _,
            readers,
            mut events,
            stop,
            pipeline,
            writers,
            input,
        } = self;
        for reader in readers {
            reader.abort();
        }
        stop.send_replace(true);
        if tokio::time::timeout(LAST, &mut events).await.is_err() {
            // There are always more.
            events.abort();
        }
        drop(input);
        let written = async {
            for task in std::iter::once(pipeline).chain(writers) {
                if let Err(error) = task.await {
                    tracing::error!(%error, "records may be missing");
                }
            }
        };
        if tokio::time::timeout(WRITTEN, written).await.is_err() {
            tracing::error!("records are missing: a sink does not come to its end");
        }
    }
}

/// Until it is to stop, and then until there is nothing more to read.
async fn read_events(
    (mut events, mut spoken): (Events, Spoken),
    input: mpsc::Sender<PipelineInput>,
    seen: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let read = tokio::select! {
            biased;
            read = events.next() => read,
            read = spoken.ready() => read.map(|()| Vec::new()),
            _ = stop.wait_for(|is_over| *is_over) => return,
        };
        // Whoever was told an address connects to it afterwards: what was said before an event that has been read is
        // in its ring by now, and goes ahead. Once: who never stops to speak is not to hold up the events.
        let heard = spoken.read();
        if !heard.is_empty() && input.send(PipelineInput::Heard(heard)).await.is_err() {
            return;
        }
        match read {
            Ok(batch) => {
                let is_all = batch.len() < BATCH;
                seen.fetch_add(u64::try_from(batch.len()).unwrap_or(u64::MAX), Relaxed);
                let has_some = !batch.is_empty();
                if has_some && input.send(PipelineInput::Events(batch)).await.is_err() {
                    return;
                }
                if is_all {
                    tokio::select! {
                        () = tokio::time::sleep(GATHERING) => {}
                        _ = stop.wait_for(|is_over| *is_over) => {}
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "no events any more");
                return;
            }
        }
    }
}

async fn sweep(
    mut tables: Tables,
    input: mpsc::Sender<PipelineInput>,
    mut removals: mpsc::Receiver<Vec<Removal>>,
    shared: Arc<Shared>,
) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flood = Flood::default();
    loop {
        let work = tokio::select! {
            _ = ticks.tick() => Work::List,
            removals = removals.recv() => match removals {
                Some(removals) => Work::Remove(removals),
                None => return,
            },
        };
        // It walks tables by system calls: not on a thread that others wait for.
        let done = tokio::task::spawn_blocking(move || {
            let listed = work.run(&mut tables);
            (tables, listed)
        });
        let Ok((held, listed)) = done.await else {
            return;
        };
        tables = held;
        let Some((listed_at, listing)) = listed else {
            continue;
        };
        shared.count_flows(listing.v4.len(), listing.v6.len(), listing.denials.len());
        if flood.has_ended(listing.v4.len() + listing.v6.len()) {
            tokio::task::spawn_blocking(memory::give_back);
        }
        let Listing {
            v4,
            v6,
            denials,
            jiffies,
            hertz,
            events_lost,
            flows_lost,
        } = listing;
        let sweep = SweepInput {
            listed_at,
            jiffies,
            hz: hertz,
            lost: Lost {
                events: events_lost,
                flows: flows_lost,
            },
            flows_v4: v4,
            flows_v6: v6,
            denials,
        };
        if input.send(PipelineInput::Sweep(sweep)).await.is_err() {
            return;
        }
    }
}

/// Flows in numbers that memory has grown with.
#[derive(Debug, Default)]
struct Flood {
    /// Most that were listed since memory was given back last.
    most: usize,
    /// Listings in a row of far fewer.
    ebb: u8,
}

impl Flood {
    /// Below this, what could be given back is not worth it.
    const SMALL: usize = 50_000;

    /// Until those who remember flows have forgotten them, which they do by two listings.
    const EBB: u8 = 4;

    /// Whether to give back memory, after a listing of `flows`.
    fn has_ended(&mut self, flows: usize) -> bool {
        self.most = self.most.max(flows);
        if self.most < Self::SMALL || flows > self.most / 4 {
            self.ebb = 0;
            return false;
        }
        self.ebb += 1;
        let has_ended = self.ebb >= Self::EBB;
        if has_ended {
            *self = Self::default();
        }
        has_ended
    }
}

/// What is to be done with the flow tables.
#[derive(Debug)]
enum Work {
    List,
    Remove(Vec<Removal>),
}

impl Work {
    /// Returns a listing and when it was begun, if one was asked for and made.
    fn run(self, tables: &mut Tables) -> Option<(BootTime, Listing)> {
        match self {
            Self::List => {
                let listed_at = BootTime::now();
                let listing = tables.list().inspect_err(|error| {
                    tracing::error!(error = format!("{error:#}"), "cannot list the flows");
                });
                Some((listed_at, listing.ok()?))
            }
            Self::Remove(removals) => {
                for removal in removals {
                    remove(tables, removal);
                }
                None
            }
        }
    }
}

fn remove(tables: &mut Tables, removal: Removal) {
    let Removal {
        key,
        opened,
        last_seen,
    } = removal;
    match key {
        Key::V4(key) => tables.remove_v4(key, opened, last_seen),
        Key::V6(key) => tables.remove_v6(key, opened, last_seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_each_flood() {
        let mut flood = Flood::default();
        let mut has_ended = |listed: &[usize]| -> Vec<bool> {
            listed.iter().map(|flows| flood.has_ended(*flows)).collect()
        };
        assert_eq!(has_ended(&[10, 0, 0, 0, 0]), [false; 5], "none has been");
        // It ebbs, and comes once more.
        let listed = [90_000, 20_000, 80_000, 9, 9, 9, 9, 9, 9, 9, 9];
        let ended: Vec<usize> = (0..)
            .zip(has_ended(&listed))
            .filter(|(_, ended)| *ended)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(ended, [6]);
    }
}
