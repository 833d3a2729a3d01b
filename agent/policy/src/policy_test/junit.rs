//! A report in the XML that CI servers read: a suite for each `PolicyTest`, a case for each
//! connection.

use std::io::{self, Write};

use super::{Ending, Report, Suite, render::title};

impl Report {
    /// Writes the XML of `JUnit`.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn junit(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            passed,
            failed,
            errors,
            suites,
        } = self;
        let all = passed + failed + errors;
        writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(
            out,
            r#"<testsuites tests="{all}" failures="{failed}" errors="{errors}">"#
        )?;
        suites.iter().try_for_each(|one| suite(out, one))?;
        writeln!(out, "</testsuites>")
    }
}

fn suite(out: &mut impl Write, suite: &Suite) -> io::Result<()> {
    let Suite { name, file, cases } = suite;
    let count = |wanted: fn(&Ending) -> bool| {
        let of_them = cases.iter().filter(|case| wanted(&case.ending));
        of_them.count()
    };
    let failed = count(|ending| matches!(ending, Ending::Fail { .. }));
    let errors = count(|ending| matches!(ending, Ending::Error { .. }));
    let (name, file, all) = (escaped(name), escaped(file), cases.len());
    writeln!(
        out,
        r#"  <testsuite name="{name}" tests="{all}" failures="{failed}" errors="{errors}">"#
    )?;
    for case in cases {
        let (title, line) = (escaped(&title(case)), case.line);
        write!(
            out,
            r#"    <testcase classname="{name}" name="{title}" file="{file}" line="{line}""#
        )?;
        match &case.ending {
            Ending::Pass => writeln!(out, "/>")?,
            Ending::Error { message } => {
                let message = escaped(message);
                writeln!(out, r#"><error message="{message}"/></testcase>"#)?;
            }
            Ending::Fail {
                message,
                egress,
                ingress,
            } => {
                let message = escaped(message);
                writeln!(out, r#"><failure message="{message}">"#)?;
                for (direction, side) in [("egress", egress), ("ingress", ingress)] {
                    let phrase = escaped(&side.phrase());
                    writeln!(out, "{direction}: {}, {phrase}", side.verdict)?;
                }
                writeln!(out, "</failure></testcase>")?;
            }
        }
    }
    writeln!(out, "  </testsuite>")
}

/// Names are what a file says, and may be anything.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no way to say these.
            control if control < ' ' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
