//! `ringfence policy …`: questions about policy files. Needs no agent and no privileges.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use agent_policy::{
    compiled::Everywhere,
    load::{ParsedFile, assemble_with},
    model::{Failsafe, World},
};
use clap::{Args, Subcommand};

use crate::{
    cli::{check, diff, explain, matrix, test},
    config::{Config, ConfigError, RawConfig},
    exit::Answer,
    source::files,
};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Matrix(matrix::MatrixArgs),
    Diff(diff::DiffArgs),
    Test(test::TestArgs),
    Verify(test::VerifyArgs),
}

/// The input has errors, all of which have been printed.
#[derive(Debug, thiserror::Error)]
#[error("{count} in the input; nothing was answered")]
struct BrokenInput {
    count: String,
}

/// What a question is about.
#[derive(Debug, Args)]
pub(crate) struct Input {
    /// Policy and inventory: a file, a folder, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// The settings of the agent that the policies are for.
#[derive(Debug, Default, Args)]
pub(crate) struct Settings {
    /// Settings file of the agent, for its `failsafe`; the failsafe that `run` has without, if left
    /// out
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl PolicyCommand {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        self.answer(&mut io::stdout().lock())
    }

    fn answer(self, out: &mut impl Write) -> anyhow::Result<Answer> {
        match self {
            Self::Check(args) => check::run(&args, out),
            Self::Explain(args) => {
                let (world, look) = (args.asked.world()?, args.asked.perspective());
                let tables = Everywhere::new(&world, look.at);
                explain::run(&args, &world, &tables, look, out)
            }
            Self::Matrix(args) => {
                let (world, look) = (args.asked.world()?, args.asked.perspective());
                let tables = Everywhere::new(&world, look.at);
                matrix::run(&args, &world, &tables, look, out)
            }
            Self::Diff(args) => args.run(out),
            Self::Test(args) => args.run(out),
            Self::Verify(args) => args.run(out),
        }
    }
}

impl Input {
    pub(crate) fn of(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    pub(crate) fn parse(&self) -> Vec<ParsedFile> {
        files::parse(&self.paths)
    }
}

impl Settings {
    pub(crate) fn failsafe(&self) -> Result<Vec<Failsafe>, ConfigError> {
        let Self { config } = self;
        let config = Config::load(config.as_deref(), RawConfig::default())?;
        Ok(config.failsafe.rules())
    }
}

/// The world that files and settings describe; what is wrong with them goes to standard error.
pub(crate) fn world_of(files: &[ParsedFile], settings: &Settings) -> anyhow::Result<World> {
    let (world, between) = assemble_with(files, settings.failsafe()?);
    let errors: Vec<_> = files
        .iter()
        .flat_map(|file| &file.diagnostics)
        .chain(&between)
        .filter(|diagnostic| diagnostic.is_error())
        .collect();
    if errors.is_empty() {
        return Ok(world);
    }
    for error in &errors {
        eprintln!("{error}");
    }
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    };
    Err(BrokenInput { count }.into())
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches as _, Subcommand as _};

    use super::*;

    const WORLD: &str = r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: desk, namespace: ops}
spec: {addresses: [192.0.2.7]}
---
apiVersion: v1
kind: Node
metadata: {name: gate}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: ssh}
spec:
  expect:
  - {from: ops/desk, to: node/gate, ports: [TCP/22], verdict: allow}
  assert:
  - {name: operators get in, reach: always, from: [{cidr: {block: 192.0.2.0/24}}], to: [{nodes: {}}], ports: [TCP/22]}
";

    const LOCKED: &str = "apiVersion: ringfence.io/v1alpha1\nkind: RingfencePolicy\nmetadata: {name: \
        locked}\nspec: {tier: Admin, priority: 1, subject: {nodes: {}}, ingress: [{action: Deny, from: \
        [{cidr: {block: 192.0.2.0/24}}], ports: [{tcp: {port: 22}}]}]}\n";

    const SETTINGS: &str = "failsafe: {managementCidrs: [192.0.2.0/24]}\n";

    fn answered(line: &[&str]) -> (Answer, String) {
        let command = PolicyCommand::augment_subcommands(clap::Command::new("policy"));
        let line = [&["policy"], line].concat();
        let matches = command.try_get_matches_from(line).unwrap();
        let mut out = Vec::new();
        let command = PolicyCommand::from_arg_matches(&matches).unwrap();
        let answer = command.answer(&mut out).unwrap();
        (answer, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_question_heeds_the_failsafe_of_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (world, locked) = (file("world.yaml", WORLD), file("locked.yaml", LOCKED));
        let (open, settings) = (file("open.yaml", ""), file("settings.yaml", SETTINGS));
        let both = ["-f", &world, "-f", &locked];
        let ends = [
            "--from",
            "ops/desk",
            "--to",
            "node/gate",
            "--port",
            "TCP/22",
        ];
        let lines: [Vec<&str>; 4] = [
            [&["explain"][..], &both, &ends].concat(),
            vec!["diff", &open, &locked, "-f", &world],
            [&["test"][..], &both].concat(),
            [&["verify"][..], &both].concat(),
        ];
        for line in lines {
            let (without, _) = answered(&line);
            let (with, text) = answered(&[&line[..], &["--config", &settings]].concat());
            assert_eq!(
                (without, with),
                (Answer::No, Answer::Yes),
                "{line:?} {text}"
            );
        }
        let verdict = |flags: &[&str]| {
            let line = ["matrix", "--nodes", "--port", "TCP/22", "-o", "json"];
            let (_, text) = answered(&[&line[..], &both, flags].concat());
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let pairs = json["pairs"].as_array().unwrap();
            let pair = pairs.iter().find(|pair| pair["from"] == "ops/desk");
            pair.unwrap()["verdict"].clone()
        };
        assert_eq!(verdict(&[]), "deny");
        assert_eq!(verdict(&["--config", &settings]), "allow");
    }
}
