//! Names that vanish from the folder.

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::mpsc;

use crate::datapath::bpffs::BpfDir;

/// Tells of links and maps that lose their names, by inotify. A folder that is removed and made again
/// is watched no more: whoever depends on it looks now and then.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` where inotify could not be had.
    _watcher: Option<RecommendedWatcher>,
    hints: mpsc::Receiver<()>,
}

impl Watch {
    pub(crate) fn new(dir: &BpfDir) -> Self {
        // One hint is as good as many: whoever reads it looks at everything.
        let (sender, hints) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = event.is_ok_and(|event| {
                matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                )
            });
            if matters && let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                tracing::trace!("a name vanished after the watch ended");
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            for folder in [dir.links(), dir.maps()] {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        Self {
            _watcher: watcher
                .inspect_err(|error| tracing::warn!(%error, "no inotify for the pins"))
                .ok(),
            hints,
        }
    }

    /// Waits until names have vanished; for ever where nothing tells. Cancelling loses nothing.
    pub(crate) async fn changed(&mut self) {
        if self.hints.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
