//! Names of files, and how much of them is kept.
//!
//! `FOLDER/date=YYYY-MM-DD/hour=HH/NODE-YYYYMMDDThhmmss-NNN.parquet`; a draft is `FOLDER/.NODE-YYYYMMDDThhmmss-NNN.parquet.new`.
//! Readers of Parquet leave out what begins with a dot, and patterns such as `**/*.parquet` what ends otherwise.

use std::{
    fs::{self, File, Metadata, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use tracing::warn;

use crate::flow::clock::WallTime;

/// Hours since the epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hour(i64);

/// A folder that is this agent's alone, as long as it runs.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked.
    handle: File,
}

/// Why a draft has not got its name.
#[derive(Debug)]
pub(super) enum Unpublished {
    NoFolder(io::Error),
    NotMoved(io::Error),
}

const KIND: &str = ".parquet";
const DRAFT: &str = ".parquet.new";

/// Names in one second.
const NUMBERS: u32 = 1000;

/// Of a node's name. Files have names of 255 bytes at most.
const LONGEST: usize = 100;

impl Folder {
    /// Also removes the drafts of an agent that was killed.
    ///
    /// # Errors
    ///
    /// It is not there, or somebody else writes there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let handle = lock(&path)?;
        let folder = Self { path, handle };
        folder.remove_drafts();
        Ok(folder)
    }

    /// A new draft, which is not to be found yet.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(super) fn draft(&mut self, node: &str) -> io::Result<(PathBuf, File)> {
        self.look()?;
        let stem = format!("{}-{}", word(node), second());
        for number in 0..NUMBERS {
            let path = self.path.join(format!(".{stem}-{number:03}{DRAFT}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return Ok((path, created?)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives a draft that is on disk its name, in the folder of its hour.
    ///
    /// # Errors
    ///
    /// It is still a draft then. If it is not found, somebody has moved it.
    pub(super) fn publish(&self, draft: &Path, hour: Hour) -> Result<(), Unpublished> {
        let [date, of_hour] = hour.folders();
        let date = self.path.join(date);
        let folder = date.join(of_hour);
        // The one above may have been a disk that was mounted there: it is not made anew.
        for folder in [&date, &folder] {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Unpublished::NoFolder(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        rename(draft, &folder).map_err(Unpublished::NotMoved)?;
        // It has its name; whether that survives a loss of power, a failure here leaves open.
        for folder in [&folder, &date, &self.path] {
            drop(File::open(folder).and_then(|it| it.sync_all()));
        }
        Ok(())
    }

    /// Removes the oldest files until the others have no more than so many bytes.
    pub(super) fn retain(&self, keep_bytes: u64) {
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "files of flow records are not looked after");
                return;
            }
        };
        let mut sum: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        // The last one stays, however large it is: it has just been counted as exported.
        let all_but_one = files.len().saturating_sub(1);
        for (file, bytes) in files.into_iter().take(all_but_one) {
            if sum <= keep_bytes {
                break;
            }
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(path = %file.display(), %error, "is not removed");
                }
                Ok(()) | Err(_) => sum -= bytes,
            }
            // Of its hour and its day, if they are empty now.
            for folder in file.ancestors().skip(1).take(2) {
                drop(fs::remove_dir(folder));
            }
        }
    }

    /// Those that have their names, the oldest first. What is of an hour to come is of a clock that was set back since, and
    /// older than all that it has named now.
    fn files(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let now = Hour::of(WallTime::now()).folders();
        let mut found = Vec::new();
        for (date, of_date) in below(&self.path, "date=")? {
            for (hour, folder) in below(&of_date, "hour=")? {
                let has_been =
                    [&date, &hour].map(String::as_str) <= [&now[0], &now[1]].map(String::as_str);
                for entry in fs::read_dir(&folder)? {
                    let entry = entry?;
                    let name = entry.file_name();
                    let is_ours = name.to_str().is_some_and(|name| is_own(name, KIND));
                    // One that somebody else removes meanwhile is not there.
                    let Ok(metadata) = entry.metadata() else {
                        continue;
                    };
                    if is_ours && metadata.is_file() {
                        found.push((has_been, entry.path(), metadata.len()));
                    }
                }
            }
        }
        found.sort();
        Ok(found
            .into_iter()
            .map(|(_, file, bytes)| (file, bytes))
            .collect())
    }

    /// It may have been removed, and made anew.
    fn look(&mut self) -> io::Result<()> {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        if identity(self.handle.metadata()?) != identity(fs::metadata(&self.path)?) {
            self.handle = lock(&self.path)?;
        }
        Ok(())
    }

    fn remove_drafts(&self) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix('.'));
            if name.is_some_and(|name| is_own(name, DRAFT)) {
                let path = entry.path();
                match fs::remove_file(&path) {
                    Ok(()) => {
                        warn!(path = %path.display(), "a file that was never finished is removed");
                    }
                    Err(error) => warn!(path = %path.display(), %error, "is not removed"),
                }
            }
        }
    }
}

