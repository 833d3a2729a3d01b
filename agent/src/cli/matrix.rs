//! `policy matrix`: the truth table over all pods and workloads.
//!
//! Takes a world that somebody else has loaded; the verdicts are the given evaluator's.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use agent_policy::{connection::Port, matrix::Matrix, model::World, question::Evaluator};
use clap::{Args, ValueEnum};

/// Show who reaches whom: one row for each source, one column for each destination.
///
/// Exit code: 0, or 2 on an error.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// File or folder with policies and workloads; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Destination port, as for explain; repeat it for several
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Human,
    Json,
}

/// Why the table could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MatrixError {
    #[error("failed to write the table")]
    Write(#[from] io::Error),
    #[error("failed to write the table as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes the table to `out`.
///
/// # Errors
///
/// If `out` fails.
pub(crate) fn run(
    args: &MatrixArgs,
    world: &World,
    evaluator: &impl Evaluator,
    out: &mut impl Write,
) -> Result<ExitCode, MatrixError> {
    let MatrixArgs {
        paths: _,
        ports,
        output,
    } = args;
    let matrix = Matrix::new(world, evaluator, ports);
    match output {
        Output::Human => matrix.render(out)?,
        Output::Json => {
            serde_json::to_writer(&mut *out, &matrix)?;
            writeln!(out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
