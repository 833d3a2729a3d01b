//! Files that follow one another: each as large, or as old, as it may be; packed; and the oldest removed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender},
    thread,
    time::{Duration, SystemTime},
};

use flate2::{Compression as Level, write::GzEncoder};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Prints as what gives the same settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rotation {
    /// Bytes of a file; one batch of lines is never parted.
    pub(crate) rotate_bytes: u64,
    /// Age of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_seconds: Option<u64>,
    /// Bytes of all files but the one that is written to, as they are packed.
    pub(crate) keep_bytes: u64,
    pub(crate) compress: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    None,
    Gzip,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            rotate_bytes: 100 << 20,
            rotate_seconds: None,
            keep_bytes: 500 << 20,
            compress: Compression::Gzip,
        }
    }
}

/// Moves a file aside when its time has come, and has a thread of its own look after those before it.
#[derive(Debug)]
pub(super) struct Rotator {
    rotation: Rotation,
    path: PathBuf,
    tidy: SyncSender<()>,
}

impl Rotator {
    /// # Errors
    ///
    /// If there can be no thread.
    pub(super) fn start(rotation: Rotation, path: PathBuf) -> io::Result<Self> {
        let (tidy, told) = mpsc::sync_channel(1);
        let of = path.clone();
        thread::Builder::new()
            .name("rotated-files".to_owned())
            .spawn(move || {
                // Also what an agent has left half done that ended meanwhile.
                tidy_up(&of, rotation);
                while told.recv().is_ok() {
                    tidy_up(&of, rotation);
                }
            })?;
        Ok(Self {
            rotation,
            path,
            tidy,
        })
    }

    /// Whether `more` bytes belong into the next file.
    pub(super) fn is_due(&self, file: &File, more: usize) -> bool {
        let Ok(metadata) = file.metadata() else {
            return false;
        };
        let size = metadata.len();
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let is_large = size.saturating_add(more) > self.rotation.rotate_bytes;
        let is_old = self.rotation.rotate_seconds.is_some_and(|most| {
            let begun = metadata.created().or_else(|_| metadata.modified());
            // Of a clock that was set back nobody knows.
            let age = begun
                .ok()
                .and_then(|begun| SystemTime::now().duration_since(begun).ok());
            age.is_some_and(|age| age >= Duration::from_secs(most))
        });
        size > 0 && metadata.is_file() && (is_large || is_old)
    }

    /// Moves it aside, whole and on disk.
    pub(super) fn rotate(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        let stem = format!("{}", now.strftime("%Y%m%dT%H%M%S"));
        let mut number = 0;
        let aside = loop {
            let aside = with_suffix(&self.path, &format!(".{stem}.{number:03}"));
            if !aside.exists() && !with_suffix(&aside, PACKED).exists() {
                break aside;
            }
            number += 1;
        };
        fs::rename(&self.path, aside)?;
        // One look is enough for all that have come meanwhile.
        let _is_told = self.tidy.try_send(()).is_ok();
        Ok(())
    }
}

const PACKED: &str = ".gz";
const DRAFT: &str = ".gz.new";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// What follows the file's own name in the name of one that was moved aside.
fn suffix_of<'n>(name: &'n OsStr, own: &OsStr) -> Option<&'n str> {
    let rest = name
        .to_str()?
        .strip_prefix(own.to_str()?)?
        .strip_prefix('.')?;
    let (stem, rest) = rest.split_once('.')?;
    let digits =
        |text: &str, number| text.len() == number && text.bytes().all(|it| it.is_ascii_digit());
    let (day, time) = stem.split_once('T')?;
    let (number, kind) = rest.split_at_checked(3)?;
    let is_ours = digits(day, 8) && digits(time, 6) && digits(number, 3);
    is_ours.then_some(kind)
}

/// Those that were moved aside, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let own = path.file_name().unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(kind) = suffix_of(&name, own) {
            found.push((folder.join(&name), kind.to_owned()));
        }
    }
    found.sort();
    Ok(found)
}

fn tidy_up(path: &Path, rotation: Rotation) {
    if let Err(error) = tidy(path, rotation) {
        warn!(path = %path.display(), %error, "files of flow records that were moved aside are not looked after");
    }
}

fn tidy(path: &Path, rotation: Rotation) -> io::Result<()> {
    let found = rotated(path)?;
    for (file, _) in found.iter().filter(|(_, kind)| kind == DRAFT) {
        fs::remove_file(file)?;
    }
    let plain = found.iter().filter(|(_, kind)| kind.is_empty());
    for (file, _) in plain.filter(|_| rotation.compress == Compression::Gzip) {
        pack(file)?;
    }
    let mut kept: Vec<(PathBuf, u64)> = Vec::new();
    for (file, _) in rotated(path)? {
        let bytes = fs::metadata(&file)?.len();
        kept.push((file, bytes));
    }
    let mut sum: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
    for (file, bytes) in kept {
        if sum <= rotation.keep_bytes {
            break;
        }
        fs::remove_file(file)?;
        sum -= bytes;
    }
    Ok(())
}

/// Whole or not at all: under another name, until it is on disk.
fn pack(file: &Path) -> io::Result<()> {
    let draft = with_suffix(file, DRAFT);
    let packed = (|| {
        let mut from = BufReader::new(File::open(file)?);
        let out = BufWriter::new(File::create(&draft)?);
        let mut packer = GzEncoder::new(out, Level::fast());
        io::copy(&mut from, &mut packer)?;
        let out = packer.finish()?.into_inner()?;
        out.sync_all()?;
        fs::rename(&draft, with_suffix(file, PACKED))?;
        fs::remove_file(file)
    })();
    if packed.is_err() {
        // Of a full disk, what was written takes room that others wait for.
        drop(fs::remove_file(&draft));
    }
    packed
}

#[cfg(test)]
mod tests;
