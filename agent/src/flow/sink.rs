//! Records as JSON lines to a file or to standard output.
//!
//! A sink has its own queue and its own thread: a slow disk slows nobody. What does not fit is shed
//! and counted, updates first; what cannot be written is counted, and a loss record stands in the
//! stream where writing works again.

mod output;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::mpsc, task::JoinHandle};

use self::writer::Writer;
use super::{
    record::{Kind, Line},
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

/// The entrance of a sink.
#[derive(Debug)]
pub(crate) struct Sink {
    queue: mpsc::Sender<Arc<Line>>,
    shared: Arc<Shared>,
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
        target: Target,
        node: Arc<str>,
        queue: usize,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel(queue.max(4));
        let shared = Arc::new(Shared::default());
        let writer = Writer::open(target, node, Arc::clone(&shared))?;
        let task = tokio::task::spawn_blocking(move || writer.run(receiver));
        Ok((
            Self {
                queue: sender,
                shared,
            },
            task,
        ))
    }

    pub(crate) fn counts(&self) -> SinkCounts {
        SinkCounts(Arc::clone(&self.shared))
    }

    /// Queues a line, or sheds it. Never waits.
    pub(crate) fn offer(&self, line: &Arc<Line>) {
        let kind = match &**line {
            Line::Flow(record) => Some(record.kind),
            Line::Loss(_) | Line::Tampering(_) => None,
        };
        if kind.is_some() {
            self.shared.stage.seen(1);
        }
        // The last quarter of the queue is kept for what cannot be made up for: the next update
        // of a flow has all that its last one had, but a denial comes once.
        let reserve = self.queue.max_capacity() / 4;
        let is_crowded = kind == Some(Kind::Update) && self.queue.capacity() <= reserve;
        if is_crowded || self.queue.try_send(Arc::clone(line)).is_err() {
            if let Some(kind) = kind {
                self.shared.stage.lost(kind);
            }
            self.shared.shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl SinkCounts {
    pub(crate) fn get(&self) -> StageCounts {
        self.0.stage.counts()
    }
}

#[cfg(test)]
mod tests;
