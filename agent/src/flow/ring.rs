//! The last records in memory, and those to come, for whoever asks: at the control socket, and by Hubble's API.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::record::Line;

/// How many lines are kept, unless told otherwise.
pub(crate) const DEFAULT_LINES: usize = 4096;

/// How far a follower may fall behind before it loses lines; it is told how many.
const FOLLOWER_LAG: usize = 4096;

/// Lines that a follower takes at once: it has what it took, however far it falls behind.
const AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) struct Ring {
    lines: Mutex<Lines>,
    capacity: usize,
    /// Wakes followers: once for all lines that come together.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Lines {
    /// For those who come, and for followers who are behind.
    kept: VecDeque<Arc<Line>>,
    /// How many there have been: the place in the stream of the one that comes next.
    count: u64,
    flows: FlowSums,
}

/// Of the lines, those that tell of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowSums {
    /// In memory.
    pub(crate) kept: u64,
    /// Since the agent began.
    pub(crate) seen: u64,
}

/// Reads on from where it is.
#[derive(Debug)]
pub(crate) struct Follower {
    ring: Arc<Ring>,
    /// How many lines it has read, or lost.
    read: u64,
    news: watch::Receiver<()>,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            lines: Mutex::default(),
            capacity,
            news: watch::Sender::default(),
        }
    }

    pub(crate) fn push(&self, new: &[Arc<Line>]) {
        let mut lines = self.lock();
        for line in new {
            if lines.kept.len() >= self.capacity.max(FOLLOWER_LAG) {
                let gone = lines.kept.pop_front();
                lines.flows.kept -= gone.map_or(0, |gone| flows(&gone));
            }
            lines.flows.kept += flows(line);
            lines.flows.seen += flows(line);
            lines.kept.push_back(Arc::clone(line));
            lines.count += 1;
        }
        drop(lines);
        self.news.send_replace(());
    }

    /// All lines that are kept, and a reader of every line after them.
    pub(crate) fn follow(self: &Arc<Self>) -> (Vec<Arc<Line>>, Follower) {
        let lines = self.lock();
        let beyond = lines.kept.len().saturating_sub(self.capacity);
        let follower = Follower {
            ring: Arc::clone(self),
            read: lines.count,
            news: self.news.subscribe(),
        };
        (lines.kept.iter().skip(beyond).cloned().collect(), follower)
    }

    /// How many lines are kept for those who come.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn flows(&self) -> FlowSums {
        let FlowSums { kept, seen } = self.lock().flows;
        // What is kept for followers alone is not told to those who come.
        let kept = kept.min(self.capacity as u64);
        FlowSums { kept, seen }
    }

    /// The places of the lines that are kept, counted from the agent's first line.
    pub(crate) fn places(&self) -> Range<u64> {
        let lines = self.lock();
        let kept = lines.kept.len().min(self.capacity);
        lines.count - kept as u64..lines.count
    }

    /// Those lines of a range of places that are still there, the oldest first.
    pub(crate) fn slice(&self, places: Range<u64>) -> Vec<Arc<Line>> {
        let lines = self.lock();
        let first = lines.count - lines.kept.len() as u64;
        let skipped = places.start.saturating_sub(first);
        let wanted = places.end.saturating_sub(places.start.max(first));
        let number = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
        let kept = lines.kept.iter().skip(number(skipped));
        kept.take(number(wanted)).cloned().collect()
    }

    /// A reader from a place on. It has lost what is not there any more.
    pub(crate) fn follow_from(self: &Arc<Self>, place: u64) -> Follower {
        Follower {
            ring: Arc::clone(self),
            read: place,
            news: self.news.subscribe(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A panic elsewhere leaves whole lines behind: the queue is never half changed.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many flows a line tells of.
fn flows(line: &Line) -> u64 {
    line.flow().is_some().into()
}

impl Follower {
    /// The place of the line that it reads next.
    pub(crate) fn place(&self) -> u64 {
        self.read
    }

    /// Waits for lines, and adds some of them to `lines`; how many it has lost before these.
    pub(crate) async fn read(&mut self, lines: &mut Vec<Arc<Line>>) -> u64 {
        loop {
            // What comes from here on is news, and what came before is read now.
            self.news.borrow_and_update();
            let lost = self.take(lines);
            // The sender is part of the ring, and cannot be gone.
            if !lines.is_empty() || lost > 0 || self.news.changed().await.is_err() {
                return lost;
            }
        }
    }

    /// As [`Self::read`], with what is there: it may be nothing.
    pub(crate) fn take(&mut self, lines: &mut Vec<Arc<Line>>) -> u64 {
        let all = self.ring.lock();
        let behind = all.count.saturating_sub(self.read);
        let kept = all.kept.len();
        let known = usize::try_from(behind).unwrap_or(usize::MAX).min(kept);
        let before = lines.len();
        lines.extend(all.kept.iter().skip(kept - known).take(AT_ONCE).cloned());
        let lost = behind - known as u64;
        self.read += lost + (lines.len() - before) as u64;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{
        clock::WallTime,
        record::{Loss, LossRecord},
    };

    fn line(number: u64) -> Arc<Line> {
        let loss = Loss {
            stage: "sink".into(),
            reason: "full".into(),
            count: number,
            first: WallTime(0),
            last: WallTime(0),
        };
        Arc::new(Line::Loss(LossRecord::new("node-1".into(), None, loss)))
    }

    fn number(line: &Line) -> u64 {
        match line {
            Line::Loss(record) => record.loss.count,
            Line::Flow(_) | Line::Tampering(_) => 0,
        }
    }

    #[tokio::test]
    async fn a_follower_reads_each_line_once_and_knows_how_many_it_lost() {
        let ring = Arc::new(Ring::new(2));
        let lag = FOLLOWER_LAG as u64;
        ring.push(&[line(1), line(2), line(3)]);
        let (kept, mut follower) = ring.follow();
        assert_eq!(
            kept.iter().map(|line| number(line)).collect::<Vec<_>>(),
            [2, 3]
        );

        ring.push(&[line(4)]);
        ring.push(&[line(5)]);
        let mut lines = Vec::new();
        assert_eq!(follower.read(&mut lines).await, 0);
        assert_eq!(
            lines.iter().map(|line| number(line)).collect::<Vec<_>>(),
            [4, 5]
        );

        for number in 6..6 + lag + 7 {
            ring.push(&[line(number)]);
        }
        let (mut lost, mut next) = (0, 13);
        while next < 6 + lag + 7 {
            lines.clear();
            lost += follower.read(&mut lines).await;
            for line in &lines {
                assert_eq!(number(line), next);
                next += 1;
            }
        }
        assert_eq!(lost, 7);
    }

    #[test]
    fn lines_are_found_by_their_places() {
        let ring = Arc::new(Ring::new(2));
        assert_eq!(ring.places(), 0..0);
        ring.push(&[line(1), line(2), line(3)]);
        assert_eq!(ring.places(), 1..3);
        let at = |places| -> Vec<u64> {
            let lines = ring.slice(places);
            lines.iter().map(|line| number(line)).collect()
        };
        assert_eq!(at(1..2), [2]);
        assert_eq!(at(2..9), [3]);
        assert!(at(5..9).is_empty());
        assert_eq!(ring.flows(), FlowSums::default(), "a loss is no flow");
        for number in 4..4 + FOLLOWER_LAG as u64 {
            ring.push(&[line(number)]);
        }
        assert_eq!(at(0..4), [4], "of those that are still there");

        let mut follower = ring.follow_from(1);
        let mut lines = Vec::new();
        assert_eq!(follower.take(&mut lines), 2);
        assert_eq!(lines.first().map(|line| number(line)), Some(4));
        assert_eq!(follower.place(), 3 + AT_ONCE as u64);
    }

    #[tokio::test]
    async fn a_follower_is_woken_by_what_comes() {
        let ring = Arc::new(Ring::new(2));
        let (_, mut follower) = ring.follow();
        let reader = tokio::spawn(async move {
            let mut lines = Vec::new();
            follower.read(&mut lines).await;
            lines.len()
        });
        tokio::task::yield_now().await;
        ring.push(&[line(1)]);
        assert_eq!(reader.await.unwrap(), 1);
    }
}
