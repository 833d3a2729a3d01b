//! How commands print.

use std::{
    env,
    io::{self, BufWriter, ErrorKind, IsTerminal, Write},
};

use agent_policy::shown::shown;
use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Human,
    /// For machines.
    Json,
}

/// Writes a value in its form for machines.
pub(crate) fn json(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    // The conversion keeps the writer's own error.
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()
}

/// An answer stands even if whoever reads it has seen enough, as in `… | head -1`.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Whether colours are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Colours,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
}

/// Left-aligned columns that only ever grow, so that rows can be written as they come.
#[derive(Debug)]
pub(crate) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl Paint {
    pub(crate) fn of_stdout() -> Self {
        if io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
            Self::Colours
        } else {
            Self::Plain
        }
    }

    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match (self, colour) {
            (Self::Plain, _) => return text.to_owned(),
            (Self::Colours, Colour::Red) => 31,
            (Self::Colours, Colour::Green) => 32,
            (Self::Colours, Colour::Yellow) => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl<const N: usize> Columns<N> {
    pub(crate) fn new(widths: [usize; N]) -> Self {
        Self { widths }
    }

    /// Makes room for a row, whose cells are escaped.
    pub(crate) fn fit<T: AsRef<str>>(&mut self, row: &[T; N]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(shown(cell.as_ref()).to_string().chars().count());
        }
    }

    /// Writes a row; the last column is not filled up. `colour` is for the cell of that number.
    pub(crate) fn write<T: AsRef<str>>(
        &mut self,
        row: &[T; N],
        paint: Paint,
        colour: Option<(usize, Colour)>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        self.fit(row);
        let mut line = String::new();
        for (number, (cell, width)) in row.iter().zip(self.widths).enumerate() {
            let cell = &*shown(cell.as_ref()).to_string();
            match colour {
                Some((painted, colour)) if painted == number => {
                    line.push_str(&paint.paint(colour, cell));
                }
                _ => line.push_str(cell),
            }
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        writeln!(out, "{}", line.trim_end())
    }
}
