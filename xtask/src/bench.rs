//! `cargo xtask bench`: what a large cluster costs the core, what a packet costs, by
//! `BPF_PROG_TEST_RUN`, and what connections and packets cost on real interfaces, and what the agent costs
//! with a large policy, with many records and with a large cluster in the API of Kubernetes.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    build::{self, Object},
    kubernetes, setup, shell,
};

/// Measure compiling and reading the policies of a large cluster, nanoseconds per packet, and traffic
/// with and without a policy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this one.
    what: Option<Bench>,
    /// Fewer rounds and sizes: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// The figures of the core as JSON, one a line; the others are in target/bench*.json.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Compiling and reading: needs nothing but the core.
    Policy,
    /// Packets: loads programs into the kernel and needs root.
    Datapath,
    /// Connections and packets between namespaces, against no policy and against nftables; needs root.
    Wire,
    /// Start, change, memory and events of an agent with a large policy; needs root.
    Agent,
    /// Records on their way out, for each kind of sink; loads programs into the kernel and needs root.
    Records,
    /// Policies and pods of an API server of Kubernetes, from the call to what the kernel does; needs root.
    Kubernetes,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { what, quick, json } = args;
    let benches: &[Bench] = match what {
        Some(Bench::Policy) => &[Bench::Policy],
        Some(Bench::Datapath) => &[Bench::Datapath],
        Some(Bench::Wire) => &[Bench::Wire],
        Some(Bench::Agent) => &[Bench::Agent],
        Some(Bench::Records) => &[Bench::Records],
        Some(Bench::Kubernetes) => &[Bench::Kubernetes],
        None => &[
            Bench::Policy,
            Bench::Datapath,
            Bench::Wire,
            Bench::Agent,
            Bench::Records,
            Bench::Kubernetes,
        ],
    };
    if benches != [Bench::Policy] && !rustix::process::geteuid().is_root() {
        bail!(
            "the benchmarks of packets load programs into the kernel and need root: run this as \
             root, or `cargo xtask bench policy` for the other"
        );
    }
    for bench in benches {
        let mut cargo = match bench {
            Bench::Policy => policy(),
            Bench::Datapath => datapath()?,
            Bench::Wire => shipped("bench-wire")?,
            Bench::Agent => shipped("bench-agent")?,
            Bench::Records => records()?,
            Bench::Kubernetes => match (kubernetes::prepare()?, what) {
                (Ok(()), _) => {
                    let mut cargo = shipped("bench-kubernetes")?;
                    cargo.env("RINGFENCE_KUBE_BIN", kubernetes::programs()?);
                    cargo
                }
                (Err(why), Some(_)) => bail!(why),
                (Err(why), None) => {
                    eprintln!("bench kubernetes: skipped: {why}");
                    continue;
                }
            },
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

/// The agent is the one that ships; the program that writes events is beside it.
fn records() -> Result<Command> {
    build::run(&build::Args { release: true })?;
    let object = build::object(Object::Bench)?;
    let mut cargo = shell::command("cargo");
    cargo.env("RINGFENCE_BPF_OBJECT", &object);
    cargo.env("RINGFENCE_BIN", shipped_binary());
    cargo.args(["bench", "--package", "tests", "--bench", "records"]);
    Ok(cargo)
}

fn shipped_binary() -> PathBuf {
    shell::root().join("target/release/ringfence")
}

/// Of what ships: the release binary with its release object. A program of its own, which needs the
/// lab alone.
fn shipped(program: &str) -> Result<Command> {
    build::run(&build::Args { release: true })?;
    let mut cargo = shell::command("cargo");
    cargo.env("RINGFENCE_BIN", shipped_binary());
    cargo.args(["run", "--release", "--package", "tests", "--bin", program]);
    Ok(cargo)
}
