//! The terminal: taken over, and given back as it was, however the command ends.

use std::{
    io::{self, ErrorKind, Stdin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui::{DefaultTerminal, Frame};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::keys::{self, Key};

/// What asks it to end. When its terminal goes (SIGHUP) there is nothing to give back.
const ENDS: [fn() -> SignalKind; 2] = [SignalKind::terminate, SignalKind::interrupt];

/// While it lives, the terminal is ours.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    input: Stdin,
    is_to_end: Arc<AtomicBool>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let is_to_end = ended_by_signals()?;
        // A panic gives the terminal back before it is told.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self {
                terminal,
                input: io::stdin(),
                is_to_end,
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// As large as the terminal is now.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// Those that are pressed, waiting for so long at most.
    pub(super) fn keys(&self, patience: Duration) -> io::Result<Vec<Key>> {
        let patience = Timespec::try_from(patience).map_err(|_| ErrorKind::InvalidInput)?;
        let mut waiting = [PollFd::new(&self.input, PollFlags::IN)];
        match poll(&mut waiting, Some(&patience)) {
            // A signal, such as that of another size.
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut read = [0; 256];
        match rustix::io::read(&self.input, &mut read) {
            Ok(0) => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the terminal is gone",
            )),
            Ok(length) => Ok(keys::keys(read.get(..length).unwrap_or_default())),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a signal has asked for it.
    pub(super) fn is_to_end(&self) -> bool {
        self.is_to_end.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that takes nothing more needs no giving back.
fn give_back() {
    drop(ratatui::try_restore());
}

/// Becomes true when a signal comes.
fn ended_by_signals() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build()?;
    let signals = {
        let _entered = runtime.enter();
        let signals = ENDS.iter().map(|kind| signal(kind()));
        signals.collect::<io::Result<Vec<Signal>>>()?
    };
    let raised = Arc::clone(&flag);
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || {
        let mut signals = signals;
        let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        runtime.block_on(futures::future::select_all(any));
        raised.store(true, Ordering::Relaxed);
    })?;
    Ok(flag)
}
