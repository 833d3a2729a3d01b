//! For collectors to which metrics are brought.

use std::{sync::Arc, time::Duration};

use prometheus_client::{encoding::text, registry::Registry};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::flow::sink::otlp::Push;

const EVERY: Duration = Duration::from_mins(1);
/// Where one could not be reached.
const AGAIN: Duration = Duration::from_secs(10);

/// Brings them again and again.
pub(crate) async fn bring(mut push: Push, registry: Arc<Registry>) {
    let mut is_failing = false;
    loop {
        let registry = Arc::clone(&registry);
        // It reads the kernel's tables, and waits for the collector.
        let pushed = spawn_blocking(move || {
            let mut out = String::new();
            let gathered = text::encode(&mut out, &registry);
            let pushed = gathered.map_err(Into::into).and_then(|()| push.push(&out));
            (push, pushed)
        });
        let Ok((back, pushed)) = pushed.await else {
            // The agent ends, or a bug has been told by its panic.
            return;
        };
        push = back;
        if let Err(error) = &pushed
            && !is_failing
        {
            warn!("metrics are not taken: {error:#}");
        } else if pushed.is_ok() && is_failing {
            info!("metrics are taken again");
        }
        is_failing = pushed.is_err();
        tokio::time::sleep(if is_failing { AGAIN } else { EVERY }).await;
    }
}
