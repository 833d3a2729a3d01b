//! `cargo xtask ci`: what must pass before a change lands.

use anyhow::Result;

use crate::{demo, fuzz, lint, setup, test, vm_test};

/// Set up, lint, fuzz for a few minutes, run a part of the tests on the oldest kernel and the newest in virtual
/// machines, then the commands of the README: `cargo xtask demo` and `cargo xtask test`, and this with `--kubernetes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    setup::ensure()?;
    lint::run(&lint::Args {})?;
    fuzz::run(&fuzz::Args::default())?;
    vm_test::check()?;
    demo::run(&demo::Args::default())?;
    test::run(&test::Args::default())?;
    test::check_in_a_cluster()
}
