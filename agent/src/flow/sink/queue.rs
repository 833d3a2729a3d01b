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
    /// What was taken out again leaves its place empty.
    lines: VecDeque<Option<Arc<Line>>>,
    waiting: usize,
    /// Before it, none can wait.
    searched: usize,
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

impl State {
    fn push(&mut self, line: &Arc<Line>) {
        self.lines.push_back(Some(Arc::clone(line)));
        self.waiting += 1;
    }

    /// Moves the first ones, at most so many.
    fn pop(&mut self, lines: &mut Vec<Arc<Line>>, most: usize) {
        let mut left = most.min(self.waiting);
        while left > 0 {
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            self.searched = self.searched.saturating_sub(1);
            if let Some(line) = line {
                lines.push(line);
                left -= 1;
                self.waiting -= 1;
            }
        }
        if self.waiting == 0 {
            self.lines.clear();
            self.searched = 0;
        }
    }

    /// The first that can wait. What was looked at is not looked at again, so that a flood is searched once.
    fn take_one(&mut self, can_wait: impl Fn(&Line) -> bool) -> Option<Arc<Line>> {
        while let Some(place) = self.lines.get_mut(self.searched) {
            self.searched += 1;
            if let Some(line) = place.take_if(|line| can_wait(line)) {
                self.waiting -= 1;
                return Some(line);
            }
        }
        None
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

    /// Takes the lines for which there is room, and tells `shed` of the others. Those that `can_wait` find none in the last
    /// `reserve` of it, and when all is full they make room for those that cannot.
    pub(super) fn offer<'l>(
        &self,
        lines: impl Iterator<Item = &'l Arc<Line>>,
        reserve: usize,
        can_wait: impl Fn(&Line) -> bool,
        shed: impl Fn(&Line),
    ) {
        let mut state = self.lock();
        for line in lines {
            let room = self.capacity.saturating_sub(state.waiting);
            if state.closed.is_some() {
                shed(line);
            } else if can_wait(line) {
                if room > reserve {
                    state.push(line);
                } else {
                    shed(line);
                }
            } else if room > 0 {
                state.push(line);
            } else if let Some(other) = state.take_one(&can_wait) {
                shed(&other);
                state.push(line);
            } else {
                shed(line);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for lines, no longer than `patience`, and moves at most so many of them to `lines`. False if there are none,
    /// and will be none any more.
    pub(super) fn take(&self, lines: &mut Vec<Arc<Line>>, most: usize, patience: Duration) -> bool {
        let wait = |state: &mut State| state.waiting == 0 && state.closed.is_none();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, wait)
            .unwrap_or_else(PoisonError::into_inner);
        let before = lines.len();
        state.pop(lines, most);
        if state.lines.is_empty() {
            // After a flood.
            state.lines.shrink_to(most);
        }
        lines.len() > before || state.closed.is_none()
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
