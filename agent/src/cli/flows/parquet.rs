//! Records in files of Parquet, to read and to write.

use std::path::{Path, PathBuf};

use super::lines::{Lines, Read};
use crate::flow::{record::Line, sink::parquet};

pub(super) fn read(path: &Path) -> Read {
    let lines = match parquet::lines(path) {
        Ok(lines) => lines,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    Box::new(lines.map(|line| {
        let line = line?;
        let mut text = Vec::new();
        line.write(&mut text);
        // Without its end.
        text.pop();
        Ok((line, String::from_utf8(text)?))
    }))
}

pub(super) fn write(folder: PathBuf, lines: Lines) -> anyhow::Result<()> {
    let lines = lines.map(|text| Ok(Line::parse(&text?)?));
    let count = parquet::convert(folder, lines)?;
    eprintln!("{count} records written");
    Ok(())
}
