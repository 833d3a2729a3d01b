//! The thread of a sink.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    Shared, SinkSettings, output,
    output::{Failure, Output, Settled},
    queue::{Closing, Queue},
    shape::Shape,
};
use crate::flow::{
    clock::WallTime,
    record::{Kind, Line, Loss, LossRecord},
};

/// Lines that are written at once.
const BATCH: usize = 256;

/// How long an output that is broken is left alone; what comes meanwhile is counted as lost.
const BROKEN: Duration = Duration::from_secs(1);

/// Between two attempts to reach a far end that is away: twice as long each time.
const SOONEST: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(10);

/// For lines that wait for a far end when the agent ends.
const LAST: Duration = Duration::from_secs(5);

const TICK: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    name: String,
    output: Box<dyn Output>,
    shape: Shape,
    node: Arc<str>,
    shared: Arc<Shared>,
    failed: Option<Failed>,
    /// Why lines were refused last.
    refusal: Option<String>,
    /// By reason.
    untold: BTreeMap<&'static str, Untold>,
    /// Lines shed at the entrance that the stream has been told of.
    shed_told: u64,
    shed_since: WallTime,
    ticked: Instant,
}

/// The output takes no lines.
struct Failed {
    at: Instant,
    why: String,
    lost: u64,
    /// Of an end that is away.
    attempts: u32,
    /// The agent ends.
    for_good: bool,
}

impl Default for Failed {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            why: String::new(),
            lost: 0,
            attempts: 0,
            for_good: false,
        }
    }
}

/// Lines lost here that the stream has not been told of.
struct Untold {
    first: WallTime,
    count: u64,
}

const WRITE_FAILED: &str = "write-failed";
const REFUSED: &str = "refused";

impl Writer {
    pub(super) fn open(
        settings: SinkSettings,
        node: Arc<str>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let SinkSettings {
            name,
            destination,
            choice,
            privacy,
        } = settings;
        let shape = Shape::new(choice, privacy)?;
        // What the writer and its output say themselves of it, such as loss records.
        let node = shape.node(node);
        Ok(Self {
            name,
            output: output::open(&destination, &node)?,
            node,
            shape,
            shared,
            failed: None,
            refusal: None,
            untold: BTreeMap::new(),
            shed_told: 0,
            shed_since: WallTime::now(),
            ticked: Instant::now(),
        })
    }

