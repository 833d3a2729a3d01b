//! Records in files of Parquet, in folders by date and hour.
//!
//! A file is a draft until it is whole and on disk, under a name that no reader takes for one of Parquet; then it gets its
//! name. Rows are encoded in groups, each in memory first: what a full disk does not take is kept, and tried again.
//!
//! | module | holds |
//! |---|---|
//! | [`columns`] | the list of columns: name, place in the JSON, where its value comes from |
//! | [`rows`] | values of a group of rows, by column |
//! | [`draft`] | one file that is being written |
//! | [`folder`] | names, and how much is kept |
//! | [`tables`] | the way out: which draft a line goes to, and what has become of it |
//! | [`read`] | back to lines |
//!
//! All but the settings is there only with the feature `parquet`.

#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod draft;
#[cfg(feature = "parquet")]
mod folder;
#[cfg(feature = "parquet")]
mod read;
#[cfg(feature = "parquet")]
mod rows;
#[cfg(feature = "parquet")]
mod tables;
#[cfg(all(test, feature = "parquet"))]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::output::Output;
use crate::flow::record::Line;

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ParquetSettings {
    pub(crate) folder: PathBuf,
    /// Rows of a file, to a batch of lines.
    pub(crate) rows: u64,
    /// Age of a file.
    pub(crate) seconds: u64,
    /// Bytes of all files that have their names.
    pub(crate) keep_bytes: u64,
}

/// Whether this build can write and read files of Parquet.
pub(crate) const IS_BUILT: bool = cfg!(feature = "parquet");

/// Where it cannot.
pub(crate) const NOT_BUILT: &str =
    "this build has no Parquet: build with `cargo build --features parquet`";

impl ParquetSettings {
    pub(crate) fn to(folder: PathBuf) -> Self {
        Self {
            folder,
            rows: 1_000_000,
            seconds: 300,
            keep_bytes: 2 << 30,
        }
    }

    /// Stands for all files that are made.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("date=")
    }
}

/// # Errors
///
/// The folder is not there, or is another agent's.
#[cfg(feature = "parquet")]
pub(super) fn open(settings: &ParquetSettings) -> io::Result<Box<dyn Output>> {
    Ok(Box::new(tables::Tables::open(settings.clone())?))
}

#[cfg(not(feature = "parquet"))]
pub(super) fn open(_: &ParquetSettings) -> io::Result<Box<dyn Output>> {
    Err(io::Error::other(NOT_BUILT))
}

/// Lines of a file, in its order. Times are to the microsecond.
pub(crate) type Lines = Box<dyn Iterator<Item = anyhow::Result<Line>>>;

/// # Errors
///
/// It is no file of Parquet.
#[cfg(feature = "parquet")]
pub(crate) fn lines(path: &Path) -> anyhow::Result<Lines> {
    read::lines(path)
}

#[cfg(not(feature = "parquet"))]
pub(crate) fn lines(_: &Path) -> anyhow::Result<Lines> {
    anyhow::bail!(NOT_BUILT)
}

/// Writes all `lines` to files below `folder`, and returns how many.
///
/// # Errors
///
/// At the first line that cannot be read, or written; what was written until then stays.
#[cfg(feature = "parquet")]
pub(crate) fn convert(
    folder: PathBuf,
    lines: impl Iterator<Item = anyhow::Result<Line>>,
) -> anyhow::Result<u64> {
    tables::convert(folder, lines)
}

#[cfg(not(feature = "parquet"))]
pub(crate) fn convert(
    _: PathBuf,
    _: impl Iterator<Item = anyhow::Result<Line>>,
) -> anyhow::Result<u64> {
    anyhow::bail!(NOT_BUILT)
}
