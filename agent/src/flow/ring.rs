//! The last records in memory, and those to come, for whoever asks at the control socket.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use super::record::Line;

/// How many lines are kept, unless told otherwise.
pub(crate) const DEFAULT_LINES: usize = 4096;

/// How far a follower may fall behind before it loses lines; it is told how many.
const FOLLOWER_LAG: usize = 4096;

#[derive(Debug)]
pub(crate) struct Ring {
    lines: Mutex<VecDeque<Arc<Line>>>,
    capacity: usize,
    followers: broadcast::Sender<Arc<Line>>,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        let (followers, _) = broadcast::channel(FOLLOWER_LAG);
        Self {
            lines: Mutex::new(VecDeque::new()),
            capacity,
            followers,
        }
    }

    pub(crate) fn push(&self, line: &Arc<Line>) {
        let mut lines = self.lock();
        if lines.len() >= self.capacity {
            lines.pop_front();
        }
        lines.push_back(Arc::clone(line));
        // Under the lock, so that a new follower neither misses a line nor sees one twice. That
        // nobody follows is no error.
        drop(self.followers.send(Arc::clone(line)));
    }

    /// All lines that are kept, and a receiver of every line after them.
    pub(crate) fn follow(&self) -> (Vec<Arc<Line>>, broadcast::Receiver<Arc<Line>>) {
        let lines = self.lock();
        (lines.iter().cloned().collect(), self.followers.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Line>>> {
        // A panic elsewhere leaves whole lines behind: the queue is never half changed.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
