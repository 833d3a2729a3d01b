//! `cargo xtask demo`: the microsegmentation example on real traffic.
//!
//! Each role of `policies/demo` becomes a network namespace on a bridge. Every connection of the
//! script is tried twice: without an agent, when all must work, and with one, when only those
//! that policy permits may. Nothing outside the lab's own namespaces is touched.

mod explain;
mod keep;
mod script;
mod stage;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::{Agent, binary};
use ringfence_lab::interrupt::Interrupt;
use ringfence_lab::probe::Outcome;

use crate::build;
use explain::Explanation;
use script::SCRIPT;
use stage::Stage;
use table::{Paint, Row};

/// Flow records shown at the end.
const FLOWS: usize = 12;

/// Enforce the example policy on real connections and compare (needs root).
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave the lab and the agent up until Ctrl-C, and say what to try
    #[arg(long)]
    keep: bool,
    /// Demonstrate the release build
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::install()?;
    build(args.release)?;
    interrupt.check()?;

    println!("building the lab: a namespace for each role, joined by a bridge");
    let stage = Stage::build()?;
    interrupt.check()?;
    let before = stage.play(SCRIPT);
    let closed: Vec<_> = SCRIPT
        .iter()
        .zip(&before)
        .filter(|(_, seen)| **seen != Outcome::Allowed)
        .map(|(attempt, seen)| format!("{attempt}: {seen}"))
        .collect();
    ensure!(
        closed.is_empty(),
        "without an agent all should work, but {}",
        closed.join(", ")
    );
    println!("without an agent: all {} connections work", SCRIPT.len());
    interrupt.check()?;

    let policies = policies()?;
    let mut agent = Agent::prepare(&stage.lab, "agent", &[&policies])?.with(&[
        "--node",
        "demo-node",
        "--detach-on-exit",
    ]);
    println!("starting the agent: {}", shown(&agent.run_command()));
    agent.start()?;
    interrupt.check()?;

    let after = stage.play(SCRIPT);
    interrupt.check()?;
    let mut rows = Vec::new();
    for (attempt, seen) in SCRIPT.iter().zip(after) {
        let explanation = Explanation::ask(agent.binary(), &policies, *attempt, &stage)
            .with_context(|| format!("cannot explain {attempt}"))?;
        rows.push(Row {
            attempt,
            seen,
            explanation,
        });
    }
    let paint = Paint::of_stdout();
    println!("\nwith the agent:\n\n{}", table::render(&rows, paint));
    println!("the last flow records:\n\n{}", agent.flow_table(FLOWS)?);

    let wrong = rows.iter().filter(|row| !row.is_right()).count();
    println!("{}", table::summary(rows.len(), wrong, paint));
    if args.keep && !interrupt.raised() {
        println!("{}", keep::invitation(&stage, &agent, &policies));
        interrupt.wait()?;
        println!("taking the lab down");
    }
    agent.terminate()?;
    ensure!(
        wrong == 0,
        "{wrong} of {} connections differ from what policy says\n",
        rows.len()
    );
    Ok(())
}

/// Builds the agent, unless one is named by `RINGFENCE_BIN`.
fn build(release: bool) -> Result<()> {
    if std::env::var_os("RINGFENCE_BIN").is_none() {
        build::run(&build::Args { release })?;
    }
    binary().map(|_| ())
}

fn policies() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root
        .context("xtask lies in the workspace")?
        .join("policies/demo"))
}

/// A command line as one would type it. Nothing in the demo needs quoting.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
