//! `policy matrix`: the truth table over all pods and workloads.
//!
//! Takes a world that somebody else has loaded; the verdicts are the given evaluator's.

use std::io::Write;

use agent_policy::{
    connection::Port,
    matrix::Matrix,
    model::{Time, World},
    question::Evaluator,
};
use clap::Args;

use crate::{
    cli::{
        output::{self, Format},
        policy::Input,
    },
    exit::Answer,
};

/// Show who reaches whom: one row for each source, one column for each destination.
///
/// Exit code: 0, or 2 on an error.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Destination port, as for explain; repeat it for several
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
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
    at: Time,
    out: &mut impl Write,
) -> anyhow::Result<Answer> {
    let MatrixArgs {
        input: _,
        ports,
        output,
    } = args;
    let matrix = Matrix::new(world, evaluator, ports, at);
    output::unless_closed(match output {
        Format::Human => matrix.render(out),
        Format::Json => output::json(&matrix, out),
    })?;
    Ok(Answer::Yes)
}
