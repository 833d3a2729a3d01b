//! The task that turns what the datapath hands over into the stream of records.

use std::{sync::Arc, time::Duration};

use agent_common::event::Event;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    clock::{BootTime, Clock},
    enrich::{Enricher, Inventories, Known},
    names::{Heard, Names},
    process::{Namer, Node},
    record::{Line, Tampering},
    report::{Removal, Report, SweepInput},
    ring::Ring,
    sink::Sink,
    stage::Stage,
    tracker::{Outcome, Tracker, TrackerCapacity},
    views::{OpinionCounts, PolicySets},
};
use crate::metrics::FlowCounts;

/// Lines that are passed on together: each time, somebody may have to be woken.
const LINES: usize = 256;

/// How long records wait for a change of who is who. Events have room in the kernel for more than twice as long, at
/// 100,000 a second.
const PATIENCE: Duration = Duration::from_millis(100);

/// Reports of which the room is kept for the next ones.
const REPORTS: usize = 4096;

/// From the datapath. Its channel is bounded: a pipeline that falls behind leaves events in the
/// kernel's ring buffer, which counts what it must drop.
#[derive(Debug)]
pub(crate) enum PipelineInput {
    Events(Vec<Event>),
    /// What was said before the events that follow.
    Heard(Vec<Heard>),
    Sweep(SweepInput),
    Tampering(Tampering),
}

/// What the pipeline is made of.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) node: Arc<str>,
    pub(crate) cluster: Option<Arc<str>>,
    /// When this agent began to read events; older flows are taken over.
    pub(crate) started: BootTime,
    pub(crate) capacity: TrackerCapacity,
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) sinks: Vec<Sink>,
    pub(crate) ring: Arc<Ring>,
    /// Records made, all of which reach the ring.
    pub(crate) stage: Arc<Stage>,
    /// Entries to take out of the kernel's tables. What finds no room is asked for again by the
    /// next sweep.
    pub(crate) removals: mpsc::Sender<Vec<Removal>>,
    pub(crate) sets: Box<dyn PolicySets>,
    pub(crate) opinions: Arc<OpinionCounts>,
    /// Of all records, for whoever asks for numbers alone.
    pub(crate) counts: Arc<FlowCounts>,
    /// What is asked for cgroups and files of processes.
    pub(crate) this_node: Box<dyn Node>,
    pub(crate) names: Names,
}

impl Pipeline {
    /// Runs until the datapath's end of the channel is dropped.
    pub(crate) async fn run(self, mut input: mpsc::Receiver<PipelineInput>) {
        let Self {
            node,
            cluster,
            started,
            capacity,
            mut known,
            sinks,
            ring,
            stage,
            removals,
            sets,
            opinions,
            counts,
            this_node,
            names,
        } = self;
        let mut tracker = Tracker::new(started, capacity);
        let namer = Namer::new(Clock::read(), this_node);
        let mut enricher = Enricher::new((node, cluster), sets, opinions, namer, names);
        let mut latest = Arc::clone(&known.borrow().inventory);
        let mut is_late = false;
        let mut inventories = Inventories::new(Arc::clone(&latest));
        let mut outcome = Outcome::default();
        let mut lines = Vec::with_capacity(LINES);
        while let Some(input) = input.recv().await {
            let clock = Clock::read();
            match input {
                PipelineInput::Events(events) => {
                    for event in &events {
                        tracker.event(event, clock, &mut outcome.reports);
                    }
                }
                PipelineInput::Heard(all) => all.iter().for_each(|heard| enricher.hear(heard)),
                PipelineInput::Sweep(sweep) => {
                    tracker.sweep(&sweep, clock, &mut outcome);
                    enricher.drop_ended(sweep.listed_at);
                }
                PipelineInput::Tampering(tampering) => {
                    outcome.reports.push(Report::Tampering(tampering));
                }
            }
            if !known.borrow().is_changing {
                is_late = false;
            } else if !is_late {
                // Once for each change. Whoever makes it may have gone, too.
                let settled = known.wait_for(|known| !known.is_changing);
                is_late = timeout(PATIENCE, settled).await.is_err();
            }
            let now = Arc::clone(&known.borrow().inventory);
            if !Arc::ptr_eq(&now, &latest) {
                enricher.forget(&now.gone_since(&latest));
                inventories.push(Arc::clone(&now));
                latest = now;
            }
            let mut reports = outcome.reports.drain(..);
            while !reports.as_slice().is_empty() {
                for report in reports.by_ref().take(LINES) {
                    let line = enricher.line(report, &inventories);
                    match &line {
                        Line::Flow(record) => counts.add(record),
                        Line::Loss(record) => counts.add_loss(&record.loss),
                        Line::Tampering(_) => {}
                    }
                    lines.push(Arc::new(line));
                }
                let records = lines.iter().filter(|line| line.flow().is_some()).count();
                stage.seen(records as u64);
                stage.exported(records as u64);
                ring.push(&lines);
                for sink in &sinks {
                    sink.offer(&lines);
                }
                lines.clear();
            }
            drop(reports);
            // A sweep may have had something to say of every flow.
            outcome.reports.shrink_to(REPORTS);
            if !outcome.removals.is_empty() {
                // Full: the next sweep asks again. Closed: the agent is ending.
                drop(removals.try_send(std::mem::take(&mut outcome.removals)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::{event::EventKind, process::Process, verdict::Reason};

    use super::*;
    use crate::flow::{process::NoNode, views::NoSets};

    #[tokio::test]
    async fn events_come_out_named_and_in_order() {
        let (_known, receiver) = watch::channel(Known::default());
        let (removals, _removed) = mpsc::channel(1);
        let ring = Arc::new(Ring::new(8));
        let stage = Arc::new(Stage::default());
        let pipeline = Pipeline {
            node: "node-1".into(),
            cluster: None,
            started: BootTime(0),
            capacity: TrackerCapacity { flows: 8 },
            known: receiver,
            sinks: Vec::new(),
            ring: Arc::clone(&ring),
            stage: Arc::clone(&stage),
            removals,
            sets: Box::new(NoSets),
            opinions: Arc::default(),
            counts: Arc::default(),
            this_node: Box::new(NoNode),
            names: Names::default(),
        };
        let event = |kind, time| Event {
            kind: kind as u8,
            reason: Reason::Rule as u8,
            direction: 1,
            protocol: 17,
            family: 4,
            origin: 0,
            tcp_flags: [0; 2],
            endpoint: 1,
            local_port: 5,
            remote_port: 53,
            rtt: 0,
            rule: 1,
            generation: 1,
            ifindex: 1,
            zero2: 0,
            time,
            opened: 10,
            local: [0; 16],
            remote: [0; 16],
            packets: [1, 0],
            bytes: [60, 0],
            process: Process::NOBODY,
        };
        let (sender, input) = mpsc::channel(1);
        let task = tokio::spawn(pipeline.run(input));
        let events = vec![event(EventKind::Open, 10), event(EventKind::Close, 20)];
        sender.send(PipelineInput::Events(events)).await.unwrap();
        drop(sender);
        task.await.unwrap();
        let kinds: Vec<_> = ring
            .follow()
            .0
            .iter()
            .map(|line| match &**line {
                Line::Flow(record) => (record.seq, record.kind.name()),
                Line::Loss(_) | Line::Tampering(_) => (0, "other"),
            })
            .collect();
        assert_eq!(kinds, [(1, "start"), (2, "end")]);
        assert_eq!((stage.counts().seen, stage.counts().exported), (2, 2));
    }
}
