//! `cargo xtask ci`: what must pass before a change lands.

use anyhow::Result;

use crate::{demo, fuzz, lint, setup, test, vm_test};

/// Set up, lint, fuzz for a few minutes, run a part of the tests on the oldest kernel and the newest in virtual
/// machines, then the commands of the README: `cargo xtask demo`, `cargo xtask test --kubernetes` and `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    setup::ensure()?;
    lint::run(&lint::Args {})?;
    fuzz::run(&fuzz::Args::default())?;
    vm_test::check()?;
    demo::run(&demo::Args::default())?;
    test::check_in_a_cluster()?;
    // Last, so that the output ends with the result of all tests.
    test::run(&test::Args::default())
}
