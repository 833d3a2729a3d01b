//! Lines on their way to a writer's thread. Its lock is taken, and the writer woken, once for all that come together.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::flow::record::Line;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<Line>>,
    closed: Option<Instant>,
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
        lines: impl Iterator<Item = &'l Arc<Line>>,
        is_crowded_out: impl Fn(&Line, usize) -> bool,
        refused: impl Fn(&Line),
    ) {
        let mut state = self.lock();
        for line in lines {
            let room = self.capacity.saturating_sub(state.lines.len());
            if state.closed.is_some() || room == 0 || is_crowded_out(line, room) {
                refused(line);
            } else {
                state.lines.push_back(Arc::clone(line));
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for lines, no longer than `patience`, and moves at most so many of them to `lines`. False if there are none,
    /// and will be none any more.
    pub(super) fn take(&self, lines: &mut Vec<Arc<Line>>, most: usize, patience: Duration) -> bool {
        let wait = |state: &mut State| state.lines.is_empty() && state.closed.is_none();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, wait)
            .unwrap_or_else(PoisonError::into_inner);
        let number = state.lines.len().min(most);
        lines.extend(state.lines.drain(..number));
        if state.lines.is_empty() {
            // After a flood.
            state.lines.shrink_to(most);
        }
        number > 0 || state.closed.is_none()
    }

    /// Waits until it is closed, no longer than `patience`; whether it is.
    pub(super) fn is_closed_within(&self, patience: Duration) -> bool {
        let wait = |state: &mut State| state.closed.is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, wait)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed.is_some()
    }

    /// Zero if it is not.
    pub(super) fn closed_for(&self) -> Duration {
        self.lock()
            .closed
            .map(|at| at.elapsed())
            .unwrap_or_default()
    }

    pub(super) fn close(&self) {
        self.lock().closed.get_or_insert_with(Instant::now);
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
