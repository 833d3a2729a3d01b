//! Cgroups of pods that come, go, and get their first process or lose their last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::Notify;

use super::tree::EVENTS;

/// Wakes whoever waits when something happens in folders, or to files. What it misses is found by looking now and then.
#[derive(Debug)]
pub(super) struct Hints {
    /// `None` where inotify could not be had.
    watcher: Option<RecommendedWatcher>,
    /// With their inodes: one that was removed and made again has lost its watch.
    folders: BTreeMap<PathBuf, u64>,
    /// More has happened than the kernel has told of.
    has_missed: Arc<AtomicBool>,
}

impl Hints {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        let has_missed = Arc::new(AtomicBool::new(false));
        let missing = Arc::clone(&has_missed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if hear(event, &missing) {
                wake.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, "no inotify: pods are looked for now and then"),
            )
            .ok();
        Self {
            watcher,
            folders: BTreeMap::new(),
            has_missed,
        }
    }

    /// Whether since the last time something was missed: everything is to be looked at.
    pub(super) fn has_missed(&self) -> bool {
        self.has_missed.swap(false, Relaxed)
    }

    /// Watches these from now on; true if one of them was not watched before, and so may have changed unseen.
    pub(super) fn set(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        self.folders.retain(|folder, inode| {
            let stays = wanted.contains(folder) && inode_of(folder) == Some(*inode);
            if !stays && let Err(error) = watcher.unwatch(folder) {
                tracing::trace!(%error, folder = %folder.display(), "the watch went with its folder");
            }
            stays
        });
        let mut is_new = false;
        for folder in wanted {
            let Some(inode) = inode_of(folder) else {
                continue;
            };
            if self.folders.contains_key(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone(), inode);
                    is_new = true;
                }
                Err(error) => {
                    tracing::debug!(%error, folder = %folder.display(), "not watched");
                }
            }
        }
        is_new
    }
}

/// Whether it is a reason to look.
fn hear(event: notify::Result<Event>, has_missed: &AtomicBool) -> bool {
    match event {
        Ok(event) if event.need_rescan() => {
            // The kernel's queue was full.
            has_missed.store(true, Relaxed);
            true
        }
        Ok(event) => matters(&event),
        Err(error) => {
            tracing::debug!(%error, "an announcement of cgroups was lost");
            has_missed.store(true, Relaxed);
            true
        }
    }
}

/// Each file that is read in a cgroup is an event too.
fn matters(event: &Event) -> bool {
    match event.kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            true
        }
        EventKind::Modify(_) => event.paths.iter().any(|path| path.ends_with(EVENTS)),
        _ => false,
    }
}

fn inode_of(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use notify::event::Flag;

    use super::*;

    #[test]
    fn a_full_queue_has_everything_looked_at() {
        let has_missed = AtomicBool::new(false);
        let other = Event::new(EventKind::Other);
        assert!(!hear(Ok(other.clone()), &has_missed));
        assert!(!has_missed.load(Relaxed));
        assert!(hear(Ok(other.set_flag(Flag::Rescan)), &has_missed));
        assert!(has_missed.load(Relaxed));
    }
}
