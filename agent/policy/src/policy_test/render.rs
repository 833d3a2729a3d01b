//! A report for people: a line for each case that does not pass, and the sum.

use std::io::{self, Write};

use super::{Case, Ending, Report, Suite};
use crate::shown::shown;

impl Report {
    /// Writes plain text.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            passed,
            failed,
            errors,
            suites,
        } = self;
        for Suite { name, file, cases } in suites {
            let good = cases.iter().filter(|case| case.ending == Ending::Pass);
            writeln!(out, "{name}: {} of {} pass", good.count(), cases.len())?;
            for case in cases {
                render(out, file, case)?;
            }
        }
        writeln!(
            out,
            "{passed} passed, {failed} failed, {errors} could not be asked"
        )
    }
}

fn render(out: &mut impl Write, file: &str, case: &Case) -> io::Result<()> {
    let title = title(case);
    let line = case.line;
    match &case.ending {
        Ending::Pass => Ok(()),
        Ending::Error { message } => {
            let said = format_args!("{title} at {file}:{line}: {message}");
            writeln!(out, "  error: {}", shown(said))
        }
        Ending::Fail {
            message,
            egress,
            ingress,
        } => {
            let said = format_args!("{title} at {file}:{line}: {message}");
            writeln!(out, "  FAIL: {}", shown(said))?;
            for (direction, side) in [("egress", egress), ("ingress", ingress)] {
                let phrase = shown(side.phrase());
                writeln!(out, "    {direction}: {}, {phrase}", side.verdict)?;
            }
            Ok(())
        }
    }
}

pub(super) fn title(case: &Case) -> String {
    let Case {
        from,
        to,
        port,
        expected,
        line: _,
        ending: _,
    } = case;
    format!("{from} to {to} {port}: {expected}")
}