    pub(super) fn run(mut self, queue: &Queue) {
        // However this ends, what comes then is counted as lost.
        let _closed = Closing(queue);
        let mut lines = Vec::with_capacity(BATCH);
        while queue.take(&mut lines, BATCH, TICK) {
            if !lines.is_empty() {
                self.write(&lines, queue);
                lines.clear();
            }
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                let settled = self.output.tick();
                self.settle(settled);
                self.tell();
            }
        }
        self.tell();
        let settled = self.output.finish();
        self.settle(settled);
        if let Some(Failed { lost, .. }) = self.failed {
            warn!(sink = self.name, lost, "flow records were not written");
        }
    }

    fn write(&mut self, lines: &[Arc<Line>], queue: &Queue) {
        self.give_up_in_time(queue);
        if self.is_broken() {
            return self.lose(lines, WRITE_FAILED);
        }
        let mut tells_losses = true;
        loop {
            let now = WallTime::now();
            let shed = self.shared.shed.load(Ordering::Relaxed);
            let mut told = if tells_losses {
                self.losses(shed, now)
            } else {
                Vec::new()
            };
            let has_losses = !told.is_empty();
            told.extend(lines.iter().map(|line| self.shape.of(line)));
            match self.output.write(&told) {
                Ok(settled) => {
                    self.told(shed, now);
                    return self.settle(settled);
                }
                Err(Failure::Refused(error)) => {
                    self.refused(&error);
                    if !has_losses {
                        return self.lose(lines, REFUSED);
                    }
                    // Perhaps for what it was told of losses: that is told no more.
                    tells_losses = false;
                }
                Err(Failure::Broken(error)) => {
                    self.fail(&error);
                    return self.lose(lines, WRITE_FAILED);
                }
                Err(Failure::Away(error)) => {
                    self.fail(&error);
                    if !self.is_to_try_again(queue) {
                        return self.lose(lines, WRITE_FAILED);
                    }
                }
            }
        }
    }

    /// An agent that ends does not wait for one that takes its time.
    fn give_up_in_time(&mut self, queue: &Queue) {
        if queue.closed_for() >= LAST {
            let failed = self.failed.get_or_insert_default();
            failed.for_good = true;
        }
    }

    /// Tells of losses where no line comes that could bring them along.
    fn tell(&mut self) {
        let shed = self.shared.shed.load(Ordering::Relaxed);
        let has_news = !self.untold.is_empty() || shed > self.shed_told;
        if !has_news || self.is_broken() {
            return;
        }
        let now = WallTime::now();
        let told = self.losses(shed, now);
        match self.output.write(&told) {
            Ok(settled) => {
                self.told(shed, now);
                self.settle(settled);
            }
            Err(Failure::Refused(error)) => {
                self.refused(&error);
                self.told(shed, now);
            }
            Err(Failure::Broken(error)) => self.fail(&error),
            Err(Failure::Away(error)) => {
                self.fail(&error);
                self.is_away();
            }
        }
    }

    fn told(&mut self, shed: u64, now: WallTime) {
        (self.shed_told, self.shed_since) = (shed, now);
        self.untold.clear();
        if let Some(Failed { lost, .. }) = self.failed.take() {
            info!(sink = self.name, lost, "flow records flow again");
        }
    }

    /// Whether there is no point in trying.
    fn is_broken(&self) -> bool {
        self.failed.as_ref().is_some_and(|failed| {
            failed.for_good || failed.attempts == 0 && failed.at.elapsed() < BROKEN
        })
    }

    /// Says why once, and again if that changes.
    fn fail(&mut self, error: &anyhow::Error) {
        let failed = self.failed.get_or_insert_default();
        failed.at = Instant::now();
        let why = format!("{error:#}");
        if failed.why != why {
            warn!(sink = self.name, "flow records cannot be written: {why}");
            failed.why = why;
        }
    }

    /// What comes meanwhile waits, and is not lost.
    fn is_away(&mut self) {
        if let Some(failed) = &mut self.failed {
            failed.attempts = failed.attempts.max(1);
        }
    }

    /// As [`Self::fail`].
    fn refused(&mut self, error: &anyhow::Error) {
        let why = format!("{error:#}");
        if self.refusal.as_ref() != Some(&why) {
            warn!(sink = self.name, "flow records are refused: {why}");
            self.refusal = Some(why);
        }
    }

    /// Waits for the far end; when the agent ends, not for long.
    fn is_to_try_again(&mut self, queue: &Queue) -> bool {
        let Some(failed) = &mut self.failed else {
            return true;
        };
        let pause = SOONEST
            .saturating_mul(1 << failed.attempts.min(10))
            .min(LATEST);
        failed.attempts += 1;
        if queue.is_closed_within(pause) {
            failed.for_good = queue.closed_for() >= LAST;
            if !failed.for_good {
                std::thread::sleep(SOONEST);
            }
        }
        !failed.for_good
    }

    fn settle(&mut self, settled: Settled) {
        let Settled { exported, lost } = settled;
        self.shared.stage.exported(exported);
        let reason = self.output.late_loss();
        for (kind, count) in Kind::ALL.into_iter().zip(lost) {
            self.lost(kind, count, reason);
        }
    }

    fn lose(&mut self, lines: &[Arc<Line>], reason: &'static str) {
        for line in lines {
            match line.flow() {
                Some(flow) => self.lost(flow.kind, 1, reason),
                None => self.tell_later(1, reason),
            }
        }
    }

    fn lost(&mut self, kind: Kind, count: u64, reason: &'static str) {
        self.shared.stage.lost(kind, count);
        self.tell_later(count, reason);
    }

    fn tell_later(&mut self, count: u64, reason: &'static str) {
        if count == 0 {
            return;
        }
        if let Some(failed) = &mut self.failed {
            failed.lost += count;
        }
        let untold = self.untold.entry(reason).or_insert_with(|| Untold {
            first: WallTime::now(),
            count: 0,
        });
        untold.count += count;
    }

    /// What the stream has not been told of.
    fn losses<'l>(&self, shed: u64, now: WallTime) -> Vec<Cow<'l, Line>> {
        let untold = self.untold.iter();
        let untold = untold.map(|(reason, it)| (*reason, it.count, it.first));
        let shed = ("queue-full", shed - self.shed_told, self.shed_since);
        let all = untold.chain([shed].into_iter().filter(|(_, count, _)| *count > 0));
        all.map(|(reason, count, first)| {
            let (stage, reason) = (Cow::Borrowed("sink"), Cow::Borrowed(reason));
            let loss = Loss {
                stage,
                reason,
                count,
                // The clock may have been set back.
                first: first.min(now),
                last: now,
            };
            Cow::Owned(Line::Loss(LossRecord::new(
                Arc::clone(&self.node),
                None,
                loss,
            )))
        })
        .collect()
    }
}
