//! `cargo xtask ci`: what must pass before a change lands.

use std::time::Instant;

use anyhow::Result;

use crate::{demo, fuzz, lint, setup, shell, test, vm_test};

/// Set up, lint, fuzz for a few minutes, run a part of the tests on the oldest kernel and the newest in virtual
/// machines, then the commands of the README: `cargo xtask demo`, `cargo xtask test --kubernetes` and `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

type Step = (&'static str, fn() -> Result<()>);

/// The tests are last, so that the output ends with the result of all of them.
const STEPS: [Step; 7] = [
    ("setup", setup::ensure),
    ("lint", || lint::run(&lint::Args {})),
    ("fuzz", || fuzz::run(&fuzz::Args::default())),
    ("vm-test", vm_test::check),
    ("demo", || demo::run(&demo::Args::default())),
    ("test --kubernetes", test::check_in_a_cluster),
    ("test", || test::run(&test::Args::default())),
];

pub(crate) fn run(_: &Args) -> Result<()> {
    let began = Instant::now();
    for (name, step) in STEPS {
        let seconds = began.elapsed().as_secs();
        // A run that ends early or late, or for want of room, has said where.
        let free = free().map_or_else(|| "?".to_owned(), |bytes| (bytes >> 30).to_string());
        eprintln!("ci: {name}: after {seconds} s, {free} GiB free");
        step()?;
    }
    Ok(())
}

/// Bytes that builds may still write.
fn free() -> Option<u64> {
    let disk = rustix::fs::statvfs(shell::root()).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
