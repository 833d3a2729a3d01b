//! `agent/docs/diagnostics.md` has every code that the sources have, and no other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Texts of the sources that look like codes.
const NO_CODES: [&str; 8] = [
    // How serde writes the names of variants.
    "kebab-case",
    // The end of an annotation's name.
    "approved-by",
    // A format of JSON Schema.
    "date-time",
    // How the schema of a kind speaks to an API server.
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    // Labels that Kubernetes itself gives to replicas.
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("../docs/diagnostics.md")).unwrap()
}

/// The rows of the page that tell of a code: the code, and the severities it can have.
fn rows(page: &str) -> Vec<(&str, Vec<&str>)> {
    let row = |line| -> Option<(&str, Vec<&str>)> {
        let (code, rest) = str::strip_prefix(line, "| `")?.split_once("` | ")?;
        let (severities, _) = rest.split_once(" | ")?;
        Some((code, severities.split(", ").collect()))
    };
    page.lines().filter_map(row).collect()
}

fn codes(page: &str) -> BTreeSet<&str> {
    let rows = rows(page);
    let codes: BTreeSet<_> = rows.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), rows.len(), "a code is on the page twice");
    codes
}

/// All files below a folder that are no tests.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap();
        if name == "tests" || name == "strategies" || name == "example" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let (code, _) = text.split_once("#[cfg(test)]\nmod ").unwrap_or((&text, ""));
            found.push(code.to_owned());
        }
    }
}

/// What stands between quotes. An escaped quote would put this out of step: then the texts found
/// are those between the texts, and what is missing shows.
fn texts(source: &str) -> impl Iterator<Item = &str> {
    let lines = source.lines().map(str::trim_start);
    let code = lines.filter(|line| !line.starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn looks_like_a_code(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.contains('-') && text.split('-').all(word) && text.starts_with(char::is_alphabetic)
}

#[test]
fn every_code_is_on_the_page_and_no_other() {
    let page = page();
    let listed = codes(&page);
    let mut core = Vec::new();
    sources(&root().join("src"), &mut core);
    let written: BTreeSet<&str> = core.iter().flat_map(|source| texts(source)).collect();
    let missing: Vec<_> = written
        .iter()
        .filter(|text| looks_like_a_code(text) && !NO_CODES.contains(text))
        .filter(|text| !listed.contains(**text))
        .collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");

    let reader = fs::read_to_string(root().join("../src/source/files.rs")).unwrap();
    let read: BTreeSet<&str> = texts(&reader).collect();
    let gone: Vec<_> = listed
        .iter()
        .filter(|code| !written.contains(*code) && !read.contains(*code))
        .collect();
    assert!(gone.is_empty(), "only on the page: {gone:?}");
}

/// The snapshots show codes of one word too, and how grave each is.
#[test]
fn the_page_is_as_grave_as_the_snapshots() {
    let page = page();
    let rows = rows(&page);
    for folder in ["bad", "bad-with-failsafe"] {
        for entry in fs::read_dir(root().join("tests").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            for line in fs::read_to_string(&path).unwrap().lines() {
                let Some((severity, code)) = shown(line) else {
                    continue;
                };
                let told = rows
                    .iter()
                    .any(|(known, severities)| *known == code && severities.contains(&severity));
                assert!(told, "{} {severity}[{code}]", path.display());
            }
        }
    }
}

/// The severity and the code of `FILE:LINE:COLUMN: SEVERITY[CODE]: MESSAGE`.
fn shown(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(": ")?;
    let (head, _) = rest.split_once("]: ")?;
    let (severity, code) = head.split_once('[')?;
    ["error", "warning", "note"]
        .contains(&severity)
        .then_some((severity, code))
}
