//! Ctrl-C and SIGTERM as a value that is asked, so that everything is dropped in order.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};

/// How a shell names the end by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether the process was asked to end.
#[derive(Debug, Clone)]
pub struct Interrupt {
    state: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// From now on SIGINT and SIGTERM set this value instead of ending the process; a second one
    /// ends it at once. Call it before any other thread exists: threads inherit the mask.
    /// Processes started by `std::process` do not.
    pub fn install() -> Result<Self> {
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, the next two calls change it, and
        // pthread_sigmask reads it; a null old mask is allowed.
        let blocked = unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            libc::sigaddset(signals.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(signals.as_mut_ptr(), libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut())
        };
        ensure!(blocked == 0, "cannot block signals: error {blocked}");
        // SAFETY: initialised by sigemptyset above.
        let signals = unsafe { signals.assume_init() };
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let raised = Arc::clone(&state);
        thread::spawn(move || {
            loop {
                let mut signal = 0;
                // SAFETY: both pointers are to live locals.
                if unsafe { libc::sigwait(&raw const signals, &raw mut signal) } != 0 {
                    return;
                }
                let (flag, changed) = &*raised;
                let mut flag = flag.lock().unwrap_or_else(PoisonError::into_inner);
                if *flag {
                    std::process::exit(EXIT_INTERRUPTED);
                }
                *flag = true;
                changed.notify_all();
            }
        });
        Ok(Self { state })
    }

    pub fn raised(&self) -> bool {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error once it was raised, to leave a sequence of steps by `?`.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.raised(), "interrupted");
        Ok(())
    }

    /// Returns when it is raised.
    pub fn wait(&self) {
        let (flag, changed) = &*self.state;
        let raised = flag.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(raised, |raised| !*raised));
    }
}
