//! `ringfence policy …`: questions about policy files. Needs no agent and no privileges.

use std::{io, path::PathBuf, process::ExitCode};

use agent_policy::{compiled::Everywhere, load::assemble, model::World};
use clap::Subcommand;

use crate::{
    cli::{check, explain, matrix},
    source::files,
};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Matrix(matrix::MatrixArgs),
}

/// The input has errors, all of which have been printed.
#[derive(Debug, thiserror::Error)]
#[error("{count} in the input; nothing was answered")]
struct BrokenInput {
    count: String,
}

impl PolicyCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        Ok(match self {
            Self::Check(args) => {
                drop(out);
                check::run(&args)
            }
            Self::Explain(args) => {
                let world = load(&args.paths)?;
                explain::run(&args, &world, &Everywhere::new(&world), &mut out)?
            }
            Self::Matrix(args) => {
                let world = load(&args.paths)?;
                matrix::run(&args, &world, &Everywhere::new(&world), &mut out)?
            }
        })
    }
}

/// The world of `paths`; what is wrong with it goes to standard error.
fn load(paths: &[PathBuf]) -> anyhow::Result<World> {
    let files = files::parse(paths);
    let (world, between) = assemble(&files);
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
