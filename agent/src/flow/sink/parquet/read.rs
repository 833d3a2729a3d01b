//! Files of Parquet back to lines, through the JSON that they are made of.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, ensure};
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row, reader::RowIter},
    schema::types::Type,
};
use serde_json::{Map, Value};

use super::{
    Lines,
    columns::{COLUMNS, Column, Get},
};
use crate::flow::{clock::WallTime, record::Line};

pub(super) fn lines(path: &Path) -> anyhow::Result<Lines> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let reader = unhurt(|| Ok(SerializedFileReader::new(file)?))
        .with_context(|| format!("{name} is no whole file of Parquet"))?;
    let schema = reader.metadata().file_metadata().schema();
    let (columns, wanted) = known(schema);
    ensure!(!columns.is_empty(), "{name} has no column of flow records");
    let wanted = Type::group_type_builder(schema.name())
        .with_fields(wanted)
        .build()?;
    let rows = unhurt(|| Ok(RowIter::from_file_into(Box::new(reader)).project(Some(wanted))?))
        .with_context(|| name.clone())?;
    let (mut rows, mut number) = (Some(rows), 0_u64);
    Ok(Box::new(std::iter::from_fn(move || {
        let all = rows.as_mut()?;
        let read = unhurt(|| match all.next() {
            Some(row) => line(&columns, &row?).map(Some),
            None => Ok(None),
        });
        number += 1;
        // Behind what is broken, a file may say that there are any number of rows.
        if !matches!(read, Ok(Some(_))) {
            rows = None;
        }
        let read = read.with_context(|| format!("{name}: row {number}: not a flow record"));
        read.transpose()
    })))
}

/// The library has assertions about what is in a file, and a file may hold anything.
fn unhurt<T>(read: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // What it was about is not used any more.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(anyhow!("it is damaged")))
}

/// Columns of a file that are ours, in its order. Others may be there, of later versions.
fn known(schema: &Type) -> (Vec<&'static Column>, Vec<Arc<Type>>) {
    let ours = |field: &Arc<Type>| {
        let column = COLUMNS.iter().find(|it| it.name == field.name())?;
        let expected = column.field().ok()?;
        let is_same = field.is_primitive()
            && field.get_physical_type() == expected.get_physical_type()
            && field.get_basic_info().logical_type_ref()
                == expected.get_basic_info().logical_type_ref();
        is_same.then(|| (column, Arc::clone(field)))
    };
    schema.get_fields().iter().filter_map(ours).unzip()
}

fn line(columns: &[&Column], row: &Row) -> anyhow::Result<Line> {
    let mut record = Map::new();
    for (column, (_, field)) in columns.iter().zip(row.get_column_iter()) {
        if let Some(value) = value(column.get, field).context(column.name)? {
            put(&mut record, column.path, value);
        }
    }
    Ok(Line::parse(&Value::Object(record).to_string())?)
}

fn value(get: Get, field: &Field) -> anyhow::Result<Option<Value>> {
    Ok(Some(match (get, field) {
        (_, Field::Null) => return Ok(None),
        (Get::Flag(_), Field::Bool(flag)) => Value::from(*flag),
        (Get::Number(_), Field::Int(number)) => Value::from(*number),
        (Get::Count(_), Field::Long(number)) => Value::from(*number),
        (Get::Time(_), Field::TimestampMicros(time)) => {
            Value::from(WallTime(time.saturating_mul(1000)).to_string())
        }
        (Get::Text(_), Field::Str(text)) => Value::from(text.as_str()),
        (Get::Json(_), Field::Str(text)) => serde_json::from_str(text)?,
        (_, other) => return Err(anyhow!("{other}")),
    }))
}

/// Puts a value where a path leads.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let below = object.entry(first).or_insert_with(|| Map::new().into());
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}
