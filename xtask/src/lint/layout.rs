//! The invariants of the layout that neither rustc nor clippy can see.
//!
//! Each rule takes the files as values and returns what it finds, so that a test can show that
//! it fails where it should.

mod rules;
#[cfg(test)]
mod tests;

use std::{fmt, fs};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A tracked file: its path from the workspace root, and its text.
#[derive(Clone, Debug)]
struct File {
    path: String,
    text: String,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what } = self;
        write!(f, "{path}:{line}: {what}")
    }
}

/// Applies every rule to every file that is, or could be, committed.
///
/// # Errors
/// If a rule is broken, after naming each place; or if git or a file cannot be read.
pub(super) fn check() -> Result<()> {
    let files = files()?;
    let mut count = 0_usize;
    for rule in rules::ALL {
        for finding in rule(&files) {
            eprintln!("{finding}");
            count += 1;
        }
    }
    if count > 0 {
        bail!("the layout rules are broken in {count} places");
    }
    eprintln!(
        "lint: layout: {} rules hold in {} files",
        rules::ALL.len(),
        files.len()
    );
    Ok(())
}

fn files() -> Result<Vec<File>> {
    let mut git = shell::command("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let mut files = Vec::new();
    for path in shell::output(&mut git)?
        .split('\0')
        .filter(|path| !path.is_empty())
    {
        let file = shell::root().join(path);
        if !file.is_file() {
            continue; // deleted and not yet committed, or a link to a folder
        }
        let bytes = fs::read(&file).with_context(|| format!("failed to read {path}"))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(File {
            path: path.to_owned(),
            text,
        });
    }
    Ok(files)
}
