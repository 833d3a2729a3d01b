//! How far the watch of a kind is.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{Inner, Store};
use crate::{
    control::status::WatchStatus,
    source::kubernetes::kind::{Key, Kind},
};

/// How long a server has to say that a kind is no more.
const GONE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WatchState {
    /// Nothing is known of it yet.
    #[default]
    Starting,
    /// The server has no such kind.
    Absent,
    /// Followed since all of it was listed.
    Listed,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    state: WatchState,
    heard: Option<Instant>,
    /// Since something was heard last.
    error: Option<String>,
    /// Since when the server says that there is no such kind.
    gone: Option<Instant>,
}

impl Progress {
    pub(super) fn heard(&mut self) {
        self.heard = Some(Instant::now());
        self.error = None;
        self.gone = None;
    }

    /// Asked each time that the server says so.
    pub(super) fn is_gone_for_long(&mut self) -> bool {
        self.error = Some("the server has no such kind (404)".to_owned());
        self.gone.get_or_insert_with(Instant::now).elapsed() >= GONE
    }

    pub(super) fn listed(&mut self) {
        self.gone = None;
        self.state = WatchState::Listed;
    }

    pub(super) fn absent(&mut self) {
        self.heard();
        self.state = WatchState::Absent;
    }

    pub(super) fn failed(&mut self, error: String) {
        self.error = Some(error);
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether it is known what there is of the kind.
    pub(super) fn is_known(&self) -> bool {
        self.state != WatchState::Starting
    }

    pub(super) fn status(&self, kind: Kind, objects: usize, now: Instant) -> WatchStatus {
        let Self {
            state,
            heard,
            error,
            gone: _,
        } = self;
        WatchStatus {
            kind: kind.name().to_owned(),
            state: match state {
                WatchState::Starting => "starting",
                WatchState::Absent => "absent",
                WatchState::Listed => "listed",
            }
            .to_owned(),
            objects,
            heard_s: heard.map(|at| now.saturating_duration_since(at).as_secs()),
            error: error.clone(),
        }
    }
}

impl Store {
    /// All there is of a kind has been told.
    pub(crate) fn listed(&self, kind: Kind, seen: &BTreeSet<Key>) {
        let mut inner = self.lock();
        inner.heard(kind);
        inner.retain(kind, |key| seen.contains(key));
        inner.progress(kind).listed();
        drop(inner);
        self.tell();
    }

    /// The server says that there is no such kind. What was there of it stays for a while: a server that has just
    /// started may not know its kinds yet.
    ///
    /// Whether it is taken for absent now.
    pub(crate) fn absent(&self, kind: Kind) -> bool {
        let mut inner = self.lock();
        let has_objects = inner.objects.keys().any(|key| key.kind == kind);
        if has_objects && !inner.progress(kind).is_gone_for_long() {
            return false;
        }
        inner.retain(kind, |_| false);
        inner.progress(kind).absent();
        drop(inner);
        self.tell();
        true
    }

    /// The watch of a kind is disturbed.
    pub(crate) fn failed(&self, kind: Kind, error: String) {
        self.lock().progress(kind).failed(error);
    }

    /// Something was heard from the server, be it that nothing has happened.
    pub(crate) fn heard(&self, kind: Kind) {
        self.lock().heard(kind);
    }

    /// Whether there is a state of the API that can be enforced: all of it as it is now, or as it was kept.
    pub(crate) fn is_ready(&self) -> bool {
        let inner = self.lock();
        inner.was_kept || inner.is_complete()
    }

    /// Kinds that have not been listed yet, and why.
    pub(crate) fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        let missing = inner.progress.iter().filter(|(_, of)| !of.is_known());
        missing
            .map(|(kind, progress)| match progress.error() {
                Some(error) => format!("{}: {error}", kind.plural()),
                None => format!("{}: no answer yet", kind.plural()),
            })
            .collect()
    }
}

impl Inner {
    pub(super) fn progress(&mut self, kind: Kind) -> &mut Progress {
        self.progress.entry(kind).or_default()
    }

    pub(super) fn heard(&mut self, kind: Kind) {
        self.progress(kind).heard();
    }

    pub(super) fn is_complete(&self) -> bool {
        self.progress.values().all(Progress::is_known)
    }
}
