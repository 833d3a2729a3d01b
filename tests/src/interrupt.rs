//! Ctrl-C and SIGTERM as a value that is asked, so that everything is dropped in order.

use std::io::Read;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::{fs, io, mem, ptr};

use anyhow::{Context, Result, bail, ensure};
use rustix::pipe::{PipeFlags, pipe_with};

/// How a shell names the end by SIGINT.
const EXIT_INTERRUPTED: libc::c_int = 130;

static RAISED: AtomicBool = AtomicBool::new(false);
/// The end of a pipe that the handler writes to; it wakes who waits.
static WAKER: AtomicI32 = AtomicI32::new(-1);

/// Whether the process was asked to end.
#[derive(Debug)]
pub struct Interrupt {
    woken: fs::File,
}

impl Interrupt {
    /// From now on SIGINT and SIGTERM set this value instead of ending the process; a second one
    /// ends it at once. Once a process. A handler and not a blocked mask: programs that are
    /// spawned inherit the mask, and would ignore SIGTERM with it.
    pub fn install() -> Result<Self> {
        let (woken, waker) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        let waker: OwnedFd = waker;
        let installed = WAKER.swap(waker.into_raw_fd(), Ordering::SeqCst);
        ensure!(installed == -1, "signals are handled already");
        let handler: extern "C" fn(libc::c_int) = raise;
        // SAFETY: all of it is integers and null pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: `action` is initialised, its handler calls only what is
            // async-signal-safe, and a null old action is allowed.
            if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
                bail!(
                    "cannot handle signal {signal}: {}",
                    io::Error::last_os_error()
                );
            }
        }
        Ok(Self {
            woken: woken.into(),
        })
    }

    pub fn raised(&self) -> bool {
        RAISED.load(Ordering::SeqCst)
    }

    /// An error once it was raised, to leave a sequence of steps by `?`.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.raised(), "interrupted");
        Ok(())
    }

    /// Returns when it is raised, at once if it was.
    pub fn wait(&self) -> Result<()> {
        let mut woken = &self.woken;
        woken
            .read_exact(&mut [0])
            .context("cannot wait for a signal")
    }
}

extern "C" fn raise(_signal: libc::c_int) {
    if RAISED.swap(true, Ordering::SeqCst) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(EXIT_INTERRUPTED) };
    }
    // SAFETY: write is async-signal-safe, the descriptor is never closed, and the byte is static.
    // A failure leaves a waiter asleep until the second signal, which ends the process.
    unsafe { libc::write(WAKER.load(Ordering::SeqCst), c"!".as_ptr().cast(), 1) };
}
