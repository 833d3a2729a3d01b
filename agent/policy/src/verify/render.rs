//! Proofs for people: a line each, and below it what contradicts.

use std::io::{self, Write};

use super::{Counterexample, Proof, Reach};
use crate::shown::shown;

impl Proof {
    /// Writes plain text: what holds in one line, what does not in four.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            name,
            reach,
            holds,
            file,
            line,
            pairs,
            counterexample,
        } = self;
        let word = if *holds { "holds" } else { "FALSE" };
        write!(out, "{word}: {} at {}:{line}", shown(name), shown(file))?;
        match (holds, pairs) {
            (true, 0) => writeln!(out, " (about nobody)")?,
            (true, 1) => writeln!(out, " (1 pair of classes)")?,
            (true, many) => writeln!(out, " ({many} pairs of classes)")?,
            (false, _) => writeln!(out)?,
        }
        let Some(counterexample) = counterexample else {
            return Ok(());
        };
        let Counterexample {
            from,
            from_address,
            to,
            to_address,
            port,
            egress,
            ingress,
        } = counterexample;
        let passes = match reach {
            Reach::Never => "passes",
            Reach::Always => "does not pass",
        };
        writeln!(
            out,
            "  {from} ({from_address}) to {to} ({to_address}) {port} {passes}"
        )?;
        for (direction, side) in [("egress", egress), ("ingress", ingress)] {
            let phrase = shown(side.phrase());
            writeln!(out, "  {direction}: {}, {phrase}", side.verdict)?;
        }
        Ok(())
    }
}
