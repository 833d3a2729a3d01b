//! Values of a group of rows, by column, until they are encoded.

use std::{borrow::Cow, mem};

use indexmap::IndexSet;
use parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result},
    file::writer::{SerializedColumnWriter, SerializedRowGroupWriter},
};

use super::columns::{COLUMNS, Get, Text};
use crate::flow::{clock::WallTime, record::Line};

/// Of a group. Readers take a group at once, and so does memory here.
const MOST: usize = 32_768;
/// Of what a group holds. Texts may be of any length.
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Rows {
    columns: Vec<Values>,
    number: usize,
    bytes: usize,
}

/// Of one column.
#[derive(Debug)]
struct Values {
    /// 1 for each row that has a value, 0 for each that has none.
    levels: Vec<i16>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Flags(fn(&Line) -> Option<bool>, Vec<bool>),
    Numbers(fn(&Line) -> Option<i32>, Vec<i32>),
    Counts(fn(&Line) -> Option<i64>, Vec<i64>),
    Times(fn(&Line) -> Option<WallTime>, Vec<i64>),
    Texts(Text, Texts),
}

/// Each text is there once, and rows have its number.
#[derive(Debug, Default)]
struct Texts {
    known: IndexSet<Box<str>>,
    numbers: Vec<usize>,
}

impl Rows {
    pub(super) fn new() -> Self {
        let kinds = COLUMNS.iter().map(|column| match column.get {
            Get::Flag(get) => Kind::Flags(get, Vec::new()),
            Get::Number(get) => Kind::Numbers(get, Vec::new()),
            Get::Count(get) => Kind::Counts(get, Vec::new()),
            Get::Time(get) => Kind::Times(get, Vec::new()),
            Get::Text(get) | Get::Json(get) => Kind::Texts(get, Texts::default()),
        });
        let columns = kinds.map(|kind| Values {
            levels: Vec::new(),
            kind,
        });
        Self {
            columns: columns.collect(),
            number: 0,
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, line: &Line) {
        self.number += 1;
        for column in &mut self.columns {
            self.bytes += column.push(line);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.number == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.number >= MOST || self.bytes >= MOST_BYTES
    }

    /// Writes all of them, and has none afterwards.
    pub(super) fn encode(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, impl std::io::Write + Send>,
    ) -> Result<()> {
        for column in &mut self.columns {
            let out = group.next_column()?;
            let out = out.ok_or_else(|| ParquetError::General("no such column".to_owned()))?;
            column.encode(out)?;
        }
        (self.number, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Values {
    /// Takes a line's value, and returns how many bytes that has taken.
    fn push(&mut self, line: &Line) -> usize {
        let Self { levels, kind } = self;
        let of_level = size_of::<i16>();
        of_level
            + match kind {
                Kind::Flags(get, values) => put(levels, values, get(line)),
                Kind::Numbers(get, values) => put(levels, values, get(line)),
                Kind::Counts(get, values) => put(levels, values, get(line)),
                Kind::Times(get, values) => put(
                    levels,
                    values,
                    get(line).map(|time| time.0.div_euclid(1000)),
                ),
                Kind::Texts(get, texts) => {
                    let (number, bytes) = match get(line) {
                        Some(text) => {
                            let (number, bytes) = texts.number(text);
                            (Some(number), bytes)
                        }
                        None => (None, 0),
                    };
                    bytes + put(levels, &mut texts.numbers, number)
                }
            }
    }

    fn encode(&mut self, mut out: SerializedColumnWriter<'_>) -> Result<()> {
        let Self { levels, kind } = self;
        match kind {
            Kind::Flags(_, values) => write::<BoolType>(&mut out, levels, values)?,
            Kind::Numbers(_, values) => write::<Int32Type>(&mut out, levels, values)?,
            Kind::Counts(_, values) | Kind::Times(_, values) => {
                write::<Int64Type>(&mut out, levels, values)?;
            }
            Kind::Texts(_, texts) => {
                let mut values = texts.take();
                write::<ByteArrayType>(&mut out, levels, &mut values)?;
            }
        }
        out.close()
    }
}

fn put<T>(levels: &mut Vec<i16>, values: &mut Vec<T>, value: Option<T>) -> usize {
    levels.push(i16::from(value.is_some()));
    let Some(value) = value else { return 0 };
    values.push(value);
    size_of::<T>()
}

fn write<T: DataType>(
    out: &mut SerializedColumnWriter<'_>,
    levels: &mut Vec<i16>,
    values: &mut Vec<T::T>,
) -> Result<()> {
    out.typed::<T>().write_batch(values, Some(levels), None)?;
    levels.clear();
    values.clear();
    Ok(())
}

impl Texts {
    /// The number of a text, and how many bytes it has taken.
    fn number(&mut self, text: Cow<'_, str>) -> (usize, usize) {
        // A flow after another is often of the same rule, between the same workloads.
        if let Some(&last) = self.numbers.last()
            && self.known.get_index(last).is_some_and(|it| **it == *text)
        {
            return (last, 0);
        }
        if let Some(number) = self.known.get_index_of(&*text) {
            return (number, 0);
        }
        let bytes = text.len() + 4 * size_of::<usize>();
        let (number, _) = self.known.insert_full(text.into());
        (number, bytes)
    }

    /// One for each row that has one; those that are equal share their bytes.
    fn take(&mut self) -> Vec<ByteArray> {
        let known = mem::take(&mut self.known);
        let known: Vec<ByteArray> = known
            .into_iter()
            .map(|text| ByteArray::from(Vec::from(text.into_boxed_bytes())))
            .collect();
        let values = self.numbers.iter().filter_map(|&number| known.get(number));
        let values = values.cloned().collect();
        self.numbers.clear();
        values
    }
}
