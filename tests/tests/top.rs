//! `ringfence top` on a terminal, watching an agent of a real datapath.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::process;
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::{eventually, eventually_some};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

const SOON: Duration = Duration::from_secs(30);

/// What a terminal is told to show another screen, and to show the one of before with its cursor.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const CURSOR: &str = "\x1b[?25h";

/// A terminal, and the command that draws on it.
struct Watched {
    terminal: File,
    line: OwnedFd,
    before: Termios,
    child: Child,
    written: Arc<Mutex<String>>,
}

impl Watched {
    fn start(scene: &Scene, agent: &Agent) -> Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = ptsname(&terminal, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = open(&*name, flags, Mode::empty())?;
        resize(&terminal, 80, 24)?;
        let before = tcgetattr(&line)?;
        let stdio = || -> Result<Stdio> { Ok(line.try_clone()?.into()) };
        // A session of its own, so that it hears of other sizes.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(agent.binary())
            .args(["top", "--socket"])
            .arg(agent.socket())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(stdio()?)
            .stdout(stdio()?)
            .stderr(stdio()?);
        let child = scene.lab.host().spawn(&mut command)?;
        let terminal = File::from(terminal);
        let written = Arc::new(Mutex::new(String::new()));
        let (mut reader, all) = (terminal.try_clone()?, Arc::clone(&written));
        thread::spawn(move || {
            let mut read = [0; 4096];
            while let Ok(length) = reader.read(&mut read) {
                let text = String::from_utf8_lossy(&read[..length]);
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Ok(Self {
            terminal,
            line,
            before,
            child,
            written,
        })
    }

    fn written(&self) -> String {
        let written = self.written.lock();
        written.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has been written so far is looked at no more.
    fn forget(&self) {
        let written = self.written.lock();
        written.unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn shows(&self, words: &[&str]) -> Result<()> {
        let is_shown = eventually(SOON, || {
            let written = self.written();
            words.iter().all(|word| written.contains(word))
        });
        ensure!(is_shown, "{words:?} is not shown: {:?}", self.written());
        Ok(())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.terminal.write_all(keys.as_bytes())?)
    }

    /// Everything is drawn anew.
    fn becomes(&self, columns: u16, rows: u16) -> Result<()> {
        self.forget();
        resize(&self.terminal, columns, rows)?;
        self.shows(&["\x1b[2J"])
    }

    /// How it ends, and that the terminal is as it was.
    fn ended(mut self) -> Result<ExitStatus> {
        let status = eventually_some(SOON, || self.child.try_wait().ok().flatten());
        let status = status.with_context(|| format!("it goes on: {:?}", self.written()))?;
        self.shows(&[LEAVE, CURSOR])?;
        let after = tcgetattr(&self.line)?;
        ensure!(after.local_modes == self.before.local_modes);
        ensure!(after.input_modes == self.before.input_modes);
        ensure!(after.output_modes == self.before.output_modes);
        Ok(status)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

#[test]
fn it_shows_what_happens_in_any_size_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let mut watched = Watched::start(&scene, &agent)?;
    watched.shows(&[ENTER, "enforcing", "shop/server", "attached", "BYTES/S"])?;
    ensure!(
        !tcgetattr(&watched.line)?
            .local_modes
            .contains(LocalModes::ECHO)
    );
    let (friend, server) = (&scene.friend, &scene.server);
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    watched.shows(&["default-deny", "RECORDS"])?;

    for (columns, rows) in [(30, 8), (1, 1), (300, 2)] {
        watched.becomes(columns, rows)?;
    }
    watched.becomes(200, 50)?;
    watched.shows(&["RECORDS", "default-deny", "shop/server"])?;
    watched.forget();
    watched.press("s\x1b[B\x1b[A")?;
    // Of all that is shown, only this word has changed.
    watched.shows(&["flow"])?;

    watched.forget();
    agent.kill()?;
    watched.shows(&["AGENT AWAY for"])?;
    watched.forget();
    agent.start()?;
    watched.shows(&["enforcing"])?;
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);

    watched.press("q")?;
    let status = watched.ended()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn who_ends_it_by_a_signal_gets_the_terminal_back() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    for signal in [Signal::TERM, Signal::INT] {
        let watched = Watched::start(&scene, &agent)?;
        watched.shows(&[ENTER, "enforcing"])?;
        process::signal(watched.child.id(), signal)?;
        let status = watched.ended()?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[test]
fn where_there_is_no_terminal_or_no_agent_it_says_so() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = Agent::prepare(&scene.lab, "away", &[])?;
    let output = agent.call(&["top"])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && told.contains("draws on a terminal"));
    let mut watched = Watched::start(&scene, &agent)?;
    watched.shows(&["no agent listens on"])?;
    let ended = eventually_some(SOON, || watched.child.try_wait().ok().flatten());
    ensure!(ended.and_then(|status| status.code()) == Some(2));
    ensure!(!watched.written().contains(ENTER));
    Ok(())
}
