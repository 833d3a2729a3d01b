//! Hints that files may have changed, by inotify on them and on the folders that they are in.
//!
//! A hint is a reason to look, and nothing else: what has changed is for the look to find, and who is
//! given no hint looks now and then all the same. So nothing depends on a watch that sticks to a folder
//! that was replaced, on a queue that overflowed, or on a file system that tells nothing.

use std::{collections::BTreeMap, path::PathBuf};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::sync::mpsc;

/// What is watched, by path, each with its device and inode: what was replaced has lost its watch.
pub(crate) type Places = BTreeMap<PathBuf, (u64, u64)>;

#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` where inotify could not be had.
    watcher: Option<RecommendedWatcher>,
    places: Places,
    hints: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new() -> Self {
        // One hint is as good as many: whoever reads it looks at everything.
        let (sender, hints) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = event.is_ok_and(|event| is_whole(event.kind));
            if matters && let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                tracing::trace!("a file changed after the watch ended");
            }
        });
        Self {
            watcher: watcher
                .inspect_err(|error| tracing::warn!(%error, "no inotify for files"))
                .ok(),
            places: Places::new(),
            hints,
        }
    }

    /// Watches these from now on, and no others.
    pub(crate) fn set(&mut self, places: Places) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for (path, identity) in &self.places {
            if places.get(path) != Some(identity)
                && let Err(error) = watcher.unwatch(path)
            {
                tracing::trace!(%error, "it was not watched any more");
            }
        }
        for (path, identity) in &places {
            if self.places.get(path) != Some(identity)
                && let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive)
            {
                tracing::debug!(%error, path = %path.display(), "changes are found by looking");
            }
        }
        self.places = places;
    }

    /// Waits for a hint; for ever where nothing tells. Cancelling loses nothing.
    pub(crate) async fn changed(&mut self) {
        if self.hints.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether a file is complete after this. One that is being written is not to be read: half of it may
/// be a policy, too, and another one.
fn is_whole(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_)
        | EventKind::Create(CreateKind::Folder) => true,
        // A file is made empty; and inotify does not tell it from a link.
        EventKind::Create(_)
        | EventKind::Any
        | EventKind::Access(_)
        | EventKind::Modify(_)
        | EventKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

    use super::*;

    /// Much longer than a hint takes, on a machine that is busy.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn places(paths: &[&Path]) -> Places {
        let of = |path: &&Path| {
            let metadata = fs::metadata(path).unwrap();
            (path.to_path_buf(), (metadata.dev(), metadata.ino()))
        };
        paths.iter().map(of).collect()
    }

    async fn hinted(watch: &mut Watch) {
        let hint = tokio::time::timeout(PATIENCE, watch.changed()).await;
        hint.expect("a hint");
    }

    #[tokio::test]
    async fn what_is_written_renamed_or_removed_is_hinted_at() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("policies");
        fs::create_dir(&folder).unwrap();
        let mut watch = Watch::new();
        watch.set(places(&[&folder]));

        fs::write(folder.join("a.yaml"), "one").unwrap();
        hinted(&mut watch).await;
        fs::write(parent.path().join("draft"), "two").unwrap();
        fs::rename(parent.path().join("draft"), folder.join("a.yaml")).unwrap();
        hinted(&mut watch).await;
        fs::remove_file(folder.join("a.yaml")).unwrap();
        hinted(&mut watch).await;
        // As a mounted ConfigMap changes.
        std::os::unix::fs::symlink("nowhere", folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        hinted(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_by_its_own_name_that_is_replaced_is_hinted_at() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.yaml"), "one").unwrap();
        let mut watch = Watch::new();
        watch.set(places(&[&at("a.yaml")]));
        for text in ["two", "three"] {
            fs::write(at("draft"), text).unwrap();
            fs::rename(at("draft"), at("a.yaml")).unwrap();
            hinted(&mut watch).await;
            watch.set(places(&[&at("a.yaml")]));
            while watch.hints.try_recv().is_ok() {}
        }
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("policies");
        fs::create_dir(&folder).unwrap();
        let mut watch = Watch::new();
        watch.set(places(&[&folder]));
        fs::rename(&folder, parent.path().join("old")).unwrap();
        fs::create_dir(&folder).unwrap();
        watch.set(places(&[&folder]));
        // What is left of the time before.
        while watch.hints.try_recv().is_ok() {}
        fs::write(folder.join("a.yaml"), "one").unwrap();
        hinted(&mut watch).await;
    }

    #[test]
    fn what_is_being_written_is_none_of_it() {
        use notify::event::DataChange;
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for kind in [written, EventKind::Create(CreateKind::File)] {
            assert!(!is_whole(kind), "{kind:?}");
        }
    }
}
