//! `cargo xtask fuzz`: libFuzzer on the targets of `agent/policy/fuzz`.
//!
//! The compiler is the pinned one: its stable flags insert what libFuzzer counts. All that a run
//! makes is below `target/fuzz`; the inputs that it found worth keeping stay there for the next.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use crate::{setup, shell};

/// Search for inputs that break the parsers, the compiler or the packet path.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long, each target.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
    /// All, if none is named.
    targets: Vec<Target>,
    /// What else libFuzzer is told, such as `-jobs=2` or an input to try again.
    #[arg(last = true)]
    engine: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Target {
    /// Valid worlds, compiled and asked.
    Decide,
    /// Frames, parsed and judged.
    Packet,
    /// Objects of each kind, with mistakes.
    Parse,
    /// Any bytes as a file.
    Yaml,
}

const SECONDS: u32 = 60;
const FOLDER: &str = "target/fuzz";
/// How many targets run at a time.
const AT_ONCE: usize = 2;
/// What people wrote, right and wrong: where the search in texts begins.
const TEXTS: [&str; 4] = [
    "policies/demo",
    "policies/samples",
    "agent/policy/tests/good",
    "agent/policy/tests/bad",
];
/// Counters for each edge and each comparison, as cargo-fuzz asks for them.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Lines of a log that tell why a target failed.
const LAST_LINES: usize = 60;

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        seconds,
        targets,
        engine,
    } = args;
    setup::ensure_tools()?;
    let mut targets: Vec<Target> = match targets.as_slice() {
        [] => Target::value_variants().to_vec(),
        named => named.to_vec(),
    };
    targets.sort();
    targets.dedup();
    let programs = build(&targets)?;
    seeds()?;

    let waiting = Mutex::new(targets.iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(targets.len()) {
            scope.spawn(|| {
                let next = || waiting.lock().ok()?.next();
                while let Some(target) = next() {
                    if let Err(error) = target.search(&programs, *seconds, engine)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    for error in &failed {
        eprintln!("{error:#}\n");
    }
    if !failed.is_empty() {
        bail!("{} of {} targets failed", failed.len(), targets.len());
    }
    Ok(())
}

/// Builds the targets and returns the folder of their programs.
fn build(targets: &[Target]) -> Result<PathBuf> {
    let host = host()?;
    let build = format!("{FOLDER}/build");
    let mut cargo = shell::command("cargo");
    // With a target named, build scripts and procedural macros are left as they are.
    cargo.env("RUSTFLAGS", COVERAGE.join(" "));
    cargo.args(["build", "--package", "agent-policy-fuzz"]);
    cargo.args(["--features", "engine", "--profile", "fuzz"]);
    cargo.args(["--target", &host, "--target-dir", &build]);
    for target in targets {
        cargo.args(["--bin", &target.name()]);
    }
    shell::run(&mut cargo)?;
    Ok(shell::root().join(build).join(host).join("fuzz"))
}

fn host() -> Result<String> {
    let version = shell::output(shell::command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

fn seeds() -> Result<()> {
    let mut cargo = shell::command("cargo");
    cargo.args(["run", "--quiet", "--package", "agent-policy-fuzz"]);
    cargo.args(["--bin", "seeds", "--", &format!("{FOLDER}/seeds")]);
    shell::run(&mut cargo)
}

// === impl Args ===

impl Default for Args {
    fn default() -> Self {
        Self {
            seconds: SECONDS,
            targets: Vec::new(),
            engine: Vec::new(),
        }
    }
}

// === impl Target ===

impl Target {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Bytes of an input; more is seldom another case, and slower.
    fn max_len(self) -> u32 {
        match self {
            Self::Decide => 32,
            Self::Packet => 2048,
            Self::Parse => 512,
            Self::Yaml => 8192,
        }
    }

    fn search(self, programs: &Path, seconds: u32, engine: &[String]) -> Result<()> {
        let name = self.name();
        let (corpus, crashes) = (
            format!("{FOLDER}/corpus/{name}"),
            format!("{FOLDER}/crashes/{name}/"),
        );
        for folder in [&corpus, &crashes] {
            fs::create_dir_all(shell::root().join(folder))
                .with_context(|| format!("failed to create {folder}"))?;
        }
        let log = shell::root().join(format!("{FOLDER}/{name}.log"));
        let mut fuzzer = shell::command(programs.join(&name));
        // An input for libFuzzer to try again stands for all others.
        if engine.iter().all(|argument| argument.starts_with('-')) {
            fuzzer.args(self.inputs(&corpus));
        }
        fuzzer.args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={}", self.max_len()),
            format!("-artifact_prefix={crashes}"),
        ]);
        // A hanging input is a find too; a busy machine is none.
        fuzzer.args(["-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        fuzzer.args(engine);
        into_file(&mut fuzzer, &log)?;
        let done = shell::run(&mut fuzzer);
        let said = fs::read(&log).with_context(|| format!("failed to read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        match done {
            Ok(()) => {
                eprintln!("fuzz: {name}: {}", summary(&said));
                Ok(())
            }
            Err(error) => Err(anyhow!(
                "{}\n{name}: {error:#}; the whole log is {}\n\
                 the input is in {crashes}: give it a name that says what went wrong and put it \
                 into agent/policy/tests/crashes/{name}",
                last_lines(&said),
                log.display()
            )),
        }
    }

    /// Folders of inputs, the one that the search adds to first.
    fn inputs(self, corpus: &str) -> Vec<String> {
        let name = self.name();
        let mut folders = vec![corpus.to_owned(), format!("{FOLDER}/seeds/{name}")];
        if self == Self::Yaml {
            folders.extend(TEXTS.map(str::to_owned));
        }
        let known = format!("agent/policy/tests/crashes/{name}");
        if shell::root().join(&known).is_dir() {
            folders.push(known);
        }
        if self == Self::Yaml {
            folders.push(format!("-dict={FOLDER}/seeds/words.dict"));
        }
        folders
    }
}

fn into_file(command: &mut Command, path: &Path) -> Result<()> {
    let log = File::create(path).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = log.with_context(|| format!("failed to create {}", path.display()))?;
    command.stdout(out).stderr(err);
    Ok(())
}

/// How many inputs were tried, and what they reached.
fn summary(log: &str) -> String {
    let stat = |name: &str| {
        let line = log.lines().rev().find_map(|line| {
            line.strip_prefix("stat::")?
                .strip_prefix(name)?
                .strip_prefix(':')
        });
        line.map_or("?", str::trim).to_owned()
    };
    let reached = log
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: "))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or("?");
    format!(
        "{} inputs, {} a second, {reached} edges, {} new inputs kept",
        stat("number_of_executed_units"),
        stat("average_exec_per_sec"),
        stat("new_units_added"),
    )
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_of_a_log_are_told() {
        let log = "#2\tINITED cov: 10 ft: 12\n#9\tDONE   cov: 57 ft: 99 corp: 3\n\
                   stat::number_of_executed_units: 9\nstat::average_exec_per_sec:     4\n\
                   stat::new_units_added:          3\n";
        assert_eq!(
            summary(log),
            "9 inputs, 4 a second, 57 edges, 3 new inputs kept"
        );
        assert!(summary("").starts_with("? inputs"));
    }

    #[test]
    fn a_log_is_cut_to_its_end() {
        assert_eq!(last_lines("a\nb"), "a\nb");
        let long = "x\n".repeat(500) + "end";
        assert_eq!(last_lines(&long).lines().count(), LAST_LINES);
        assert!(last_lines(&long).ends_with("end"));
    }

    #[test]
    fn every_target_has_a_program() {
        for target in Target::value_variants() {
            let main = format!("agent/policy/fuzz/src/bin/{}.rs", target.name());
            assert!(shell::root().join(&main).is_file(), "{main}");
        }
    }
}
