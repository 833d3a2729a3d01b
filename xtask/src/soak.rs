//! `cargo xtask soak`: everything at once, for long. Not a part of `ci`.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use ringfence_lab::{
    interrupt::Interrupt,
    soak::{self, Plan},
};

use crate::{build, shell};

/// Change policies and endpoints, kill agents and send traffic at random, and look for wrong verdicts and
/// for leaks (needs root).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// The script of an earlier run again; when what happens exactly is up to the machine.
    #[arg(long)]
    seed: Option<u64>,
    /// Soak the release build.
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        minutes,
        seed,
        release,
    } = args;
    if !rustix::process::geteuid().is_root() {
        bail!("the soak loads programs into the kernel and needs root");
    }
    let interrupt = Interrupt::install()?;
    if std::env::var_os("RINGFENCE_BIN").is_none() {
        build::run(&build::Args { release: *release })?;
    }
    let plan = Plan {
        span: Duration::from_secs(minutes * 60),
        seed: seed.unwrap_or_else(some_seed),
        helper: helper()?,
    };
    println!("soaking for {minutes} min, seed {}", plan.seed);
    let report = soak::run(&plan, |report| {
        interrupt.check()?;
        println!("{}", report.line());
        Ok(())
    })?;
    println!("{report}");
    Ok(())
}

/// Any will do, as long as it is told.
fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Builds the program that lives in control groups.
fn helper() -> Result<PathBuf> {
    let mut cargo = shell::command("cargo");
    cargo.args(["build", "--package", "tests", "--bin", "lab-peer"]);
    shell::run(&mut cargo)?;
    let path = shell::root().join("target/debug/lab-peer");
    path.canonicalize()
        .with_context(|| format!("no {}", path.display()))
}
