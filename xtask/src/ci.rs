//! `cargo xtask ci`: what must pass before a change lands.

use anyhow::Result;

use crate::{demo, lint, setup, test};

/// Set up, lint, then both commands of the README: `cargo xtask demo` and `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    setup::ensure()?;
    lint::run(&lint::Args {})?;
    demo::run(&demo::Args::default())?;
    test::run(&test::Args::default())
}
