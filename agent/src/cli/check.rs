//! `ringfence policy check`: every problem of the input, at once.
//!
//! The JSON form is one object:
//!
//! ```json
//! {"files": 2, "errors": 1, "warnings": 0, "diagnostics": [
//!   {"severity": "error", "file": "a.yaml", "line": 3, "column": 7, "code": "unknown-field",
//!    "path": "spec.polcyTypes", "message": "…", "hint": "did you mean `policyTypes`?"}]}
//! ```
//!
//! `hint` is left out where there is none; codes are stable.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use agent_policy::{
    diagnostic::{Diagnostic, Severity},
    load::{ParsedFile, assemble},
};
use serde::Serialize;

use crate::source::files;

/// No error; warnings do not count without `--strict`.
pub(crate) const EXIT_CLEAN: u8 = 0;
/// Warnings, and `--strict`.
pub(crate) const EXIT_WARNINGS: u8 = 1;
/// An error, also one of writing the report.
pub(crate) const EXIT_ERRORS: u8 = 2;

/// Check policies and inventory without putting them into force.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A file, a folder (*.yaml, *.yml, *.json, recursively) or `-`; repeatable
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Output,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Output {
    #[default]
    Human,
    Json,
}

#[derive(Debug, Serialize)]
struct Report {
    files: usize,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Diagnostic>,
}

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let CheckArgs {
        files,
        output,
        strict,
    } = args;
    let report = Report::new(files::parse(files));
    let text = match output {
        Output::Human => report.to_string(),
        Output::Json => match serde_json::to_string(&report) {
            Ok(json) => json + "\n",
            Err(_) => return ExitCode::from(EXIT_ERRORS),
        },
    };
    if io::stdout().lock().write_all(text.as_bytes()).is_err() {
        return ExitCode::from(EXIT_ERRORS);
    }
    ExitCode::from(match (report.errors, report.warnings) {
        (0, 0) => EXIT_CLEAN,
        (0, _) if *strict => EXIT_WARNINGS,
        (0, _) => EXIT_CLEAN,
        _ => EXIT_ERRORS,
    })
}

impl Report {
    fn new(parsed: Vec<ParsedFile>) -> Self {
        let files = parsed.len();
        let (_, between) = assemble(&parsed);
        let mut diagnostics: Vec<_> = parsed
            .into_iter()
            .flat_map(|file| file.diagnostics)
            .collect();
        diagnostics.extend(between);
        diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        let errors = diagnostics
            .iter()
            .filter(|one| one.severity == Severity::Error)
            .count();
        let warnings = diagnostics.len() - errors;
        Self {
            files,
            errors,
            warnings,
            diagnostics,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            errors,
            warnings,
            diagnostics,
        } = self;
        let mut text = String::new();
        for diagnostic in diagnostics {
            diagnostic.render(&mut text)?;
        }
        let counted = |number: &usize, what| {
            format!("{number} {what}{}", if *number == 1 { "" } else { "s" })
        };
        let (files, errors) = (counted(files, "file"), counted(errors, "error"));
        writeln!(text, "{files}: {errors}, {}", counted(warnings, "warning"))?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, strict: bool) -> (Report, ExitCode) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let files = vec![file];
        let report = Report::new(files::parse(&files));
        (
            report,
            run(&CheckArgs {
                files,
                output: Output::Json,
                strict,
            }),
        )
    }

    #[test]
    fn the_exit_code_tells_errors_from_warnings() {
        let policy = |spec: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\n\
                 spec: {spec}\n"
            )
        };
        for (spec, strict, code) in [
            ("{podSelector: {}}", true, EXIT_CLEAN),
            ("{podSelector: {}, ingress: [{}]}", false, EXIT_CLEAN),
            ("{podSelector: {}, ingress: [{}]}", true, EXIT_WARNINGS),
            ("{podSelector: {}, ingres: [{}]}", false, EXIT_ERRORS),
        ] {
            assert_eq!(
                checked(&policy(spec), strict).1,
                ExitCode::from(code),
                "{spec}"
            );
        }
    }

    #[test]
    fn both_forms_show_the_same_problems() {
        let (report, _) = checked("kind: Pod\n", false);
        assert!(
            report
                .to_string()
                .ends_with("1 file: 1 error, 0 warnings\n"),
            "{report}"
        );
        assert!(
            report
                .to_string()
                .contains("a.yaml:1:1: error[missing-field]"),
            "{report}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["errors"], 1);
        assert_eq!(json["diagnostics"][0]["path"], "apiVersion");
        assert_eq!(json["diagnostics"][0]["severity"], "error");
    }
}
