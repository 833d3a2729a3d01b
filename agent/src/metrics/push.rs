//! For collectors to which metrics are brought.

use std::{sync::Arc, time::Duration};

use prometheus_client::{encoding::text, registry::Registry};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::flow::sink::otlp::{Push, Pushed};

const EVERY: Duration = Duration::from_mins(1);
/// Where one could not be reached.
const AGAIN: Duration = Duration::from_secs(10);

/// The longest rest that a collector is given.
const REST: Duration = Duration::from_mins(1);

/// Brings them again and again.
pub(crate) async fn bring(mut push: Push, registry: Arc<Registry>) {
    let mut told = None;
    loop {
        let registry = Arc::clone(&registry);
        // It reads the kernel's tables, and waits for the collector.
        let pushed = spawn_blocking(move || {
            let mut out = String::new();
            let pushed = match text::encode(&mut out, &registry) {
                Ok(()) => push.push(&out),
                Err(error) => Pushed::Never(error.to_string()),
            };
            (push, pushed)
        });
        let Ok((back, pushed)) = pushed.await else {
            // The agent ends, or a bug has been told by its panic.
            return;
        };
        push = back;
        let (why, pause) = match pushed {
            Pushed::All => (None, EVERY),
            Pushed::Later { why, rest } => {
                (Some(why), AGAIN.max(rest.unwrap_or_default().min(REST)))
            }
            Pushed::Never(why) => (Some(why), EVERY),
        };
        match &why {
            // Once for each reason.
            Some(why) if told.as_ref() != Some(why) => warn!("metrics are not taken: {why}"),
            None if told.is_some() => info!("metrics are taken again"),
            Some(_) | None => {}
        }
        told = why;
        tokio::time::sleep(pause).await;
    }
}
