//! Records on their way out of the agent, to files and over the network.
//!
//! A sink has its own queue and its own thread: a slow disk, or a collector that is away, slows nobody. What does not fit
//! is shed and counted, updates first; what cannot be written is counted, and a loss record stands in the
//! stream where writing works again.
//!
//! | module | holds |
//! |---|---|
//! | [`choice`] | which records a sink is for |
//! | [`queue`], [`writer`] | its queue and its thread |
//! | [`shape`], [`privacy`] | what a record becomes for it |
//! | [`output`] | what all ways out have in common |
//! | [`mod@format`] | a line in the words of whoever reads it |
//! | [`mod@file`], [`rotation`] | lines in files |
//! | [`ipfix`] | messages to a collector |
//! | [`otlp`] | log records for a collector of OpenTelemetry |
//! | [`parquet`] | rows in files for analysts |
//! | [`remote`] | far ends, and who they are |
//! | [`syslog`] | messages of syslog |

pub(crate) mod choice;
mod file;
pub(crate) mod format;
pub(crate) mod ipfix;
pub(crate) mod otlp;
mod output;
pub(crate) mod parquet;
pub(crate) mod privacy;
mod queue;
pub(crate) mod remote;
mod rotation;
mod shape;
pub(crate) mod syslog;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use tokio::task::JoinHandle;

use self::{
    choice::Choice, parquet::ParquetSettings, privacy::Privacy, queue::Queue, remote::Tls,
    syslog::SyslogSettings, writer::Writer,
};
pub(crate) use self::{
    file::FileSettings,
    otlp::OtlpSettings,
    rotation::{Compression, Rotation},
};
use super::{
    record::{Kind, Line},
    stage::{Stage, StageCounts},
};

/// Lines that may wait to be written.
pub(crate) const DEFAULT_QUEUE: usize = 65_536;

/// Where lines go that a flag asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

/// Where records go, and as what. Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Destination {
    /// JSON lines in a file that is left as it is.
    #[serde(skip)]
    Plain(Target),
    File(FileSettings),
    Syslog(SyslogSettings),
    Ipfix(ipfix::IpfixSettings),
    Otlp(OtlpSettings),
    Parquet(ParquetSettings),
}

/// What a sink is told to do.
#[derive(Clone, Debug)]
pub(crate) struct SinkSettings {
    /// By which status and metrics show it.
    pub(crate) name: String,
    pub(crate) destination: Destination,
    pub(crate) choice: Choice,
    pub(crate) privacy: Privacy,
}

impl SinkSettings {
    /// Files that are written, and files that are read, again and again.
    pub(crate) fn paths(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut read = Vec::new();
        read.extend(self.privacy.key_file.clone());
        let written = match &self.destination {
            Destination::Plain(Target::Stdout) | Destination::Ipfix(_) => Vec::new(),
            Destination::Plain(Target::File(path)) => vec![path.clone()],
            Destination::File(file) => vec![file.path.clone()],
            Destination::Syslog(syslog) => {
                read.extend(syslog.tls.iter().flat_map(Tls::files));
                Vec::new()
            }
            Destination::Otlp(otlp) => {
                read.extend(otlp.files());
                Vec::new()
            }
            Destination::Parquet(settings) => vec![settings.file()],
        };
        (written, read)
    }
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
    /// The destination cannot be opened. Later on that is survived, and counted.
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
    pub(crate) fn offer(&self, lines: &[Arc<Line>]) {
        let kind = |line: &Line| line.flow().map(|flow| flow.kind);
        let can_wait = |line: &Line| {
            let flow = line.flow();
            flow.is_some_and(|flow| flow.kind == Kind::Update && flow.would_be.is_empty())
        };
        let taken = lines.iter().filter(|line| self.choice.takes(line));
        let taken: Vec<&Arc<Line>> = taken.collect();
        let records = taken.iter().filter(|line| line.flow().is_some()).count();
        // What is about no flow is for every sink.
        let left_out = lines.len() - taken.len();
        self.shared.stage.left_out(left_out as u64);
        self.shared.stage.seen(records as u64);
        // The last quarter of the queue is kept for what cannot be made up for, and all of it if need be: the next update
        // of a flow has all that its last one had, but a denial comes once.
        let reserve = self.queue.capacity() / 4;
        self.queue
            .offer(taken.into_iter(), reserve, can_wait, |line| {
                if let Some(kind) = kind(line) {
                    self.shared.stage.lost(kind, 1);
                }
                self.shared.shed.fetch_add(1, Ordering::Relaxed);
            });
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
