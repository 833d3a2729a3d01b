//! The thread of a sink.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    Shared, SinkSettings, Target,
    choice::Choice,
    output::Output,
    queue::{Closing, Queue},
};
use crate::flow::{
    clock::WallTime,
    line::Written,
    record::{Line, Loss, LossRecord},
};

/// Lines that are written at once.
const BATCH: usize = 256;

/// How long a target that failed is left alone; what comes meanwhile is counted as lost.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    target: Target,
    output: Output,
    choice: Choice,
    node: Arc<str>,
    shared: Arc<Shared>,
    failed: Option<Failure>,
    /// Lines shed at the entrance that the stream has been told of.
    shed_told: u64,
    shed_since: WallTime,
}

/// The target does not take lines.
struct Failure {
    at: Instant,
    first: WallTime,
    count: u64,
}

impl Writer {
    pub(super) fn open(
        settings: SinkSettings,
        node: Arc<str>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let SinkSettings {
            target,
            rotation,
            choice,
        } = settings;
        let output = Output::open(target.clone(), rotation)?;
        let shed_since = WallTime::now();
        Ok(Self {
            target,
            output,
            choice,
            node,
            shared,
            failed: None,
            shed_told: 0,
            shed_since,
        })
    }

    pub(super) fn run(mut self, queue: &Queue) {
        // However this ends, what comes then is counted as lost.
        let _closed = Closing(queue);
        let mut lines = Vec::with_capacity(BATCH);
        let mut batch = Vec::new();
        loop {
            queue.take(&mut lines, BATCH);
            if lines.is_empty() {
                break;
            }
            self.write(&lines, &mut batch);
            lines.clear();
        }
        if let Some(failure) = &self.failed {
            warn!(output = %self.target, lost = failure.count, "flow records were not written");
        }
    }

    fn write(&mut self, lines: &[Arc<Written>], batch: &mut Vec<u8>) {
        if self
            .failed
            .as_ref()
            .is_some_and(|failure| failure.at.elapsed() < RETRY)
        {
            self.lose(lines);
            return;
        }
        let now = WallTime::now();
        let shed = self.shared.shed.load(Ordering::Relaxed);
        batch.clear();
        if let Some(Failure { first, count, .. }) = self.failed {
            self.loss("write-failed", count, first, now).write(batch);
        }
        if shed > self.shed_told {
            let count = shed - self.shed_told;
            self.loss("queue-full", count, self.shed_since, now)
                .write(batch);
        }
        for line in lines {
            match self.choice.sampling(line) {
                Some(one_in) => line.put_sampled(one_in, batch),
                None => batch.extend_from_slice(line.text()),
            }
        }
        match self.output.write(batch) {
            Ok(()) => {
                if let Some(failure) = self.failed.take() {
                    info!(output = %self.target, lost = failure.count, "flow records flow again");
                }
                (self.shed_told, self.shed_since) = (shed, now);
                let records = lines.iter().filter(|line| line.flow().is_some()).count();
                self.shared.stage.exported(records as u64);
            }
            Err(error) => {
                if self.failed.is_none() {
                    warn!(output = %self.target, %error, "flow records cannot be written");
                }
                let failure = self.failed.get_or_insert(Failure {
                    at: Instant::now(),
                    first: now,
                    count: 0,
                });
                failure.at = Instant::now();
                self.lose(lines);
            }
        }
    }

    fn lose(&mut self, lines: &[Arc<Written>]) {
        if let Some(failure) = &mut self.failed {
            failure.count += lines.len() as u64;
        }
        for line in lines {
            if let Some(flow) = line.flow() {
                self.shared.stage.lost(flow.kind);
            }
        }
    }

    fn loss(&self, reason: &'static str, count: u64, first: WallTime, last: WallTime) -> Line {
        let (stage, reason) = (Cow::Borrowed("sink"), Cow::Borrowed(reason));
        let loss = Loss {
            stage,
            reason,
            count,
            first,
            last,
        };
        Line::Loss(LossRecord::new(Arc::clone(&self.node), None, loss))
    }
}
