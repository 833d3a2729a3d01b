//! `ringfence policy check`: every problem of the input, at once.
//!
//! The JSON form is one object:
//!
//! ```json
//! {"files": 2, "errors": 1, "warnings": 0, "notes": 0, "diagnostics": [
//!   {"severity": "error", "file": "a.yaml", "line": 3, "column": 7, "code": "unknown-field",
//!    "path": "spec.polcyTypes", "message": "…", "hint": "did you mean `policyTypes`?"}]}
//! ```
//!
//! `hint` is left out where there is none; codes are stable. All of it is in
//! `agent/docs/diagnostics.md`.

use std::{
    fmt::{self, Write as _},
    io::Write,
};

use agent_policy::{
    diagnostic::{Diagnostic, Severity},
    load::{ParsedFile, assemble_with},
    model::Failsafe,
};
use serde::Serialize;

use crate::{
    cli::{
        output::{self, Format},
        policy::{Input, Settings},
    },
    exit::Answer,
};

/// Check policies and inventory without putting them into force.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    settings: Settings,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
    /// Exit with 1 if there are warnings; notes do not count
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    files: usize,
    errors: usize,
    warnings: usize,
    notes: usize,
    diagnostics: Vec<Diagnostic>,
}

pub(crate) fn run(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<Answer> {
    let CheckArgs {
        input,
        settings,
        output,
        strict,
    } = args;
    let report = Report::new(input.parse(), settings.failsafe()?);
    output::unless_closed(match output {
        Format::Human => write!(out, "{report}"),
        Format::Json => output::json(&report, out),
    })?;
    Ok(match (report.errors, report.warnings) {
        (0, 0) => Answer::Yes,
        (0, _) if *strict => Answer::No,
        (0, _) => Answer::Yes,
        _ => Answer::Broken,
    })
}

impl Report {
    fn new(parsed: Vec<ParsedFile>, failsafe: Vec<Failsafe>) -> Self {
        let files = parsed.len();
        let (_, between) = assemble_with(&parsed, failsafe);
        let mut diagnostics: Vec<_> = parsed
            .into_iter()
            .flat_map(|file| file.diagnostics)
            .collect();
        diagnostics.extend(between);
        diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        let of = |severity| {
            let found = diagnostics.iter().filter(|one| one.severity == severity);
            found.count()
        };
        Self {
            files,
            errors: of(Severity::Error),
            warnings: of(Severity::Warning),
            notes: of(Severity::Note),
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
            notes,
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
        write!(text, "{files}: {errors}, {}", counted(warnings, "warning"))?;
        if *notes > 0 {
            write!(text, ", {}", counted(notes, "note"))?;
        }
        text.push('\n');
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    /// The answer and what was printed, of one file.
    fn checked(text: &str, flags: &[&str]) -> (Answer, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let command = CheckArgs::augment_args(clap::Command::new("check"));
        let line = [&["check", "-f", file.to_str().unwrap()], flags].concat();
        let args =
            CheckArgs::from_arg_matches(&command.try_get_matches_from(line).unwrap()).unwrap();
        let mut out = Vec::new();
        let answer = run(&args, &mut out).unwrap();
        (answer, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_answer_tells_errors_from_warnings() {
        let policy = |spec: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\n\
                 spec: {spec}\n"
            )
        };
        for (spec, flags, answer) in [
            // A default deny is noted, which is nothing to fail for.
            ("{podSelector: {}}", &["--strict"][..], Answer::Yes),
            ("{podSelector: {}, ingress: [{}]}", &[], Answer::Yes),
            (
                "{podSelector: {}, ingress: [{}]}",
                &["--strict"],
                Answer::No,
            ),
            ("{podSelector: {}, ingres: [{}]}", &[], Answer::Broken),
        ] {
            assert_eq!(checked(&policy(spec), flags).0, answer, "{spec}");
        }
    }

    #[test]
    fn notes_are_counted_where_there_are_any() {
        let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n\
                      spec: {podSelector: {}}\n";
        let (_, human) = checked(policy, &[]);
        assert!(human.contains("note[only-isolates]"), "{human}");
        assert!(
            human.ends_with("1 file: 0 errors, 0 warnings, 1 note\n"),
            "{human}"
        );
        let (_, json) = checked(policy, &["-o", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["notes"], 1);
        assert_eq!(json["diagnostics"][0]["severity"], "note");
    }

    #[test]
    fn settings_tell_what_no_policy_can_deny() {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("settings.yaml");
        std::fs::write(&settings, "failsafe: {managementCidrs: [192.0.2.0/24]}\n").unwrap();
        let policy = "apiVersion: ringfence.io/v1alpha1\nkind: RingfencePolicy\n\
                      metadata: {name: p}\nspec: {tier: Admin, priority: 1, subject: {nodes: {}}, \
                      ingress: [{action: Deny, ports: [{tcp: {port: 22}}]}]}\n";
        let (_, without) = checked(policy, &[]);
        assert!(!without.contains("denies-failsafe"), "{without}");
        let (_, with) = checked(policy, &["--config", settings.to_str().unwrap()]);
        assert!(with.contains("[denies-failsafe]"), "{with}");
    }

    #[test]
    fn both_forms_show_the_same_problems() {
        let (_, human) = checked("kind: Pod\n", &[]);
        assert!(human.ends_with("1 file: 1 error, 0 warnings\n"), "{human}");
        assert!(
            human.contains("a.yaml:1:1: error[missing-field]"),
            "{human}"
        );
        let (_, json) = checked("kind: Pod\n", &["-o", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["errors"], 1);
        assert_eq!(json["diagnostics"][0]["path"], "apiVersion");
        assert_eq!(json["diagnostics"][0]["severity"], "error");
    }
}
