//! The tests that a guest runs, built here: the whole package `tests`, but for what is left out.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ringfence_lab::{
    guest::{Plan, Test},
    wait::SLOWNESS,
};
use serde_json::Value;

use super::Selection;
use crate::{build, shell, test::HOST};

/// What a guest cannot do: target, name, and why.
const LEFT_OUT: [(&str, &str, &str); 2] = [
    (
        "readme",
        "every_xtask_of_the_readme_exists",
        "calls cargo, which a guest has not",
    ),
    (
        "readme",
        "every_command_of_the_readme_does_what_the_readme_shows",
        "serves a page with Python, which a guest has not",
    ),
];
/// The part for every change, in minutes: what differs most from kernel to kernel, and cgroups where there is no other
/// hierarchy than that of version 2.
const OF_EVERY_CHANGE: [&str; 6] = [
    "cgroup",
    "equality",
    "fragments",
    "interface",
    "sockets",
    "verifier",
];
/// Five times what it takes: this is for a guest that hangs.
const MINUTES_OF_EVERY_CHANGE: u64 = 20;

/// How many times longer things may take in a machine that is emulated, while others are busy.
const SLOWER: u32 = 5;
/// After so long a test hangs.
const PATIENCE: Duration = Duration::from_mins(5);
const AGENT: &str = "target/debug/ringfence";
const INIT: &str = "lab-guest";

/// Programs on this machine, and what to do with them in a guest.
#[derive(Debug)]
pub(crate) struct Suite {
    programs: Vec<PathBuf>,
    init: PathBuf,
    plan: Plan,
}

pub(super) fn of_every_change() -> Selection {
    Selection {
        targets: OF_EVERY_CHANGE.map(str::to_owned).into(),
        filter: Vec::new(),
        timeout: Duration::from_secs(60 * MINUTES_OF_EVERY_CHANGE),
    }
}

/// For the help of the command.
pub(super) fn left_out_as_text() -> String {
    let lines = LEFT_OUT.map(|(target, name, why)| format!("  {target} {name}:\n    {why}\n"));
    format!("Left out:\n{}", lines.concat())
}

impl Suite {
    /// Builds the agent and the tests around `object`.
    pub(crate) fn build(object: &Path, selection: &Selection) -> Result<Self> {
        let agent = shell::root().join(AGENT);
        let mut build = cargo(object);
        build.args(["build", "--package", "agent"]);
        shell::run(build.args(build::FEATURES))?;
        // Of the whole workspace, as `cargo xtask test` builds it: of one package alone cargo would have all
        // dependencies with other features, and build them a second time.
        let mut build = cargo(object);
        build.args(["test", "--no-run"]).args(HOST);
        build.args(build::FEATURES);
        shell::run(&mut build)?;
        let messages = shell::output(build.args(["--quiet", "--message-format", "json"]))?;

        let mut programs = vec![agent.clone()];
        let mut init = None;
        let mut tests = Vec::new();
        for Built {
            target,
            program,
            is_test,
        } in messages.lines().filter_map(Built::parse)
        {
            if !is_test {
                if target == INIT {
                    init = Some(program.clone());
                }
                programs.push(program);
            } else if selection.targets.is_empty() || selection.targets.contains(&target) {
                tests.extend(list(&target, &program)?);
                programs.push(program);
            }
        }
        for target in &selection.targets {
            let exists = tests.iter().any(|test| test.target == *target);
            ensure!(exists, "no test binary `{target}`");
        }
        for (target, name, _) in LEFT_OUT {
            let known = tests.iter().filter(|test| test.target == target);
            let names: Vec<_> = known.map(|test| test.name.as_str()).collect();
            ensure!(
                names.is_empty() || names.contains(&name),
                "`{target} {name}` is left out, and does not exist"
            );
        }
        let filter = &selection.filter;
        tests.retain(|test| {
            let wanted = filter.iter().any(|part| test.name.contains(part));
            why_left_out(test).is_none() && (filter.is_empty() || wanted)
        });
        tests.sort();
        ensure!(!tests.is_empty(), "no test is left to run");
        let text = |path: &Path| path.to_str().map(str::to_owned).context("not UTF-8");
        let environment = vec![
            ("PATH".to_owned(), "/usr/bin".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
            ("RINGFENCE_BIN".to_owned(), text(&agent)?),
            (SLOWNESS.to_owned(), SLOWER.to_string()),
            ("RUST_BACKTRACE".to_owned(), "0".to_owned()),
        ];
        Ok(Self {
            programs,
            init: init.with_context(|| format!("cargo built no `{INIT}`"))?,
            plan: Plan {
                tests,
                environment,
                patience: PATIENCE,
            },
        })
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = &Path> {
        self.programs.iter().map(PathBuf::as_path)
    }

    /// The guest's first process.
    pub(crate) fn init(&self) -> &Path {
        &self.init
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }
}

pub(super) fn left_out() -> impl Iterator<Item = String> {
    LEFT_OUT
        .iter()
        .map(|(target, name, why)| format!("{target} {name}: {why}"))
}

fn why_left_out(test: &Test) -> Option<&'static str> {
    let found = LEFT_OUT
        .iter()
        .find(|(target, name, _)| *target == test.target && *name == test.name);
    found.map(|(_, _, why)| *why)
}

fn cargo(object: &Path) -> Command {
    let mut cargo = shell::command("cargo");
    cargo.env("RINGFENCE_BPF_OBJECT", object);
    cargo
}

/// The tests in a binary, as it lists them itself.
fn list(target: &str, binary: &Path) -> Result<Vec<Test>> {
    let mut command = shell::command(binary);
    let listed = shell::output(command.args(["--list", "--format", "terse"]))?;
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    let test = |name: &str| Test {
        target: target.to_owned(),
        name: name.to_owned(),
        binary: binary.to_owned(),
    };
    Ok(names.map(test).collect())
}

/// A program of the package `tests`, as cargo's messages tell.
struct Built {
    target: String,
    program: PathBuf,
    is_test: bool,
}

impl Built {
    fn parse(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| message.pointer(pointer)?.as_str();
        if !text("/manifest_path")?.ends_with("/tests/Cargo.toml") {
            return None;
        }
        Some(Self {
            program: text("/executable")?.into(),
            target: text("/target/name")?.to_owned(),
            is_test: message.pointer("/profile/test")?.as_bool()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_has_built_is_read_from_its_messages() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/r/tests/Cargo.toml",
            "target":{"name":"attach"},"profile":{"test":true},"executable":"/t/attach-1"}"#;
        let built = Built::parse(line).unwrap();
        assert_eq!(built.target, "attach");
        assert_eq!(built.program, Path::new("/t/attach-1"));
        assert!(built.is_test);
        let other = line.replace("/r/tests/", "/r/agent/");
        assert!(Built::parse(&other).is_none());
        let library = r#"{"target":{"name":"x"},"profile":{"test":false},"executable":null}"#;
        assert!(Built::parse(library).is_none());
        assert!(Built::parse("not json").is_none());
    }

    #[test]
    fn what_is_left_out_is_told_in_the_help() {
        let help = left_out_as_text();
        for (_, name, why) in LEFT_OUT {
            assert!(help.contains(name) && help.contains(why), "{help}");
        }
    }
}
