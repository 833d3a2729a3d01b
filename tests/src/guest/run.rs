//! One test in a process of its own, and no trace of its processes after it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use super::{Ended, Outcome, Plan, Test};
use crate::wait::eventually_exactly;

/// So much of an output is told: the port is slow, and the end says what went wrong.
const TOLD: u64 = 64 << 10;
/// How a line begins by which a test says that a kernel has not what it is about.
const SKIPPED: &str = "skipped: ";

pub(super) fn test(test: &Test, plan: &Plan) -> Result<Ended> {
    let Test { name, binary, .. } = test;
    let mut output = tempfile::tempfile().context("cannot make a file for an output")?;
    let handle = |file: &File| file.try_clone().context("cannot share a file");
    let begun = Instant::now();
    let child = Command::new(binary)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env_clear()
        .envs(plan.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(handle(&output)?)
        .stderr(handle(&output)?)
        .spawn()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let pid = Pid::from_child(&child);

    let status = ended(pid, plan.patience)?;
    let took = begun.elapsed();
    let waiting = if status.is_none() {
        where_they_wait()
    } else {
        String::new()
    };
    kill_all();
    if status.is_none() {
        ended(pid, Duration::from_secs(10))?;
    }
    let outcome = match status {
        None => Outcome::Hung,
        Some(status) if status.success() => Outcome::Passed,
        Some(_) => Outcome::Failed,
    };
    let mut output = end_of(&mut output)?;
    output.push_str(&waiting);
    if outcome == Outcome::Passed {
        // On the first line its name stands in front.
        let skipped = output
            .lines()
            .filter_map(|line| line.find(SKIPPED).map(|at| &line[at..]));
        output = skipped.collect::<Vec<_>>().join("\n");
    }
    Ok(Ended {
        outcome,
        took,
        output,
    })
}

/// The status of a process if it ends in time. Whatever else ends meanwhile is reaped too: orphans
/// are children of the first process.
fn ended(pid: Pid, patience: Duration) -> Result<Option<ExitStatus>> {
    let mut result = Ok(None);
    eventually_exactly(patience, || {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((gone, status))) if gone == pid => {
                    result = Ok(Some(ExitStatus::from_raw(status.as_raw())));
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(Errno::CHILD) => return true,
                Err(error) => {
                    result = Err(error).context("cannot wait for a process");
                    return true;
                }
            }
        }
    });
    result
}

/// What the threads of all processes wait for in the kernel: a test that hangs does not tell itself.
fn where_they_wait() -> String {
    let mut text = String::new();
    let numbers = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.parse::<u32>().is_ok_and(|number| number > 1))
    };
    for process in numbers("/proc") {
        let read = |of: &str| fs::read_to_string(format!("/proc/{process}/{of}"));
        // Without a command line it is a thread of the kernel.
        let Ok(command) = read("cmdline") else {
            continue;
        };
        if command.is_empty() {
            continue;
        }
        let command = command.replace('\0', " ");
        for thread in numbers(&format!("/proc/{process}/task")) {
            let at = |of: &str| read(&format!("task/{thread}/{of}")).unwrap_or_default();
            let (state, stack) = (at("stat"), at("stack"));
            let state = state.rsplit_once(')').map_or("?", |(_, rest)| rest.trim());
            let state = state.split(' ').next().unwrap_or("?");
            for part in ["\n", &thread, " ", state, " ", &command, "\n", &stack] {
                text.push_str(part);
            }
        }
    }
    text
}

/// Ends every process but this one, and the kernel's own.
fn kill_all() {
    // SAFETY: sends a signal; no memory is involved. The first process is left out by the kernel.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

fn end_of(file: &mut File) -> Result<String> {
    let length = file.seek(SeekFrom::End(0)).context("cannot seek")?;
    file.seek(SeekFrom::Start(length.saturating_sub(TOLD)))
        .context("cannot seek")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .context("cannot read an output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
