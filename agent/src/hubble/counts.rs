//! How much clients of Hubble's API were told, and how much not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Each stands alone.
#[derive(Debug, Default)]
pub(crate) struct HubbleCounts {
    /// That are open now.
    streams: AtomicU64,
    refused: AtomicU64,
    told: AtomicU64,
    missed: AtomicU64,
}

/// As status shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HubbleStatus {
    /// Streams of flows that are open.
    pub(crate) streams: u64,
    /// Those for which there was no place.
    pub(crate) refused: u64,
    /// Flows told, to all clients together.
    pub(crate) told: u64,
    /// Lines of the ring that clients came too late for, likewise.
    pub(crate) missed: u64,
}

impl HubbleCounts {
    pub(crate) fn status(&self) -> HubbleStatus {
        HubbleStatus {
            streams: self.streams.load(Relaxed),
            refused: self.refused.load(Relaxed),
            told: self.told.load(Relaxed),
            missed: self.missed.load(Relaxed),
        }
    }

    pub(super) fn has_begun(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    pub(super) fn has_ended(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    pub(super) fn has_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn has_told(&self) {
        self.told.fetch_add(1, Relaxed);
    }

    pub(super) fn has_missed(&self, lines: u64) {
        self.missed.fetch_add(lines, Relaxed);
    }
}
