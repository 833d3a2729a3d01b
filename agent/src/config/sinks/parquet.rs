//! Files of Parquet, as settings ask for them.

use std::{
    collections::BTreeSet,
    path::{Component, PathBuf},
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Reader;
use crate::flow::sink::parquet::{IS_BUILT, NOT_BUILT, ParquetSettings};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawParquet {
    folder: Spanned<PathBuf>,
    rows: Option<Spanned<u64>>,
    seconds: Option<Spanned<u64>>,
    keep_bytes: Option<Spanned<u64>>,
}

/// Fewer in a file would be more of its frame than of records.
const FEWEST_ROWS: u64 = 1000;
/// Beyond, what an agent that is killed has not finished would be much.
const MOST_ROWS: u64 = 10_000_000;

const SHORTEST: u64 = 10;
const LONGEST: u64 = 3600;

/// Less would keep no more than a file or two.
const SMALLEST: u64 = 64 << 20;

impl Reader {
    /// `taken` are those of other sinks.
    pub(super) fn parquet(
        &mut self,
        raw: RawParquet,
        taken: &mut BTreeSet<PathBuf>,
    ) -> ParquetSettings {
        let RawParquet {
            folder,
            rows,
            seconds,
            keep_bytes,
        } = raw;
        if !IS_BUILT {
            let expected = format!("another destination: {NOT_BUILT}");
            self.refuse(&folder.referenced, "sinks.parquet", "parquet", &expected);
        }
        let is_above = |part| part == Component::ParentDir;
        if !folder.value.is_absolute() || folder.value.components().any(is_above) {
            let seen = folder.value.display().to_string();
            let expected = "the path of a folder, from the root on, without `..`";
            self.refuse(&folder.referenced, "sinks.parquet.folder", &seen, expected);
        } else if !taken.insert(folder.value.clone()) {
            let seen = folder.value.display().to_string();
            let expected = "a folder that no other sink writes";
            self.refuse(&folder.referenced, "sinks.parquet.folder", &seen, expected);
        }
        let default = ParquetSettings::to(folder.value);
        let rows = self.within(rows, FEWEST_ROWS, MOST_ROWS, "sinks.parquet.rows");
        let keep_bytes = self.within(keep_bytes, SMALLEST, u64::MAX, "sinks.parquet.keep_bytes");
        let seconds = self.within(seconds, SHORTEST, LONGEST, "sinks.parquet.seconds");
        ParquetSettings {
            rows: rows.unwrap_or(default.rows),
            seconds: seconds.unwrap_or(default.seconds),
            keep_bytes: keep_bytes.unwrap_or(default.keep_bytes),
            folder: default.folder,
        }
    }

    fn within(
        &mut self,
        written: Option<Spanned<u64>>,
        least: u64,
        most: u64,
        setting: &'static str,
    ) -> Option<u64> {
        let written = written?;
        if !(least..=most).contains(&written.value) {
            let seen = written.value.to_string();
            let expected = format!("{least} to {most}");
            self.refuse(&written.referenced, setting, &seen, &expected);
        }
        Some(written.value)
    }
}
