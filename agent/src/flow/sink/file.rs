//! Lines in a file, which may be moved, deleted or full at any time, or on standard output.

use std::{
    borrow::Cow,
    fmt,
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::{
    Target,
    format::Format,
    output::{Failure, Output, Settled},
    rotation::{Rotation, Rotator},
};
use crate::flow::record::Line;

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileSettings {
    pub(crate) path: PathBuf,
    #[serde(skip_serializing_if = "Format::is_default")]
    pub(crate) format: Format,
    #[serde(flatten)]
    pub(crate) rotation: Rotation,
}

/// Writes whole batches or nothing, as far as the file lets it.
#[derive(Debug)]
pub(super) struct Lines {
    target: Target,
    file: Option<File>,
    rotator: Option<Rotator>,
    format: Format,
    batch: Vec<u8>,
}

impl Output for Lines {
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        for line in lines {
            self.format.put(line, &mut batch);
        }
        let written = self.append(&batch);
        self.batch = batch;
        written.map_err(|error| Failure::Broken(error.into()))?;
        Ok(Settled::exported(lines))
    }
}

impl Lines {
    /// # Errors
    ///
    /// The file cannot be opened: a mistake that is better told at the start than in a log.
    pub(super) fn open(
        target: Target,
        rotation: Option<Rotation>,
        format: Format,
    ) -> io::Result<Self> {
        let (mut target, mut file, mut rotator) = (target, None, None);
        if let Target::File(path) = &mut target {
            if let Some(rotation) = rotation {
                // What a link leads to is moved aside, and not the link.
                if let Ok(real) = path.canonicalize() {
                    *path = real;
                }
                // It makes room, too.
                rotator = Some(Rotator::start(rotation, path.clone())?);
            }
            let opened = open(path)?;
            end_last_line(path, &opened, format.begin());
            file = Some(opened);
        }
        Ok(Self {
            target,
            file,
            rotator,
            format,
            batch: Vec::new(),
        })
    }

    /// On failure the file is cut back to whole lines and opened anew next time.
    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
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
                let rotator = self.rotator.as_mut();
                let file = if rotator.is_some_and(|it| it.has_rotated(&file, batch.len())) {
                    open_as(path, &file)?
                } else {
                    file
                };
                if let Err(error) = write_whole(&file, batch) {
                    if let Some(rotator) = &self.rotator {
                        rotator.look();
                    }
                    return Err(error);
                }
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

/// With the mode of the one before.
fn open_as(path: &Path, before: &File) -> io::Result<File> {
    let mode = before.metadata()?.mode() & 0o777;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(mode).open(path)
}

/// An agent that was killed may have left half a line. One of ours is cut off; after anything else, a line begins anew.
fn end_last_line(path: &Path, mut file: &File, begin: &[u8]) {
    let ended = last_line(path, file, begin).and_then(|last| match last {
        LastLine::Whole => Ok(()),
        LastLine::Half { begins } => file.set_len(begins),
        LastLine::Other => file.write_all(b"\n"),
    });
    if let Err(error) = ended {
        tracing::warn!(path = %path.display(), %error, "half a line may be left in it");
    }
}

enum LastLine {
    Whole,
    /// Of a record.
    Half {
        begins: u64,
    },
    Other,
}

/// More than any record has.
const LONGEST: u64 = 1 << 20;

fn last_line(path: &Path, file: &File, begin: &[u8]) -> io::Result<LastLine> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(LastLine::Whole);
    }
    let start = metadata.len().saturating_sub(LONGEST);
    let mut tail = vec![0; usize::try_from(metadata.len() - start).unwrap_or_default()];
    File::open(path)?.read_exact_at(&mut tail, start)?;
    let line = match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if start == 0 => 0,
        None => return Ok(LastLine::Other),
    };
    let half = tail.get(line..).unwrap_or_default();
    let common = half.len().min(begin.len());
    Ok(if half.is_empty() {
        LastLine::Whole
    } else if half.get(..common) == begin.get(..common) {
        LastLine::Half {
            begins: start + u64::try_from(line).unwrap_or_default(),
        }
    } else {
        LastLine::Other
    })
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
