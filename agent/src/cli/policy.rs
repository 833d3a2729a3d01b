//! `ringfence policy …`: questions about policy files. Needs no agent and no privileges.

use std::{io, path::PathBuf};

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
        let mut out = io::stdout().lock();
        match self {
            Self::Check(args) => check::run(&args, &mut out),
            Self::Explain(args) => {
                let (world, look) = (args.asked.world()?, args.asked.perspective());
                let tables = Everywhere::new(&world, look.at);
                explain::run(&args, &world, &tables, look, &mut out)
            }
            Self::Matrix(args) => {
                let (world, look) = (args.asked.world()?, args.asked.perspective());
                let tables = Everywhere::new(&world, look.at);
                matrix::run(&args, &world, &tables, look, &mut out)
            }
            Self::Diff(args) => args.run(&mut out),
            Self::Test(args) => args.run(&mut out),
            Self::Verify(args) => args.run(&mut out),
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
