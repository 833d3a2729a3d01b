//! The file behind a sink, which may be moved, deleted or full at any time.

use std::{
    fmt,
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::Target;

/// Writes whole batches or nothing, as far as the file lets it.
#[derive(Debug)]
pub(super) struct Output {
    target: Target,
    file: Option<File>,
}

impl Output {
    /// # Errors
    ///
    /// The file cannot be opened: a mistake that is better told at the start than in a log.
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let file = match &target {
            Target::Stdout => None,
            Target::File(path) => Some(open(path)?),
        };
        Ok(Self { target, file })
    }

    /// Writes `batch`; on failure the file is cut back to whole lines and opened anew next time.
    pub(super) fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match &self.target {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(batch)?;
                stdout.flush()
            }
            Target::File(path) => {
                let file = match self.file.take().filter(|file| is_at(file, path)) {
                    Some(file) => file,
                    None => open(path)?,
                };
                write_whole(&file, batch)?;
                self.file = Some(file);
                Ok(())
            }
        }
    }
}

impl Target {
    /// `-` is standard output.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "-" {
            Self::Stdout
        } else {
            Self::File(PathBuf::from(text))
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A file that was deleted or renamed takes lines happily, and nobody reads them.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}

fn write_whole(mut file: &File, batch: &[u8]) -> io::Result<()> {
    let before = file.metadata()?;
    let result = file.write_all(batch);
    if result.is_err() && before.is_file() {
        // A full disk takes half a line. If even this fails, a reader meets one broken line.
        drop(file.set_len(before.len()));
    }
    result
}
