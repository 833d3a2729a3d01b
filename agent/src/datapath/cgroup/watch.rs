//! Cgroups that appear and vanish.
//!
//! By inotify on the folders in which they would, and by looking once a second anyway: a folder that
//! is made between the look and the watch is missed, the kernel's limit of watches is shared with
//! everybody, and removals that do not come through a system call are not told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::datapath::cgroup::{CgroupName, Hierarchy};

/// An endpoint whose cgroup appears is confined at most this late, whatever inotify misses.
const BACKSTOP: Duration = Duration::from_secs(1);

/// Watches any number of names.
#[derive(Debug)]
pub struct Watch {
    hierarchy: Hierarchy,
    /// What each name was last seen to mean.
    known: BTreeMap<CgroupName, Option<u64>>,
    /// Folders with a watch, and their inodes: one that was removed and made again has lost it.
    folders: BTreeMap<PathBuf, u64>,
    /// `None` where inotify could not be had: the backstop remains.
    watcher: Option<RecommendedWatcher>,
    hints: mpsc::Receiver<()>,
    backstop: Interval,
}

/// A name means another cgroup than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: CgroupName,
    /// The id of the cgroup; `None` if it is gone.
    pub now: Option<u64>,
}

impl Watch {
    /// Watches nothing yet. Needs a tokio runtime.
    pub fn new(hierarchy: Hierarchy) -> Self {
        // One hint is as good as many: whoever reads it looks at everything.
        let (sender, hints) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Each file that is read in a cgroup is an event too; only folders that come and go matter.
            let matters = event.is_ok_and(|event| {
                matches!(
                    event.kind,
                    EventKind::Create(_)
                        | EventKind::Remove(_)
                        | EventKind::Modify(notify::event::ModifyKind::Name(_))
                )
            });
            if matters && let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                tracing::trace!("a cgroup event after the watch ended");
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify: cgroups are looked for once a second");
            })
            .ok();
        let mut backstop = interval(BACKSTOP);
        backstop.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            hierarchy,
            known: BTreeMap::new(),
            folders: BTreeMap::new(),
            watcher,
            hints,
            backstop,
        }
    }

    /// Watches these names from now on. A new one that exists is told as a change.
    pub fn set(&mut self, names: impl IntoIterator<Item = CgroupName>) {
        let mut known = BTreeMap::new();
        for name in names {
            let was = self.known.get(&name).copied().flatten();
            known.insert(name, was);
        }
        self.known = known;
        self.backstop.reset_immediately();
    }

    /// Waits until at least one name means another cgroup than before.
    ///
    /// Cancelling loses nothing.
    pub async fn changed(&mut self) -> Vec<Change> {
        loop {
            tokio::select! {
                Some(()) = self.hints.recv() => {}
                _ = self.backstop.tick() => {}
            }
            let changes = self.look();
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    fn look(&mut self) -> Vec<Change> {
        // The watches first: what changes after them is told, what changed before is seen.
        self.watch_folders();
        let mut changes = Vec::new();
        for (name, known) in &mut self.known {
            let now = self.hierarchy.identify(name);
            if now != *known {
                *known = now;
                let name = name.clone();
                changes.push(Change { name, now });
            }
        }
        changes
    }

    fn watch_folders(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<_> = self
            .known
            .keys()
            .flat_map(|name| self.hierarchy.vantage(name))
            .collect();
        self.folders.retain(|folder, inode| {
            let stays = wanted.contains(folder) && inode_of(folder) == Some(*inode);
            if !stays && let Err(error) = watcher.unwatch(folder) {
                tracing::trace!(%error, folder = %folder.display(), "the watch went with its folder");
            }
            stays
        });
        for folder in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            let Some(inode) = inode_of(&folder) else {
                continue;
            };
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder, inode);
                }
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "not watched"),
            }
        }
    }
}

fn inode_of(folder: &PathBuf) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}
