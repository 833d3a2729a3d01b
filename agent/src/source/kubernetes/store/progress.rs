//! How far the watch of a kind is.

use std::time::{Duration, Instant};

use crate::{control::status::WatchStatus, source::kubernetes::kind::Kind};

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
    /// Objects come as a list has them, and not in the order of their changes.
    is_listing: bool,
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

    pub(super) fn lists(&mut self) {
        self.is_listing = true;
    }

    pub(super) fn is_listing(&self) -> bool {
        self.is_listing
    }

    pub(super) fn listed(&mut self) {
        self.is_listing = false;
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
            is_listing: _,
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
