//! A grid of letters for people: sources down, destinations across, numbered to save width.

use std::io::{self, Write};

use super::{Cell, Grid, Matrix};

impl Matrix {
    /// Writes one grid per port. Fifty workloads fit in 110 columns and their longest name.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { ends, grids } = self;
        let names: Vec<_> = ends.iter().map(ToString::to_string).collect();
        let longest = names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);
        let digits = names.len().to_string().len();
        for Grid { port, rows } in grids {
            writeln!(out, "{port}: from the rows to the columns")?;
            // Column numbers stand upright, so that a column is one letter wide.
            for place in 0..digits {
                write!(out, "{:width$}", "", width = digits + 1 + longest)?;
                for number in 1..=names.len() {
                    let number = format!("{number:>digits$}");
                    write!(out, " {}", number.chars().nth(place).unwrap_or(' '))?;
                }
                writeln!(out)?;
            }
            for (number, (name, row)) in (1..).zip(names.iter().zip(rows)) {
                write!(out, "{number:>digits$} {name:<longest$}")?;
                for cell in row {
                    write!(out, " {}", cell.letter())?;
                }
                writeln!(out)?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            ". allow   X deny   ~ allow or deny, by address   - no common address family   \\ itself"
        )
    }
}

// === impl Cell ===

impl Cell {
    fn letter(self) -> char {
        match self {
            Self::Allow => '.',
            Self::Deny => 'X',
            Self::Mixed => '~',
            Self::Unreachable => '-',
            Self::Itself => '\\',
        }
    }
}
