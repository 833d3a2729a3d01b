//! `cargo xtask ci`: what must pass before a change lands.

use anyhow::Result;

use crate::{lint, setup, test};

/// Set up, lint, then exactly `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    setup::ensure()?;
    lint::run(&lint::Args {})?;
    test::run(&test::Args::default())
}
