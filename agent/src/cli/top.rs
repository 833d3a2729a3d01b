//! `ringfence top`: how the running agent is, and what it sees, as it happens.
//!
//! | module | holds |
//! |---|---|
//! | [`feed`] | threads that ask the agent |
//! | [`state`], [`window`] | what they have been told, and what it adds up to |
//! | [`view`] | what of it is drawn where |
//! | [`keys`], [`screen`] | the terminal |
//!
//! Nothing but [`screen`] knows a terminal; time is a value.

mod feed;
mod keys;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod window;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;

use self::{feed::Feed, keys::Key, screen::Screen, state::State, view::Ui};
use crate::{config::DEFAULT_SOCKET, control::client, exit::Answer};

/// Between two pictures, if no key is pressed.
const TICK: Duration = Duration::from_millis(250);

/// Watch the running agent: endpoints, rates, drops and losses, until q is pressed.
///
/// Keys: q, Esc and Ctrl-C end it; s sorts by another column; arrows, Page Up, Page Down, Home and End scroll.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Control socket of the agent.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(crate) fn run(args: &TopArgs) -> anyhow::Result<Answer> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!(
            "`ringfence top` draws on a terminal, and input or output is none: `ringfence status` and `ringfence flows top` print"
        );
    }
    // Who has mistyped the socket is told so, and sees no empty screen.
    let status = client::status(&args.socket)?;
    let feed = Feed::start(&args.socket).context("cannot start threads")?;
    feed.lock().heard(feed.now(), status);
    let mut screen = Screen::open().context("cannot draw on this terminal")?;
    let mut ui = Ui::default();
    loop {
        let snapshot = feed.lock().snapshot(feed.now(), ui.sort);
        screen.draw(|frame| view::draw(frame, &snapshot, &mut ui))?;
        for key in screen.keys(TICK)? {
            match key {
                Key::Quit => return Ok(Answer::Yes),
                other => ui.press(other),
            }
        }
        if screen.is_to_end() {
            return Ok(Answer::Yes);
        }
        if feed.has_ended() {
            bail!("a thread that asks the agent has ended");
        }
    }
}

type Shared = Arc<Mutex<State>>;

/// A panic elsewhere leaves whole numbers behind.
fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
