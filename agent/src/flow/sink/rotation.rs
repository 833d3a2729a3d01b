//! Files that follow one another: each as large, or as old, as it may be; packed; and the oldest removed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender},
    thread,
    time::{Duration, Instant, SystemTime},
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
    /// When it could not be moved aside: it is written to all the same.
    failed: Option<Instant>,
}

/// Until it is tried again.
const AGAIN: Duration = Duration::from_mins(1);

/// Names in one second.
const NUMBERS: u32 = 1000;

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
            failed: None,
        })
    }

    /// Moves the file aside if its time has come; `false` if it is to be written to further.
    pub(super) fn has_rotated(&mut self, file: &File, more: usize) -> bool {
        let rests = self.failed.is_some_and(|at| at.elapsed() < AGAIN);
        if rests || !self.is_due(file, more) {
            return false;
        }
        match self.rotate(file) {
            Ok(()) => {
                self.failed = None;
                true
            }
            Err(error) => {
                if self.failed.is_none() {
                    warn!(path = %self.path.display(), %error, "cannot be moved aside, and grows on");
                }
                self.failed = Some(Instant::now());
                false
            }
        }
    }

    /// A file could not be written: perhaps for want of the room that older ones take.
    pub(super) fn look(&self) {
        let _is_told = self.tidy.try_send(()).is_ok();
    }

    /// Whether `more` bytes belong into the next file.
    fn is_due(&self, file: &File, more: usize) -> bool {
        let Ok(metadata) = file.metadata() else {
            return false;
        };
        let size = metadata.len();
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let is_large = size.saturating_add(more) > self.rotation.rotate_bytes;
        let is_old = self.rotation.rotate_seconds.is_some_and(|most| {
            let begun = metadata.created().or_else(|_| metadata.modified());
            begun.is_ok_and(|begun| is_as_old(begun, SystemTime::now(), most))
        });
        size > 0 && metadata.is_file() && (is_large || is_old)
    }

    /// Moves it aside, whole and on disk.
    fn rotate(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        let stem = stem();
        let mut names = (0..NUMBERS).map(|number| format!(".{stem}.{number:03}"));
        let aside = names.find_map(|name| {
            let aside = with_suffix(&self.path, &name);
            let is_free = !aside.exists() && !with_suffix(&aside, PACKED).exists();
            is_free.then_some(aside)
        });
        fs::rename(&self.path, aside.ok_or(io::ErrorKind::AlreadyExists)?)?;
        // One look is enough for all that have come meanwhile.
        self.look();
        Ok(())
    }
}

/// How far ahead the clock of a file's server may be.
const AHEAD: Duration = Duration::from_mins(1);

/// Whether what has `begun` is `seconds` old. Of what begins far in the future, the clock was set back since: how old it is
/// nobody knows, and waiting for that clock could take for ever.
fn is_as_old(begun: SystemTime, now: SystemTime, seconds: u64) -> bool {
    match now.duration_since(begun) {
        Ok(age) => age >= Duration::from_secs(seconds),
        Err(ahead) => ahead.duration() > AHEAD,
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

/// Those that were moved aside, the oldest first. What has a time to come is of a clock that was set back since, and older
/// than all that it has named now.
fn rotated(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let own = path.file_name().unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("."));
    let now = with_suffix(path, &format!(".{}", stem()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if let Some(kind) = suffix_of(&name, own).filter(|_| is_file) {
            let file = folder.join(&name);
            // Those of this very second, with their numbers, are none of the future.
            let is_of_now = file
                .to_str()
                .zip(now.to_str())
                .is_some_and(|(file, now)| file.starts_with(now));
            let has_been = is_of_now || file < now;
            found.push((has_been, file, kind.to_owned()));
        }
    }
    found.sort();
    let found = found.into_iter();
    Ok(found.map(|(_, file, kind)| (file, kind)).collect())
}

fn stem() -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    now.strftime("%Y%m%dT%H%M%S").to_string()
}

/// What goes wrong with one file keeps nobody from the others, and what cannot be packed counts as it is.
fn tidy_up(path: &Path, rotation: Rotation) {
    let packed = pack_all(path, rotation);
    if let Err(error) = packed.and(retain(path, rotation.keep_bytes)) {
        warn!(path = %path.display(), %error, "files of flow records that were moved aside are not looked after");
    }
}

fn pack_all(path: &Path, rotation: Rotation) -> io::Result<()> {
    let found = rotated(path)?;
    for (file, _) in found.iter().filter(|(_, kind)| kind == DRAFT) {
        remove(file);
    }
    let plain = found.iter().filter(|(_, kind)| kind.is_empty());
    for (file, _) in plain.filter(|_| rotation.compress == Compression::Gzip) {
        if let Err(error) = pack(file) {
            warn!(path = %file.display(), %error, "is not packed");
        }
    }
    Ok(())
}

fn retain(path: &Path, keep_bytes: u64) -> io::Result<()> {
    let files = rotated(path)?.into_iter();
    let kept: Vec<(PathBuf, u64)> = files
        .filter_map(|(file, _)| {
            let bytes = fs::metadata(&file).ok()?.len();
            Some((file, bytes))
        })
        .collect();
    let mut sum: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
    for (file, bytes) in kept {
        if sum <= keep_bytes {
            break;
        }
        if remove(&file) {
            sum -= bytes;
        }
    }
    Ok(())
}

fn remove(file: &Path) -> bool {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %file.display(), %error, "is not removed");
            false
        }
        Ok(()) | Err(_) => true,
    }
}

/// Whole or not at all: under another name, until it is on disk.
fn pack(file: &Path) -> io::Result<()> {
    let draft = with_suffix(file, DRAFT);
    let packed = (|| {
        let from = File::open(file)?;
        // Whoever may read the one may read the other.
        let mode = from.metadata()?.mode() & 0o777;
        let out = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        let (mut from, out) = (BufReader::new(from), BufWriter::new(out));
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
