//! What is wrong with an input, said so that a person can mend it.
//!
//! A diagnostic is a value first: `check -o json` prints its fields, and the human form is a
//! rendering of the same value. Codes are stable; wording may improve.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::shown::shown;

/// A place in a file, 1-based; the column counts characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input can not be taken into force.
    Error,
    /// It can, but it probably does not say what its author means.
    Warning,
    /// It can, and mostly says what is meant; worth a look all the same.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// As the caller named it.
    pub file: Arc<str>,
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
    /// Stable, in kebab-case: for scripts and for searching.
    pub code: &'static str,
    /// The field, such as `spec.ingress[0].ports[1].endPort`; empty where no field is concerned.
    pub path: String,
    /// A lower-case fragment: what was seen and what was expected.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Collects the problems of one file.
///
/// Bounded, because a hostile file can hold more mistakes than memory; what is beyond the bound
/// is counted, so that nobody takes the list for complete. Doubts take no place from errors, and are
/// no error, however many.
#[derive(Debug)]
pub(crate) struct Problems {
    file: Arc<str>,
    found: Vec<Diagnostic>,
    /// How many of the kept are errors.
    errors: usize,
    beyond: usize,
    /// The gravest of those beyond.
    gravest: Severity,
}

/// Errors kept of one file, and as many doubts.
pub const MAX_DIAGNOSTICS: usize = 10_000;

// === impl Position ===

impl Position {
    /// Where a problem concerns a file as a whole.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place that follows `text`, if the text begins at the start of a file.
    pub(crate) fn after(text: &str) -> Self {
        let line = text.bytes().filter(|byte| *byte == b'\n').count();
        let column = text
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count());
        Self {
            line: saturating(line + 1),
            column: saturating(column + 1),
        }
    }

    pub(crate) fn new(line: usize, column: usize) -> Self {
        Self {
            line: saturating(line),
            column: saturating(column),
        }
    }
}

fn saturating(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

// === impl Diagnostic ===

impl Diagnostic {
    pub fn new(
        severity: Severity,
        file: &Arc<str>,
        at: Position,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            file: Arc::clone(file),
            line: at.line,
            column: at.column,
            code,
            path: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The order in which people read: by file, then downwards.
    pub(crate) fn sort(diagnostics: &mut [Self]) {
        diagnostics.sort_by(|a, b| {
            (&a.file, a.line, a.column, a.severity, a.code, &a.message)
                .cmp(&(&b.file, b.line, b.column, b.severity, b.code, &b.message))
        });
    }

    /// Writes the human form; a hint makes a second line. Ends with a line feed.
    pub fn render(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let Self {
            severity,
            file,
            line,
            column,
            code,
            path: _,
            message,
            hint,
        } = self;
        let place = format_args!("{file}:{line}:{column}: {severity}[{code}]: {message}");
        writeln!(out, "{}", shown(place))?;
        if let Some(hint) = hint {
            writeln!(out, "  hint: {}", shown(hint))?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    /// Without the last line feed, as `Display` is expected to be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.render(&mut text)?;
        f.write_str(text.trim_end_matches('\n'))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

// === impl Problems ===

impl Problems {
    pub(crate) fn new(file: Arc<str>) -> Self {
        Self {
            file,
            found: Vec::new(),
            errors: 0,
            beyond: 0,
            gravest: Severity::Note,
        }
    }

    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Those that are kept.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let is_error = diagnostic.is_error();
        let kept = if is_error {
            self.errors
        } else {
            self.found.len() - self.errors
        };
        if kept < MAX_DIAGNOSTICS {
            self.errors += usize::from(is_error);
            self.found.push(diagnostic);
        } else {
            self.beyond += 1;
            self.gravest = self.gravest.min(diagnostic.severity);
        }
    }

    pub(crate) fn error(&mut self, at: Position, code: &'static str, message: impl Into<String>) {
        self.push(Diagnostic::new(
            Severity::Error,
            &self.file,
            at,
            code,
            message,
        ));
    }

    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        Diagnostic::sort(&mut self.found);
        if self.beyond > 0 {
            let message = format!("{} more problems are not shown", self.beyond);
            let last = self.found.last().map_or(Position::START, |last| Position {
                line: last.line,
                column: last.column,
            });
            self.found.push(Diagnostic::new(
                self.gravest,
                &self.file,
                last,
                "too-many-problems",
                message,
            ));
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_makes_a_second_line() {
        let file = Arc::from("a.yaml");
        let at = Position { line: 3, column: 7 };
        let one = Diagnostic::new(
            Severity::Error,
            &file,
            at,
            "unknown-field",
            "unknown field `x`",
        )
        .with_hint("did you mean `y`?");
        assert_eq!(
            one.to_string(),
            "a.yaml:3:7: error[unknown-field]: unknown field `x`\n  hint: did you mean `y`?"
        );
    }

    #[test]
    fn doubts_beyond_the_bound_are_no_error_and_hide_none() {
        let mut problems = Problems::new(Arc::from("a.yaml"));
        let doubt = Diagnostic::new(
            Severity::Warning,
            problems.file(),
            Position::START,
            "x",
            "y",
        );
        for _ in 0..=MAX_DIAGNOSTICS {
            problems.push(doubt.clone());
        }
        let found = problems.into_sorted();
        assert_eq!(found.last().unwrap().severity, Severity::Warning);

        let mut problems = Problems::new(Arc::from("a.yaml"));
        for _ in 0..=MAX_DIAGNOSTICS {
            problems.push(doubt.clone());
        }
        problems.error(Position::START, "x", "an error");
        let found = problems.into_sorted();
        assert!(found.iter().any(|one| one.message == "an error"));
    }

    #[test]
    fn problems_beyond_the_bound_are_counted() {
        let mut problems = Problems::new(Arc::from("a.yaml"));
        for _ in 0..MAX_DIAGNOSTICS + 5 {
            problems.error(Position::START, "x", "y");
        }
        let found = problems.into_sorted();
        assert_eq!(found.len(), MAX_DIAGNOSTICS + 1);
        assert_eq!(
            found.last().unwrap().message,
            "5 more problems are not shown"
        );
    }
}
