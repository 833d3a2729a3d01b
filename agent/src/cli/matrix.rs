//! `policy matrix`: the truth table over all pods and workloads.
//!
//! Takes a world that somebody else has loaded; the verdicts are the given evaluator's.

use std::io::Write;

use agent_policy::{
    connection::{Perspective, Port},
    matrix::{Axes, Matrix},
    model::World,
    question::Evaluator,
};
use clap::Args;

use crate::{
    cli::{
        asked::Asked,
        output::{self, Format},
    },
    exit::Answer,
};

/// Show who reaches whom: one row for each source, one column for each destination.
///
/// Exit code: 0, or 2 on an error.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Destination port, as for explain; repeat it for several
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    /// Nodes too, behind the pods and workloads
    #[arg(long)]
    nodes: bool,
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
    perspective: Perspective,
    out: &mut impl Write,
) -> anyhow::Result<Answer> {
    let MatrixArgs {
        asked: _,
        nodes,
        ports,
        output,
    } = args;
    let axes = if *nodes {
        Axes::WorkloadsAndNodes
    } else {
        Axes::Workloads
    };
    let matrix = Matrix::new(world, evaluator, axes, ports, perspective);
    output::unless_closed(match output {
        Format::Human => matrix.render(out),
        Format::Json => output::json(&matrix, out),
    })?;
    Ok(Answer::Yes)
}
