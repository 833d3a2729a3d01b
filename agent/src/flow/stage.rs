//! Counters of each stage: `seen = exported + lost`, for the stream and for every sink.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use super::record::Kind;

/// Counts of a stage as it runs. Each stands alone; they may be read at any time.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    seen: AtomicU64,
    exported: AtomicU64,
    lost: [AtomicU64; Kind::ALL.len()],
    left_out: AtomicU64,
}

/// The counts of a stage at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageCounts {
    pub(crate) seen: u64,
    pub(crate) exported: u64,
    pub(crate) lost: u64,
    /// Losses by kind of record; kinds without losses are left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) lost_by_kind: BTreeMap<String, u64>,
    /// Records that the settings of a sink leave out; they are none of those seen.
    #[serde(skip_serializing_if = "is_none", default)]
    pub(crate) left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Stage {
    pub(crate) fn seen(&self, count: u64) {
        self.seen.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn left_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, kind: Kind, count: u64) {
        if let Some(counter) = self.lost.get(kind as usize) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> StageCounts {
        // Losses and exports first: each was seen before, so the sum never exceeds what was seen.
        let mut lost_by_kind = BTreeMap::new();
        let mut lost = 0;
        for (kind, counter) in Kind::ALL.iter().zip(&self.lost) {
            let count = counter.load(Ordering::Relaxed);
            lost += count;
            if count > 0 {
                lost_by_kind.insert(kind.name().to_owned(), count);
            }
        }
        let exported = self.exported.load(Ordering::Relaxed);
        let seen = self.seen.load(Ordering::Relaxed);
        StageCounts {
            seen,
            exported,
            lost,
            lost_by_kind,
            left_out: self.left_out.load(Ordering::Relaxed),
        }
    }
}
