//! The command line. Each command is a module with its arguments and a function that runs it.
//!
//! Every human output is a rendering, into a writer, of a value that also prints as JSON; only `top` draws on a terminal.

pub(crate) mod asked;
pub(crate) mod check;
pub(crate) mod cni;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod helper;
pub(crate) mod matrix;
pub(crate) mod output;
pub(crate) mod pods;
pub(crate) mod policy;
pub(crate) mod schema;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod top;

use std::{env, io, process::ExitCode};

use agent_policy::shown::shown;
use clap::{Parser, Subcommand};

use crate::{
    cni as plugin,
    control::client::ClientError,
    exit::{self, Answer},
};

/// Host microsegmentation by eBPF: allow-lists become drops in the kernel, traffic becomes records.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all is well, or permitted; 1 the answer is no; 2 an error.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Enforce policy and record flows, until stopped.
    Run(settings::RunArgs),
    Status(status::StatusArgs),
    /// Show flow records of the running agent.
    Flows(Box<flows::FlowsArgs>),
    Top(top::TopArgs),
    /// Check policy files, and ask what they mean.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Schema(schema::SchemaArgs),
    Pods(pods::PodsArgs),
    Cni(cni::CniArgs),
    /// End enforcement: remove every program, link and map.
    Detach(settings::DetachArgs),
    #[command(subcommand, hide = true)]
    Helper(helper::HelperCommand),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    // A container runtime starts a plugin without arguments.
    if env::args_os().len() == 1 && env::var_os(plugin::COMMAND).is_some() {
        return plugin::run();
    }
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Run(args) => args.run(),
        Command::Status(args) => status::run(&args),
        Command::Flows(args) => flows::run(*args),
        Command::Top(args) => top::run(&args),
        Command::Policy(command) => command.run(),
        Command::Schema(args) => schema::run(&args, &mut io::stdout().lock()),
        Command::Pods(args) => pods::run(args),
        Command::Cni(args) => match args.run() {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Detach(args) => args.run(),
        Command::Helper(command) => command.run(),
    };
    match result {
        Ok(answer) => answer.into(),
        // Whoever reads has seen enough, as in `ringfence flows | head`.
        Err(error) if is_broken_pipe(&error) => Answer::Yes.into(),
        Err(error) => {
            // What it says can be of a file, and has lines of its own.
            for (number, line) in format!("{error:#}").lines().enumerate() {
                let start = if number == 0 { "error: " } else { "" };
                eprintln!("{start}{}", shown(line));
            }
            ExitCode::from(exit::ERROR)
        }
    }
}

/// Whether whoever reads our output has gone; a socket to an agent that has gone is another matter.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    if error
        .chain()
        .any(<dyn std::error::Error>::is::<ClientError>)
    {
        return false;
    }
    error.chain().any(|cause| {
        let written = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let encoded = cause
            .downcast_ref::<serde_json::Error>()
            .and_then(serde_json::Error::io_error_kind);
        written.or(encoded) == Some(io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_reader_that_went_away_is_known_through_every_layer() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let encoded = serde_json::Error::io(broken());
        assert!(is_broken_pipe(&anyhow::Error::from(broken())));
        assert!(is_broken_pipe(
            &Err::<(), _>(encoded).context("the answer").unwrap_err()
        ));
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert!(!is_broken_pipe(&anyhow::Error::from(other)));
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
