//! `cargo xtask bench`: what a large cluster costs the core, and what a packet costs, by
//! `BPF_PROG_TEST_RUN`.

use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    build::{self, Object},
    setup, shell,
};

/// Measure compiling and reading the policies of a large cluster, and nanoseconds per packet.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this one.
    what: Option<Bench>,
    /// Fewer rounds and sizes: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// The figures of the core as JSON, one a line; those of packets are in target/bench.json.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Compiling and reading: needs nothing but the core.
    Policy,
    /// Packets: loads programs into the kernel and needs root.
    Datapath,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { what, quick, json } = args;
    let benches: &[Bench] = match what {
        Some(Bench::Policy) => &[Bench::Policy],
        Some(Bench::Datapath) => &[Bench::Datapath],
        None => &[Bench::Policy, Bench::Datapath],
    };
    if benches.contains(&Bench::Datapath) && !rustix::process::geteuid().is_root() {
        bail!(
            "the benchmark of packets loads programs into the kernel and needs root: run this as \
             root, or `cargo xtask bench policy` for the other"
        );
    }
    for bench in benches {
        let mut cargo = match bench {
            Bench::Policy => policy(),
            Bench::Datapath => datapath()?,
        };
        cargo.arg("--");
        if *quick {
            cargo.arg("--quick");
        }
        if *json && *bench == Bench::Policy {
            cargo.arg("--json");
        }
        shell::run(&mut cargo)?;
    }
    Ok(())
}

fn policy() -> Command {
    let mut cargo = shell::command("cargo");
    cargo.args(["bench", "--package", "agent-policy", "--bench", "scale"]);
    cargo
}

fn datapath() -> Result<Command> {
    setup::ensure()?;
    let object = build::object(Object::Bench)?;
    let mut cargo = shell::command("cargo");
    cargo.env("RINGFENCE_BPF_OBJECT", &object);
    cargo.args(["bench", "--package", "tests", "--bench", "datapath"]);
    Ok(cargo)
}
