//! `cargo xtask bench`: what a packet costs, by `BPF_PROG_TEST_RUN`.

use anyhow::{Result, bail};

use crate::{
    build::{self, Object},
    setup, shell,
};

/// Measure nanoseconds per packet, and what the programs cost to load.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds and sizes: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { quick } = args;
    if !rustix::process::geteuid().is_root() {
        bail!("the benchmark loads programs into the kernel and needs root");
    }
    setup::ensure()?;
    let object = build::object(Object::Bench)?;
    let mut cargo = shell::command("cargo");
    cargo.env("RINGFENCE_BPF_OBJECT", &object);
    cargo.args(["bench", "--package", "tests", "--bench", "datapath"]);
    if *quick {
        cargo.args(["--", "--quick"]);
    }
    shell::run(&mut cargo)
}
