//! Namespaces that flows were of, lately.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::flow::{record::Line, ring::Follower};

/// How long one is told after its last flow.
const LATELY: Duration = Duration::from_hours(1);

/// More are not remembered until others are forgotten.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Namespaces(Mutex<BTreeMap<String, Instant>>);

impl Namespaces {
    /// Notes those of all lines that come, for ever.
    pub(super) async fn watch(&self, mut lines: Follower) {
        let mut read = Vec::new();
        loop {
            lines.read(&mut read).await;
            let now = Instant::now();
            for line in read.drain(..) {
                self.note(&line, now);
            }
        }
    }

    fn note(&self, line: &Line, now: Instant) {
        let Some(flow) = line.flow() else { return };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for namespace in flow.namespaces() {
            if namespace.is_empty() {
                continue;
            }
            if let Some(last) = seen.get_mut(namespace) {
                *last = now;
                continue;
            }
            if seen.len() >= MOST {
                seen.retain(|_, last| now.duration_since(*last) < LATELY);
            }
            if seen.len() < MOST {
                seen.insert(namespace.to_owned(), now);
            }
        }
    }

    /// In the order of their names.
    pub(super) fn lately(&self) -> Vec<String> {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, last| now.duration_since(*last) < LATELY);
        seen.keys().cloned().collect()
    }
}
