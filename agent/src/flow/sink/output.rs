//! The file behind a sink, which may be moved, deleted or full at any time.

use std::{
    fmt,
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::{
    Target,
    rotation::{Rotation, Rotator},
};

/// Writes whole batches or nothing, as far as the file lets it.
#[derive(Debug)]
pub(super) struct Output {
    target: Target,
    file: Option<File>,
    rotator: Option<Rotator>,
}

impl Output {
    /// # Errors
    ///
    /// The file cannot be opened: a mistake that is better told at the start than in a log.
    pub(super) fn open(target: Target, rotation: Option<Rotation>) -> io::Result<Self> {
        let (mut file, mut rotator) = (None, None);
        if let Target::File(path) = &target {
            let opened = open(path)?;
            cut_back(path, &opened)?;
            file = Some(opened);
            let rotate = |rotation| Rotator::start(rotation, path.clone());
            rotator = rotation.map(rotate).transpose()?;
        }
        Ok(Self {
            target,
            file,
            rotator,
        })
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
                let rotator = self.rotator.as_ref();
                let rotator = rotator.filter(|rotator| rotator.is_due(&file, batch.len()));
                let file = match rotator {
                    Some(rotator) => {
                        rotator.rotate(&file)?;
                        open(path)?
                    }
                    None => file,
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

/// An agent that was killed may have left half a line.
fn cut_back(path: &Path, file: &File) -> io::Result<()> {
    const AT_ONCE: u64 = 1 << 16;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    let reader = File::open(path)?;
    let mut end = metadata.len();
    while end > 0 {
        let start = end.saturating_sub(AT_ONCE);
        let mut part = vec![0; usize::try_from(end - start).unwrap_or_default()];
        reader.read_exact_at(&mut part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + u64::try_from(at + 1).unwrap_or_default();
            break;
        }
        end = start;
    }
    if end < metadata.len() {
        file.set_len(end)?;
    }
    Ok(())
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