/// Gives a draft the first name in `folder` that is free.
fn rename(draft: &Path, folder: &Path) -> io::Result<()> {
    let name = draft.file_name().unwrap_or_default().to_string_lossy();
    let own = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(DRAFT));
    let (stem, _) = own
        .and_then(|own| own.rsplit_once('-'))
        .ok_or(io::ErrorKind::InvalidFilename)?;
    let mut names = (0..NUMBERS).map(|number| folder.join(format!("{stem}-{number:03}{KIND}")));
    let path = names.find(|path| !path.exists());
    fs::rename(draft, path.ok_or(io::ErrorKind::AlreadyExists)?)
}

impl Hour {
    pub(super) fn of(time: WallTime) -> Self {
        Self(time.0.div_euclid(3_600_000_000_000))
    }

    /// Of its date, and in that its own.
    fn folders(self) -> [String; 2] {
        // All hours of 64 bits of nanoseconds are within the years that jiff knows.
        let begin = Timestamp::from_second(self.0.saturating_mul(3600)).unwrap_or_default();
        let begin = begin.to_zoned(TimeZone::UTC);
        ["date=%Y-%m-%d", "hour=%H"].map(|form| begin.strftime(form).to_string())
    }
}

/// Two that write and remove in one folder would be a loss of what is written.
fn lock(path: &Path) -> io::Result<File> {
    // Before it is opened: whoever opens a pipe, waits.
    if !fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another agent writes to this folder",
        )),
        // There are file systems without locks.
        Err(TryLockError::Error(error)) => {
            warn!(path = %path.display(), %error, "cannot be locked: nobody else may write there");
            Ok(folder)
        }
    }
}

/// Folders whose names begin so.
fn below(path: &Path, begin: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_str().map(str::to_owned);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some(name) = name.filter(|name| is_folder && name.starts_with(begin)) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Whether it is `NODE-YYYYMMDDThhmmss-NNN` and this ending.
fn is_own(name: &str, ending: &str) -> bool {
    let digits =
        |text: &str, number| text.len() == number && text.bytes().all(|it| it.is_ascii_digit());
    let parts = || {
        let (rest, number) = name.strip_suffix(ending)?.rsplit_once('-')?;
        let (node, second) = rest.rsplit_once('-')?;
        let (day, time) = second.split_once('T')?;
        Some((node, day, time, number))
    };
    parts().is_some_and(|(node, day, time, number)| {
        !node.is_empty() && digits(day, 8) && digits(time, 6) && digits(number, 3)
    })
}

fn second() -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    now.strftime("%Y%m%dT%H%M%S").to_string()
}

/// A name of a node is a name of a file, mostly; and readers leave out what begins with a dot or a line.
fn word(node: &str) -> String {
    let mut name: String = node
        .chars()
        .take(LONGEST)
        .map(|it| match it {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => it,
            _ => '_',
        })
        .collect();
    if !name.starts_with(|it: char| it.is_ascii_alphanumeric()) {
        name.insert_str(0, "node");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_are_made() {
        for node in [
            "a",
            "node-1.example",
            "",
            ".x",
            "_",
            "ä/b",
            &"n".repeat(300),
        ] {
            let name = format!("{}-{}-007{KIND}", word(node), second());
            assert!(is_own(&name, KIND) && name.len() < 255, "{name}");
            assert!(name.starts_with(|it: char| it.is_ascii_alphanumeric()));
        }
        for other in [
            "part-0.parquet",
            "a-20261130T102030-1.parquet",
            "-20261130T102030-001.parquet",
            "a-20261130T102030-001.parquet.new",
            "a-2026113éT102030-001.parquet",
        ] {
            assert!(!is_own(other, KIND), "{other}");
        }
    }

    #[test]
    fn an_hour_has_its_folders_at_both_ends_of_time() {
        let folders = |time| Hour::of(WallTime(time)).folders().join("/");
        assert_eq!(
            folders(1_700_000_000_000_000_007),
            "date=2023-11-14/hour=22"
        );
        assert_eq!(folders(-1), "date=1969-12-31/hour=23");
        assert_eq!(folders(i64::MIN), "date=1677-09-21/hour=00");
        assert_eq!(folders(i64::MAX), "date=2262-04-11/hour=23");
    }

    #[test]
    fn a_folder_is_one_agents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows");
        assert!(Folder::open(path.clone()).is_err(), "not there");
        fs::create_dir(&path).unwrap();
        let first = Folder::open(path.clone()).unwrap();
        let told = Folder::open(path.clone()).unwrap_err().to_string();
        assert!(told.contains("another agent"), "{told}");
        drop(first);
        Folder::open(path).unwrap();
    }
}
