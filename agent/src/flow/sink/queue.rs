//! Lines on their way to a writer's thread. Its lock is taken, and the writer woken, once for all that come together.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::flow::line::Written;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<Written>>,
    is_closed: bool,
}

/// Closes a queue when it is dropped.
#[derive(Debug)]
pub(super) struct Closing<'q>(pub(super) &'q Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let Self(queue) = self;
        queue.close();
    }
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// Takes the lines for which there is room; of each, `is_crowded_out` is asked with the room that is left, and
    /// `refused` is told of those that are not taken.
    pub(super) fn offer<'l>(
        &self,
        lines: impl Iterator<Item = &'l Arc<Written>>,
        is_crowded_out: impl Fn(&Written, usize) -> bool,
        refused: impl Fn(&Written),
    ) {
        let mut state = self.lock();
        for line in lines {
            let room = self.capacity.saturating_sub(state.lines.len());
            if state.is_closed || room == 0 || is_crowded_out(line, room) {
                refused(line);
            } else {
                state.lines.push_back(Arc::clone(line));
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for lines, and moves at most so many of them to `lines`. None come if there will be none any more.
    pub(super) fn take(&self, lines: &mut Vec<Arc<Written>>, most: usize) {
        let wait = |state: &mut State| state.lines.is_empty() && !state.is_closed;
        let mut state = self
            .changed
            .wait_while(self.lock(), wait)
            .unwrap_or_else(PoisonError::into_inner);
        let number = state.lines.len().min(most);
        lines.extend(state.lines.drain(..number));
        if state.lines.is_empty() {
            // After a flood.
            state.lines.shrink_to(most);
        }
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole lines behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
