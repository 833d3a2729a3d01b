//! Starts a worker, waits for its end, and starts another.
//!
//! The agent could not: what it has given up, no process that it starts gets. This one has it, does
//! nothing with it but hand it on, and reads nothing from anybody.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Pid, PidfdFlags, pidfd_open},
    thread::CapabilitySet,
};

use super::{harden, own_end, protocol};
use crate::datapath::privileges::{self, Kept, VISITING};

/// One that lived so long is replaced at once.
const LONG: Duration = Duration::from_secs(10);
/// Between two others, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Until the agent has gone.
///
/// # Errors
///
/// It cannot become what it has to be. That no worker can be started for now is waited out.
pub(crate) fn run() -> anyhow::Result<()> {
    let agent = own_end()?;
    let visiting = VISITING & privileges::held()?;
    harden(Kept {
        effective: CapabilitySet::empty(),
        permitted: visiting,
        handed_on: visiting,
    })?;
    let mut pause = PAUSES.0;
    loop {
        let begun = Instant::now();
        match start(&agent) {
            Ok(Some(mut worker)) => {
                worker.wait().context("cannot wait for a worker")?;
            }
            Ok(None) => return Ok(()),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no worker for now"),
        }
        if begun.elapsed() >= LONG {
            pause = PAUSES.0;
        } else {
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// A worker, whose other end the agent has been given; `None` if there is no agent.
fn start(agent: &OwnedFd) -> anyhow::Result<Option<Child>> {
    let (agents, workers) = pair().context("cannot make a pair of sockets")?;
    let mut worker = super::own_binary("worker")
        .stdin(workers)
        .spawn()
        .context("cannot start a worker")?;
    let process = process(&worker).inspect_err(|_| {
        // Nobody else would end it. That it has ended already is as good.
        drop(worker.kill());
        drop(worker.wait());
    })?;
    let message = worker.id().to_ne_bytes();
    if protocol::send(agent.as_fd(), &message, &[agents.as_fd(), process.as_fd()]).is_err() {
        // It ends by itself when its other end is closed, but it may be stopped.
        worker.kill().context("cannot end a worker")?;
        worker.wait().context("cannot wait for a worker")?;
        return Ok(None);
    }
    Ok(Some(worker))
}

fn process(worker: &Child) -> io::Result<OwnedFd> {
    // It has not been waited for: the number is nobody else's.
    Ok(pidfd_open(Pid::from_child(worker), PidfdFlags::empty())?)
}

pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
