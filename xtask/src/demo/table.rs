//! Expected against seen, as a table.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

use ringfence_lab::probe::Outcome;

use super::explain::Explanation;
use super::script::{Attempt, Expected};

/// One connection, tried and explained.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) seen: Outcome,
    pub(super) explanation: Explanation,
}

impl Row<'_> {
    /// The kernel, the explanation and the script agree. A refusal is never right: denied means
    /// dropped.
    pub(super) fn is_right(&self) -> bool {
        let expected = self.attempt.expected;
        let seen = match expected {
            Expected::Allow => Outcome::Allowed,
            Expected::Deny => Outcome::TimedOut,
        };
        self.seen == seen && self.explanation.verdict == expected
    }
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Colour,
    Plain,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set and not empty.
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stdout().is_terminal() && !unwanted {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    fn apply(self, colour: &str, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[{colour}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";
const BOLD: &str = "1";

const HEADINGS: [&str; 7] = [
    "from",
    "to",
    "port",
    "over",
    "expected",
    "seen",
    "decided by",
];

/// The rows in columns. A row that is wrong says so at its end, also without colours.
pub(super) fn render(rows: &[Row<'_>], paint: Paint) -> String {
    let cells: Vec<_> = rows.iter().map(cells).collect();
    let widths: Vec<usize> = HEADINGS
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let longest = cells
                .iter()
                .map(|cells| cells[column].len())
                .max()
                .unwrap_or(0);
            longest.max(heading.len())
        })
        .collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = paint.apply(BOLD, &line(&HEADINGS.map(str::to_owned)));
    text.push('\n');
    for (row, cells) in rows.iter().zip(&cells) {
        let mut line = line(cells);
        let colour = match (row.is_right(), row.attempt.expected) {
            (true, Expected::Allow) => GREEN,
            (true, Expected::Deny) => YELLOW,
            (false, _) => {
                // Writing to a string does not fail.
                let _written = write!(line, "   <-- WRONG (explain: {})", row.explanation.verdict);
                RED
            }
        };
        text.push_str(&paint.apply(colour, &line));
        text.push('\n');
    }
    text
}

fn cells(row: &Row<'_>) -> [String; 7] {
    let Row {
        attempt,
        seen,
        explanation,
    } = row;
    let Attempt {
        from,
        to,
        protocol,
        port,
        family,
        expected,
    } = attempt;
    [
        from.to_string(),
        to.to_string(),
        format!("{protocol}/{port}"),
        family.to_string(),
        expected.to_string(),
        seen.to_string(),
        explanation.decided_by.clone(),
    ]
}

pub(super) fn summary(tried: usize, wrong: usize, paint: Paint) -> String {
    if wrong == 0 {
        paint.apply(
            GREEN,
            &format!("{tried} of {tried} connections as policy says"),
        )
    } else {
        paint.apply(
            RED,
            &format!("{wrong} of {tried} connections differ from policy"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::script::SCRIPT;

    fn row(seen: Outcome) -> Row<'static> {
        let explanation = Explanation {
            verdict: Expected::Allow,
            decided_by: "ingress: a/b rule 0".to_owned(),
        };
        Row {
            attempt: &SCRIPT[0],
            seen,
            explanation,
        }
    }

    #[test]
    fn a_wrong_row_is_marked_without_colours() {
        let text = render(
            &[row(Outcome::Allowed), row(Outcome::TimedOut)],
            Paint::Plain,
        );
        let wrong: Vec<_> = text.lines().map(|line| line.contains("WRONG")).collect();
        assert_eq!(wrong, [false, false, true]);
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_refusal_is_not_a_drop() {
        let mut refused = row(Outcome::Refused("reset".to_owned()));
        let attempt = Attempt {
            expected: Expected::Deny,
            ..SCRIPT[0]
        };
        refused.explanation.verdict = Expected::Deny;
        refused.attempt = &attempt;
        assert!(!refused.is_right());
    }
}
