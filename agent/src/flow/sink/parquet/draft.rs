//! One file that is being written.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::{ParquetError, Result},
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use tracing::warn;

use super::{
    columns::{self, COLUMNS, Get},
    folder::{Folder, Hour, Unpublished},
    rows::Rows,
};
use crate::flow::record::{Kind, Line};

/// A file without a name, and rows that go there.
pub(super) struct Draft {
    pub(super) hour: Hour,
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole.
    length: u64,
    writer: SerializedFileWriter<Staged>,
    rows: Rows,
    tally: Tally,
    begun: Instant,
    pub(super) touched: Instant,
    /// Only its name is missing, or the last bytes.
    is_ended: bool,
}

/// Lines that a draft has taken.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Records, by kind.
    pub(super) records: [u64; Kind::ALL.len()],
    pub(super) lines: u64,
    /// Losses and what was tampered with, of which there are few: were they lost too, nobody would know.
    pub(super) remarks: Vec<Line>,
}

/// Of one draft.
const REMARKS: usize = 64;

/// Why a draft is not where it is to be.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may work later.
    Stuck(io::Error),
    /// It will not.
    Lost(anyhow::Error),
}

/// What is encoded and not in the file yet: a full disk may take it later.
#[derive(Debug, Default)]
struct Staged(Vec<u8>);

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// # Errors
    ///
    /// There can be no file.
    pub(super) fn begin(folder: &mut Folder, hour: Hour, node: &str) -> anyhow::Result<Self> {
        let schema = Arc::new(columns::schema()?);
        let writer = SerializedFileWriter::new(Staged::default(), schema, Arc::new(properties()?))?;
        let (path, file) = folder.draft(node)?;
        let now = Instant::now();
        Ok(Self {
            hour,
            path,
            file,
            length: 0,
            writer,
            rows: Rows::new(),
            tally: Tally::default(),
            begun: now,
            touched: now,
            is_ended: false,
        })
    }

    /// Into memory.
    pub(super) fn push(&mut self, line: &Line) {
        self.rows.push(line);
        self.tally.count(line);
        self.touched = Instant::now();
    }

    pub(super) fn is_due(&self, rows: u64, age: Duration) -> bool {
        self.tally.lines >= rows || self.begun.elapsed() >= age
    }

    /// Whether something waits for the disk.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_ended || !self.writer.inner().0.is_empty()
    }

    /// Whether it takes no more lines.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether somebody has removed it.
    pub(super) fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|it| it.nlink() == 0)
    }

    /// Takes rows out of memory, when there are enough of them.
    ///
    /// # Errors
    ///
    /// They are in memory still, in a smaller form, or lost.
    pub(super) fn relieve(&mut self) -> Result<(), Trouble> {
        if self.rows.is_full() {
            self.encode()?;
        }
        self.drain()
    }

    /// Makes a file of it that readers find.
    ///
    /// # Errors
    ///
    /// It is a draft still.
    pub(super) fn publish(&mut self, folder: &Folder) -> Result<(), Trouble> {
        if !self.is_ended {
            self.encode()?;
            self.writer.finish()?;
            self.is_ended = true;
        }
        self.drain()?;
        // What the disk has refused once, it may have forgotten the second time.
        self.file
            .sync_all()
            .map_err(|error| Trouble::Lost(error.into()))?;
        match folder.publish(&self.path, self.hour) {
            Err(Unpublished::NotMoved(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(Trouble::Lost(error.into()))
            }
            Err(Unpublished::NotMoved(error) | Unpublished::NoFolder(error)) => {
                Err(Trouble::Stuck(error))
            }
            Ok(()) => Ok(()),
        }
    }

    /// What it had taken.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes its room back from the disk.
    pub(super) fn discard(self) -> Tally {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.path.display(), %error, "is not removed");
            }
            Ok(()) | Err(_) => {}
        }
        self.tally
    }

    /// Writes elsewhere from now on, and returns where it has written.
    #[cfg(test)]
    pub(super) fn swap(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    fn encode(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        self.rows.encode(&mut group)?;
        group.close()?;
        Ok(())
    }

    /// Moves what is encoded into the file, all of it or nothing.
    fn drain(&mut self) -> Result<(), Trouble> {
        self.writer.flush().map_err(Trouble::Stuck)?;
        let Staged(staged) = self.writer.inner_mut();
        if staged.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(staged, self.length) {
            // The half that was written takes room, and would be in the way.
            drop(self.file.set_len(self.length));
            return Err(Trouble::Stuck(error));
        }
        self.length += staged.len() as u64;
        *staged = Vec::new();
        Ok(())
    }
}

impl Tally {
    pub(super) fn of(lines: &[Cow<'_, Line>]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            tally.count(line);
        }
        tally
    }

    fn count(&mut self, line: &Line) {
        self.lines += 1;
        match line.flow() {
            Some(flow) => {
                if let Some(count) = self.records.get_mut(flow.kind as usize) {
                    *count += 1;
                }
            }
            None if self.remarks.len() < REMARKS => self.remarks.push(line.clone()),
            None => {}
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("path", &self.path)
            .field("length", &self.length)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl From<ParquetError> for Trouble {
    fn from(error: ParquetError) -> Self {
        Self::Lost(error.into())
    }
}

fn properties() -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        // By which readers leave groups out. By page, they would be as long as the values.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(format!("ringfence {}", env!("CARGO_PKG_VERSION")));
    // What rises is stored by how much it does.
    let rising =
        |column: &&columns::Column| matches!(column.get, Get::Time(_)) || column.name == "seq";
    for column in COLUMNS.iter().filter(rising) {
        let path = ColumnPath::from(column.name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}
