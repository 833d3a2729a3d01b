//! Records as JSON lines to a file or to standard output.
//!
//! A sink has its own queue and its own thread: a slow disk slows nobody. What does not fit is shed
//! and counted, updates first; what cannot be written is counted, and a loss record stands in the
//! stream where writing works again.

pub(crate) mod choice;
mod output;
mod queue;
mod rotation;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinHandle;

pub(crate) use self::rotation::{Compression, Rotation};
use self::{choice::Choice, queue::Queue, writer::Writer};
use super::{
    line::Written,
    record::Kind,
    stage::{Stage, StageCounts},
};

/// Lines that may wait to be written.
pub(crate) const DEFAULT_QUEUE: usize = 65_536;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

/// What a sink is told to do.
#[derive(Clone, Debug)]
pub(crate) struct SinkSettings {
    pub(crate) target: Target,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) choice: Choice,
}

/// The entrance of a sink.
#[derive(Debug)]
pub(crate) struct Sink {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    choice: Arc<Choice>,
}

/// What entrance and writer both count.
#[derive(Debug, Default)]
struct Shared {
    stage: Stage,
    /// Lines shed at the entrance, loss records included.
    shed: AtomicU64,
}

/// Reads the counters of a sink that is running.
#[derive(Clone, Debug)]
pub(crate) struct SinkCounts(Arc<Shared>);

impl Sink {
    /// Starts the writer. It ends, with everything written, when the sink is dropped.
    ///
    /// # Errors
    ///
    /// The target cannot be opened. Later on that is survived, and counted.
    pub(crate) fn start(
        settings: SinkSettings,
        node: Arc<str>,
        queue: usize,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let queue = Arc::new(Queue::new(queue.max(4)));
        let shared = Arc::new(Shared::default());
        let choice = Arc::new(settings.choice.clone());
        let writer = Writer::open(settings, node, Arc::clone(&shared))?;
        let lines = Arc::clone(&queue);
        let task = tokio::task::spawn_blocking(move || writer.run(&lines));
        let sink = Self {
            queue,
            shared,
            choice,
        };
        Ok((sink, task))
    }

    pub(crate) fn counts(&self) -> SinkCounts {
        SinkCounts(Arc::clone(&self.shared))
    }

    /// Queues lines, or sheds them. Never waits.
    pub(crate) fn offer(&self, lines: &[Arc<Written>]) {
        let kind = |line: &Written| line.flow().map(|flow| flow.kind);
        let taken = lines.iter().filter(|line| self.choice.takes(line));
        let taken: Vec<&Arc<Written>> = taken.collect();
        let records = taken.iter().filter(|line| line.flow().is_some()).count();
        // What is about no flow is for every sink.
        let left_out = lines.len() - taken.len();
        self.shared.stage.left_out(left_out as u64);
        self.shared.stage.seen(records as u64);
        // The last quarter of the queue is kept for what cannot be made up for: the next update
        // of a flow has all that its last one had, but a denial comes once.
        let reserve = self.queue.capacity() / 4;
        self.queue.offer(
            taken.into_iter(),
            |line, room| kind(line) == Some(Kind::Update) && room <= reserve,
            |line| {
                if let Some(kind) = kind(line) {
                    self.shared.stage.lost(kind);
                }
                self.shared.shed.fetch_add(1, Ordering::Relaxed);
            },
        );
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl SinkCounts {
    pub(crate) fn get(&self) -> StageCounts {
        self.0.stage.counts()
    }
}

#[cfg(test)]
mod tests;
