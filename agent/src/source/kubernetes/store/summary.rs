//! What is in force of the API's policies, as the agent tells it in the API.

use std::{mem, sync::Arc};

use super::{Entry, Inner, Store};
use crate::source::kubernetes::{
    kind::{Key, Kind},
    object::Observed,
    report::{Digest, HELD, Held, Summary, Tally, Version, cut},
};

/// The version of an object that was heard of last, and the last good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    seen: Version,
    good: Option<Good>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Good {
    resource: String,
    digest: Digest,
}

/// What the kernel has, of policies that the API has told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) summary: Arc<Summary>,
    pub(crate) complete: bool,
    pub(crate) enforcing: bool,
    pub(crate) generation: u32,
    /// Why what was heard last did not come into force.
    pub(crate) refused: Option<String>,
}

impl Versions {
    pub(super) fn of(observed: &Observed) -> Option<Self> {
        let seen = observed.version.clone()?;
        let good = observed.errors.is_empty().then(|| Good {
            digest: Digest::of(&observed.uid, &seen.resource),
            resource: seen.resource.clone(),
        });
        Some(Self { seen, good })
    }

    /// The last good one stays, where this is none.
    pub(super) fn after(mut self, old: Option<Box<Self>>) -> Self {
        if self.good.is_none() {
            self.good = old.and_then(|old| old.good);
        }
        self
    }
}

impl Store {
    /// Says that the kernel has what was put together last.
    pub(crate) fn settle(&self, generation: u32, enforcing: bool) {
        let inner = self.lock();
        let standing = Standing {
            summary: Arc::clone(&inner.summary),
            complete: inner.is_complete(),
            enforcing,
            generation,
            refused: None,
        };
        drop(inner);
        self.stands(|old| *old = standing);
    }

    /// Says why the kernel does not.
    pub(crate) fn refuse(&self, why: &str) {
        self.stands(|old| old.refused = Some(cut(why)));
    }

    /// What the kernel has, and when it has something else.
    pub(crate) fn standing(&self) -> tokio::sync::watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn stands(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_if_modified(|standing| {
            let old = standing.clone();
            change(standing);
            old != *standing
        });
    }

    /// How many nodes there are, and the UID of this one, if the API has it.
    pub(crate) fn among_nodes(&self) -> (usize, Option<Arc<str>>) {
        let inner = self.lock();
        let of = Key {
            kind: Kind::Node,
            namespace: String::new(),
            name: inner.node.clone(),
        };
        let uid = inner.objects.get(&of).map(|entry| Arc::clone(&entry.uid));
        (inner.of_kind(Kind::Node).count(), uid)
    }

    /// Why nothing is told in the API of what is in force; `None` if it is.
    pub(crate) fn publishing(&self, trouble: Option<String>) {
        self.lock().publishing = trouble;
    }
}

impl Inner {
    /// Notes what the world that has just been put together has of policies.
    pub(super) fn summarize(&mut self) {
        if !mem::take(&mut self.is_revised) {
            return;
        }
        let mut summary = Summary::default();
        for kind in Kind::POLICIES {
            let tally = self.tally(kind, &mut summary);
            summary.kinds.push(tally);
        }
        self.summary = Arc::new(summary);
    }

    fn tally(&self, kind: Kind, summary: &mut Summary) -> Tally {
        let mut tally = Tally {
            kind: kind.name().to_owned(),
            ..Tally::default()
        };
        let mut highest = Some(0);
        for (key, entry) in self.of_kind(kind) {
            let Some(versions) = &entry.versions else {
                continue;
            };
            highest = highest
                .zip(versions.seen.number())
                .map(|(highest, seen)| highest.max(seen));
            let (in_force, wrong) = self.in_force_of(key, entry, versions);
            if let Some(good) = in_force {
                tally.objects += 1;
                tally.digest = tally.digest.with(good.digest);
            }
            let Some(message) = wrong else { continue };
            summary.errors += 1;
            if summary.held.len() < HELD {
                summary.held.push(Held {
                    object: key.to_string(),
                    resource_version: versions.seen.resource.clone(),
                    generation: versions.seen.generation,
                    in_force: in_force.map(|good| good.resource.clone()),
                    message: cut(message),
                });
            }
        }
        let in_order = self.progress.get(&kind).is_some_and(|of| !of.is_listing());
        tally.resource_version = highest
            .filter(|highest| in_order && *highest > 0)
            .map(|highest| highest.to_string());
        tally
    }

    /// Which version of it, and what keeps the last one from it.
    fn in_force_of<'s>(
        &'s self,
        key: &Key,
        entry: &'s Entry,
        versions: &'s Versions,
    ) -> (Option<&'s Good>, Option<&'s String>) {
        // One that a file declares, too, is in force as the file has it.
        let between = self.conflicts.get(key).and_then(|wrong| wrong.first());
        match between {
            Some(wrong) => (None, Some(wrong)),
            None => (versions.good.as_ref(), entry.errors.first()),
        }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        let first = Key {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        let from_there = self.objects.range(first..);
        from_there.take_while(move |(key, _)| key.kind == kind)
    }
}
