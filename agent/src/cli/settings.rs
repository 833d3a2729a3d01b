//! `ringfence run` and `ringfence detach`: settings from the command line, and then the daemon.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::output::{self, Format};
use crate::{
    config::{Config, RawConfig, RawKubernetes},
    daemon,
    exit::Answer,
    log::{self, LogFormat},
};

/// Settings that every agent process has.
#[derive(Debug, Args)]
struct AgentArgs {
    /// Settings file, of YAML or JSON. Flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for pinned programs, links and maps, in a bpffs.
    #[arg(long, value_name = "PATH")]
    bpffs: Option<PathBuf>,
    /// Folder for what the agent remembers.
    #[arg(long, value_name = "PATH")]
    state_dir: Option<PathBuf>,
    /// Control socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Form of the logs on standard error.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Policy and inventory: a file, a folder, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Take policies, pods and all else from the Kubernetes API, beside files: as a pod is given it, or as
    /// $KUBECONFIG says.
    #[arg(long)]
    kubernetes: bool,
    /// Reach the Kubernetes API as this file says. Implies --kubernetes.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node; its host name by default.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Write flow records as JSON lines to a file, or to standard output by -.
    #[arg(long, value_name = "PATH")]
    flows: Option<String>,
    /// Answer Prometheus at this address, at /metrics, by HTTP to whoever reaches it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<String>,
    /// End enforcement with the agent. Otherwise the kernel keeps enforcing without it.
    #[arg(long)]
    detach_on_exit: bool,
    /// Print the settings as they are after file and flags, and exit.
    #[arg(long)]
    print_config: bool,
    /// Form of what --print-config prints; YAML by default.
    #[arg(short, long, value_name = "FORMAT", requires = "print_config")]
    output: Option<Format>,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Remove the folder of what the agent remembers, too.
    #[arg(long)]
    purge: bool,
    /// Stay afterwards until told to end, so that a pod can show that its node is done.
    #[arg(long)]
    stay: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl RunArgs {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let Self {
            files,
            kubernetes,
            kubeconfig,
            node,
            flows,
            metrics,
            detach_on_exit,
            print_config,
            output,
            agent,
        } = self;
        let flags = RawConfig {
            policies: (!files.is_empty()).then_some(files),
            kubernetes: (kubernetes || kubeconfig.is_some())
                .then_some(RawKubernetes { kubeconfig }),
            node,
            flows,
            metrics,
            detach_on_exit: detach_on_exit.then_some(true),
            ..RawConfig::default()
        };
        let config = agent.load(flags)?;
        if print_config {
            print(
                &config,
                output.unwrap_or_default(),
                &mut io::stdout().lock(),
            )?;
            return Ok(Answer::Yes);
        }
        let config = config.with_policies()?;
        log::start(config.log_format)?;
        // Before the runtime starts its threads: they have what capabilities are left by then.
        let prepared = daemon::prepare(config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let ended = runtime.block_on(prepared.run());
        // What still hangs somewhere, such as at a reader of standard output that has stopped, keeps nobody.
        runtime.shutdown_timeout(ENDING);
        ended.map(|()| Answer::Yes)
    }
}

/// For threads that wait for others, when all else has ended.
const ENDING: Duration = Duration::from_secs(1);

impl DetachArgs {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let Self { purge, stay, agent } = self;
        let config = agent.load(RawConfig::default())?;
        log::start(config.log_format)?;
        daemon::detach(&config)?;
        if purge {
            daemon::purge(&config)?;
        }
        if stay {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            runtime.block_on(daemon::told_to_end())?;
        }
        Ok(Answer::Yes)
    }
}

impl AgentArgs {
    fn load(self, flags: RawConfig) -> anyhow::Result<Config> {
        let Self {
            config,
            bpffs,
            state_dir,
            socket,
            log_format,
        } = self;
        let flags = RawConfig {
            bpffs,
            state_dir,
            socket,
            log_format,
            ..flags
        };
        Ok(Config::load(config.as_deref(), flags)?)
    }
}

fn print(config: &Config, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    match format {
        Format::Human => out.write_all(serde_saphyr::to_string(config)?.as_bytes())?,
        Format::Json => output::json(config, out)?,
    }
    Ok(())
}
