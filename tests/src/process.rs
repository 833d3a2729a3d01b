//! What the kernel says of a process: whose child it is, and what it may do.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Capabilities by their numbers, and whether more can be gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub effective: u64,
    pub permitted: u64,
    pub bounding: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub no_new: bool,
}

impl Rights {
    /// Of the first thread of a process.
    pub fn of(pid: u32) -> Result<Self> {
        Self::read(Path::new(&format!("/proc/{pid}")))
    }

    /// Of every thread of a process.
    pub fn of_threads(pid: u32) -> Result<Vec<Self>> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")?;
        let tasks = tasks.map(|task| Self::read(&task.context("cannot list threads")?.path()));
        tasks.collect()
    }

    fn read(task: &Path) -> Result<Self> {
        let set = |name| {
            let text = field(task, name)?;
            u64::from_str_radix(&text, 16).with_context(|| format!("{name} {text}"))
        };
        Ok(Self {
            effective: set("CapEff")?,
            permitted: set("CapPrm")?,
            bounding: set("CapBnd")?,
            inheritable: set("CapInh")?,
            ambient: set("CapAmb")?,
            no_new: field(task, "NoNewPrivs")? == "1",
        })
    }
}

/// Who started it, or took it over.
pub fn parent(pid: u32) -> Result<u32> {
    let parent = field(Path::new(&format!("/proc/{pid}")), "PPid")?;
    parent.parse().with_context(|| format!("parent {parent}"))
}

/// Whether it is no more, whether or not somebody has asked how it ended.
pub fn has_ended(pid: u32) -> bool {
    let state = field(Path::new(&format!("/proc/{pid}")), "State");
    state.map_or(true, |state| state.starts_with(['Z', 'X']))
}

pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("no number of a process")?;
    kill_process(pid, signal).context("cannot signal")
}

fn field(task: &Path, name: &str) -> Result<String> {
    let path = task.join("status");
    let status =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} in {}", path.display()))?;
    Ok(value.trim().to_owned())
}
