//! When the agent may begin to enforce what the Kubernetes API says.

use std::{sync::Arc, time::Duration};

use super::watch::Triggers;
use crate::source::kubernetes::{Following, Source, store::Store};

/// How long files wait for the API, and between two lines in the log.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks, beside changes that are told of.
const LOOK: Duration = Duration::from_millis(50);

/// Follows the API from now on, and waits for what can be enforced of it; for nothing if it is not asked.
pub(super) async fn follow(
    source: Option<Source>,
    triggers: &Triggers,
    files_alone: bool,
) -> Option<(Arc<Store>, Following)> {
    let source = source?;
    let store = source.store();
    let woken = triggers.clone();
    store.on_change(move || woken.hint());
    let following = source.follow();
    known(&store, files_alone).await;
    Some((store, following))
}

/// Waits for a state of the API to enforce: a world of which half is missing permits what is denied, and denies
/// what is permitted. What hangs in the kernel goes on enforcing meanwhile.
///
/// Files alone are enforced after a while, where nothing hangs in the kernel that they would take off.
async fn known(store: &Store, files_alone: bool) {
    let mut begun = tokio::time::Instant::now();
    while !store.is_ready() {
        if begun.elapsed() >= PATIENCE {
            let missing = store.missing().join("; ");
            if files_alone {
                tracing::warn!(
                    missing,
                    "files are enforced alone: the Kubernetes API has not told all"
                );
                return;
            }
            tracing::warn!(
                missing,
                "nothing is changed until the Kubernetes API has told all; what was in force still is"
            );
            begun = tokio::time::Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}
