//! `ringfence cni …`: the CNI plugin, and its place in a node's configuration.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cni::{
        self,
        install::{self, InstallError, Options, Outcome},
        keep,
    },
    exit::Answer,
};

/// A chained CNI plugin: pods start once the kernel enforces for them. Without a command it is that plugin, as a
/// container runtime starts it.
#[derive(Debug, Args)]
pub(crate) struct CniArgs {
    #[command(subcommand)]
    command: Option<CniCommand>,
}

#[derive(Debug, Subcommand)]
enum CniCommand {
    /// Add the plugin to the node's first CNI configuration, and copy the binary.
    Install(InstallArgs),
    /// Take the plugin out of the node's CNI configurations, and remove the binary.
    Uninstall(Folders),
}

#[derive(Debug, Args)]
struct Folders {
    /// Where the node's CNI configurations are.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Where the node's CNI plugins are.
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    folders: Folders,
    /// Let pods start, unconfined, where the agent cannot be asked.
    #[arg(long)]
    admit_when_unavailable: bool,
    /// How long a pod waits for the agent; 10 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout_seconds: Option<u64>,
    /// Control socket of the agent, as it is called on the node.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Stay, and add it again whenever somebody has written the configuration without it.
    #[arg(long)]
    watch: bool,
}

impl CniArgs {
    /// The plugin's answers are the runtime's to read, and so is its exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            None => Ok(cni::run()),
            Some(CniCommand::Install(args)) => args.run().map(Into::into),
            Some(CniCommand::Uninstall(args)) => args.uninstall().map(Into::into),
        }
    }
}

impl InstallArgs {
    fn run(self) -> anyhow::Result<Answer> {
        let Self {
            folders: Folders { conf_dir, bin_dir },
            admit_when_unavailable,
            timeout_seconds,
            socket,
            watch,
        } = self;
        let options = Options {
            socket,
            timeout_seconds,
            admit: admit_when_unavailable,
        };
        // First what the configuration will name: a runtime reads it at once.
        say(&install::copy_binary(&bin_dir)?)?;
        if watch {
            return stay(&conf_dir, &bin_dir, &options);
        }
        say(&install::install(&conf_dir, &options)?)?;
        Ok(Answer::Yes)
    }
}

/// With what has caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// Until it is told to end.
fn stay(conf_dir: &Path, bin_dir: &Path, options: &Options) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tell = |outcome: &Result<Outcome, InstallError>| {
            let told = match outcome {
                Ok(outcome) => say(outcome),
                Err(error) => writeln!(io::stderr(), "error: {}", chain(error)),
            };
            // What nobody reads any more is done all the same.
            told.unwrap_or(());
        };
        tokio::select! {
            () = keep::keep(conf_dir, bin_dir, options, tell) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(Answer::Yes)
    })
}

impl Folders {
    fn uninstall(self) -> anyhow::Result<Answer> {
        let Self { conf_dir, bin_dir } = self;
        for outcome in install::uninstall(&conf_dir)? {
            say(&outcome)?;
        }
        if let Some(path) = install::remove_binary(&bin_dir)? {
            writeln!(io::stdout(), "removed {}", path.display())?;
        }
        Ok(Answer::Yes)
    }
}

fn say(outcome: &Outcome) -> io::Result<()> {
    let mut out = io::stdout();
    match outcome {
        Outcome::Changed(path) => writeln!(out, "wrote {}", path.display()),
        Outcome::Unchanged(path) => writeln!(out, "{} is as it should be", path.display()),
    }
}
