//! What a service manager is told: that policy is in force, and that the controller is at work.
//!
//! The protocol is that of `sd_notify(3)`. Without a manager that listens, nothing is sent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How often a watchdog wants to hear of the controller, and when it last did.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    /// `None`: nobody watches.
    every: Option<Duration>,
    last: Option<Instant>,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// What `WATCHDOG_USEC` asks for, in halves, so that one may come late.
    pub(crate) fn from_environment() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            last: None,
        }
    }

    /// To be called by whom the watchdog is about, more often than it wants to hear.
    pub(crate) fn beat(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            self.last = Some(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The longest that it may be waited for something else.
    pub(crate) fn patience(&self, longest: Duration) -> Duration {
        self.every.map_or(longest, |every| longest.min(every / 2))
    }
}

/// Policy is in force: what has waited for it may start.
pub(crate) fn ready(summary: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(summary)]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A manager that cannot be told restarts what it takes for hung; that is no reason to stop before.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_looks_up_often_enough_to_be_heard() {
        let watched = |limit| Heartbeat {
            every: limit,
            last: None,
        };
        let longest = Duration::from_millis(200);
        assert_eq!(watched(None).patience(longest), longest);
        let every = Some(Duration::from_secs(15));
        assert_eq!(watched(every).patience(longest), longest);
        let every = Some(Duration::from_millis(100));
        assert_eq!(watched(every).patience(longest), Duration::from_millis(50));
    }
}
