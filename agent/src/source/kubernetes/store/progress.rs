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

/// How long a server has to grant the right to see a kind that some clusters do not have. Roles are made after the kinds
/// that they name, and a moment later than the agent's account.
const REFUSED: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WatchState {
    /// Nothing is known of it yet.
    #[default]
    Starting,
    /// The server has no such kind.
    Absent,
    /// It may not be seen, and was never: the agent goes without it.
    Forbidden,
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
    /// Since when it refuses to tell of it.
    refused: Option<Instant>,
    /// Objects come as a list has them, and not in the order of their changes.
    is_listing: bool,
}

impl Progress {
    pub(super) fn heard(&mut self) {
        self.heard = Some(Instant::now());
        self.error = None;
        self.gone = None;
        self.refused = None;
    }

    /// Of a kind that some clusters do not have. Whether it is given up now.
    pub(super) fn forbidden(&mut self, error: String, now: Instant) -> bool {
        self.error = Some(error);
        let since = *self.refused.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= REFUSED;
        let is_given_up = is_over && self.state == WatchState::Starting;
        if is_given_up {
            self.state = WatchState::Forbidden;
        }
        is_given_up
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
            refused: _,
            is_listing: _,
        } = self;
        WatchStatus {
            kind: kind.name().to_owned(),
            state: match state {
                WatchState::Starting => "starting",
                WatchState::Absent => "absent",
                WatchState::Forbidden => "forbidden",
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
    /// All there is of a kind is being told, in no order.
    pub(crate) fn lists(&self, kind: Kind) {
        let mut inner = self.lock();
        inner.progress(kind).lists();
        inner.is_revised = true;
    }

    /// All there is of a kind has been told.
    pub(crate) fn listed(&self, kind: Kind, seen: &BTreeSet<Key>) {
        let mut inner = self.lock();
        inner.heard(kind);
        inner.retain(kind, |key| seen.contains(key));
        inner.progress(kind).listed();
        inner.is_revised = true;
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

    /// The agent may not see a kind. One that every cluster has is waited for; without another, the rest is enforced
    /// after a while: nobody uses it, or what it says is missing until the right is there, and that is shown.
    pub(crate) fn forbidden(&self, kind: Kind, error: String) {
        let mut inner = self.lock();
        // A server that says so of all kinds does not know better for now.
        let mut others = inner.progress.iter();
        let knows_others = others.all(|(kind, of)| kind.may_be_absent() || of.is_known());
        let is_given_up = if kind.may_be_absent() && knows_others {
            let progress = inner.progress(kind);
            progress.forbidden(error, Instant::now())
        } else {
            inner.progress(kind).failed(error);
            false
        };
        drop(inner);
        if is_given_up {
            tracing::error!(
                "{} are not enforced: the agent may not see them",
                kind.plural()
            );
            self.tell();
        }
    }

    /// Something was heard from the server, be it that nothing has happened.
    pub(crate) fn heard(&self, kind: Kind) {
        self.lock().heard(kind);
    }

    /// Whether there is a state of the API that can be enforced: all of it as it is now, or as it was kept.
    pub(crate) fn is_ready(&self) -> bool {
        let mut inner = self.lock();
        inner.was_kept || inner.is_complete() || (inner.is_held() && !inner.in_force.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_may_not_be_seen_is_waited_for_and_given_up_if_it_never_was() {
        let now = Instant::now();
        let refused = |progress: &mut Progress, at| progress.forbidden("no".to_owned(), at);
        let mut never = Progress::default();
        assert!(!refused(&mut never, now));
        assert!(!never.is_known());
        assert!(refused(&mut never, now + REFUSED));
        assert!(never.is_known());
        assert_eq!(never.error(), Some("no"));
        assert!(!refused(&mut never, now + 2 * REFUSED));
        let shown = never.status(Kind::ClusterNetworkPolicy, 0, now);
        assert_eq!(shown.state, "forbidden");

        // What was seen once stays.
        let mut once = Progress::default();
        once.heard();
        once.listed();
        assert!(!refused(&mut once, now) && !refused(&mut once, now + REFUSED));
        assert_eq!(once.status(Kind::Workload, 0, now).state, "listed");
    }

    #[test]
    fn a_kind_that_every_cluster_has_is_never_given_up() {
        let store = Store::new("n1".to_owned());
        for kind in Kind::ALL.into_iter().filter(|kind| kind.may_be_absent()) {
            store.listed(kind, &BTreeSet::new());
        }
        store.forbidden(Kind::Pod, "no".to_owned());
        assert!(!store.is_ready());
        assert_eq!(store.missing().len(), 5);
        assert!(store.missing().contains(&"pods: no".to_owned()));
    }
}
