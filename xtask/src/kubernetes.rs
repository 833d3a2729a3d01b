//! `cargo xtask kubernetes`: one real node of Kubernetes on this machine, from Debian's parts.
//!
//! The work is done by shell scripts below `xtask/kubernetes`: it is namespaces, mounts and daemons. What is built once
//! is kept in the user's cache; nothing is installed but what `setup` knows.

use std::{
    env,
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{setup, shell};

/// A real one-node cluster, in namespaces of its own (needs root and Debian).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Bring it up, unless it is; the first time takes minutes, as Kubernetes is built from source.
    Up,
    /// End it, and remove all but the cache.
    Down,
    /// Run a command in its node's namespaces, such as `kubectl get pods -A`; brings it up for that time if need be.
    Run {
        #[arg(required = true, last = true)]
        command: Vec<OsString>,
    },
}

/// The cache, as the scripts have it.
const CACHE: &str = "KUBE_CACHE";
/// What the script for the cache exits with where the packages cannot be had.
const UNAVAILABLE: i32 = 75;

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { what } = args;
    ensure!(
        rustix::process::geteuid().is_root(),
        "a node is made of namespaces and mounts, which needs root"
    );
    match what {
        What::Up => up(),
        What::Down => down(),
        What::Run { command } => {
            let cluster = if is_up() { None } else { Some(Cluster::up()?) };
            let mut on = script("on");
            shell::run(on.arg("node").args(command))?;
            cluster.map_or(Ok(()), Cluster::down)
        }
    }
}

/// Why there can be no cluster here, if so: its packages cannot be installed, which says nothing of a change.
///
/// # Errors
/// If the cache cannot be built from packages that are there.
pub(crate) fn prepare() -> Result<Result<(), String>> {
    if let Err(why) = setup::ensure_cluster() {
        return Ok(Err(format!("{why:#}")));
    }
    let mut cache = script("cache.sh");
    let status = announced(&mut cache)?;
    match status.code() {
        Some(0) => Ok(Ok(())),
        Some(UNAVAILABLE) => Ok(Err("Debian's packages cannot be fetched".to_owned())),
        _ => bail!("the parts of a cluster cannot be built ({status})"),
    }
}

/// A cluster that is taken down again, when all goes well and when not.
#[derive(Debug)]
pub(crate) struct Cluster(());

impl Cluster {
    pub(crate) fn up() -> Result<Self> {
        let cluster = Self(());
        up()?;
        Ok(cluster)
    }

    pub(crate) fn down(self) -> Result<()> {
        std::mem::forget(self);
        down()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = down() {
            eprintln!("error: {error:#}");
        }
    }
}

/// The folder with kube-apiserver, etcd, kubectl and the others.
pub(crate) fn programs() -> Result<PathBuf> {
    Ok(cache()?.join("pkgs/usr/bin"))
}

/// The script that runs commands in the node, or outside of the cluster.
pub(crate) fn entrance() -> PathBuf {
    path("on")
}

fn up() -> Result<()> {
    if let Err(why) = prepare()? {
        bail!(why);
    }
    shell::run(&mut script("up.sh"))
}

fn down() -> Result<()> {
    shell::run(&mut script("down.sh"))
}

fn is_up() -> bool {
    shell::output(script("on").args(["node", "true"])).is_ok()
}

fn script(name: &str) -> Command {
    shell::command(path(name))
}

fn path(name: &str) -> PathBuf {
    shell::root().join("xtask/kubernetes").join(name)
}

fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os(CACHE) {
        return Ok(cache.into());
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/kube-debian"))
}

/// As [`shell::run`], for a command whose exit code says something.
fn announced(command: &mut Command) -> Result<ExitStatus> {
    eprintln!("$ {}", command.get_program().display());
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(status.signal().is_none(), "interrupted ({status})");
    Ok(status)
}
