//! A control group of a test's own, and processes that live in it.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, Netns};
use crate::options::{Answer, Caller, SocketOption};
use crate::probe::{Outcome, Protocol};
use crate::wait::eventually;

const REMOVAL_DEADLINE: Duration = Duration::from_secs(5);

/// Joins the group named by `$0`, then becomes the command: every socket of it is of the group.
pub(crate) const JOIN: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;

/// Where cgroup2 is mounted: all of /sys/fs/cgroup, or a corner of it beside version 1.
pub fn root() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    let mount = table.lines().find(|line| line.contains(" - cgroup2 "));
    let point = mount
        .and_then(|line| line.split(' ').nth(4))
        .context("no cgroup2 is mounted")?;
    Ok(point.into())
}

/// A child group of the root; its processes are killed and it is removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    path: PathBuf,
    helper: PathBuf,
}

impl Cgroup {
    /// `helper` is the program `lab-peer`, which integration tests know as
    /// `env!("CARGO_BIN_EXE_lab-peer")`.
    pub fn create(lab: &Lab, name: &str, helper: impl Into<PathBuf>) -> Result<Self> {
        let name = format!("{}-{name}", lab.prefix());
        let path = root()?.join(&name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            name,
            path,
            helper: helper.into(),
        })
    }

    /// Its path below the root of cgroup2, as `endpoint.cgroup` wants it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn helper(&self) -> &Path {
        &self.helper
    }

    /// Puts a process into it.
    pub fn admit(&self, pid: u32) -> Result<()> {
        place(&self.path, pid)
    }

    /// Puts a process out of it, into the root of all groups.
    pub fn expel(&self, pid: u32) -> Result<()> {
        place(&root()?, pid)
    }

    /// Tries an exchange from a process in this group, in `netns`.
    pub fn probe(&self, netns: &Netns, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
        let arguments = ["probe", &protocol.to_string(), &to.to_string()];
        self.helped(netns, &arguments)?.parse()
    }

    /// Tries to connect a socket, and sends nothing over UDP.
    pub fn connect(&self, netns: &Netns, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
        let arguments = ["connect", &protocol.to_string(), &to.to_string()];
        self.helped(netns, &arguments)?.parse()
    }

    /// Sends an echo request from a raw socket of a process in this group, in `netns`.
    pub fn ping(&self, netns: &Netns, to: IpAddr) -> Result<Outcome> {
        let to = SocketAddr::new(to, 0);
        self.helped(netns, &["ping", "UDP", &to.to_string()])?
            .parse()
    }

    /// Sends a frame from a packet socket of a process in this group, in `netns`.
    pub fn sends_frame(&self, netns: &Netns, interface: &str, frame: &[u8]) -> Result<()> {
        self.helped(netns, &["frame", interface, &hex(frame)])
            .map(drop)
    }

    /// The same, past the interface's queueing discipline.
    pub fn sends_frame_past(&self, netns: &Netns, interface: &str, frame: &[u8]) -> Result<()> {
        self.helped(netns, &["frame-past", interface, &hex(frame)])
            .map(drop)
    }

    /// The same from a socket that is made now; the frame is sent when it is told to.
    pub fn poises_frame_past(
        &self,
        netns: &Netns,
        interface: &str,
        frame: &[u8],
    ) -> Result<Poised> {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(&self.path).arg(&self.helper);
        command.args(["frame-past-later", interface, &hex(frame)]);
        let mut child = netns.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let poised = Poised {
            process: Confined { child },
            stdin: stdin.context("the process has no stdin")?,
        };
        let mut line = String::new();
        BufReader::new(stdout.context("the process has no stdout")?)
            .read_line(&mut line)
            .context("cannot read from the process")?;
        ensure!(line.trim() == "ready", "{} has no such socket", self.name);
        Ok(poised)
    }

    /// Sets an option of a new socket of a process in this group; what it is then, or the error.
    pub fn sets(&self, netns: &Netns, caller: Caller, option: &SocketOption) -> Result<Answer> {
        let SocketOption {
            kind,
            level,
            name,
            value,
        } = option;
        let verb = match caller {
            Caller::Of64Bits => "option",
            Caller::Of32Bits => "option-32",
        };
        let option = format!("{level}:{name}:{}", hex(value));
        self.helped(netns, &[verb, &kind.to_string(), &option])?
            .parse()
    }

    /// A group within this one.
    pub fn within(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            name: format!("{}/{name}", self.name),
            path,
            helper: self.helper.clone(),
        })
    }

    /// What a process in this group printed, in `netns`.
    fn helped(&self, netns: &Netns, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(&self.path).arg(&self.helper);
        let output = netns.output(command.args(arguments).stdin(Stdio::null()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "the process in {} failed: {said}",
            self.name
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Echoes on a port from a process in this group, in `netns`.
    pub fn serve(&self, netns: &Netns, protocol: Protocol, port: u16) -> Result<Confined> {
        let mut command = self.command("serve", protocol, &port.to_string());
        let mut child = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = child.stdout.take();
        let confined = Confined { child };
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout.context("the process has no stdout")?);
        stdout
            .read_line(&mut line)
            .context("cannot read from the process")?;
        ensure!(
            line.trim() == "listening",
            "the process in {} does not listen",
            self.name
        );
        Ok(confined)
    }

    /// Holds a TCP connection from a process in this group, in `netns`, once it is there.
    pub fn hold(&self, netns: &Netns, to: SocketAddr) -> Result<Held> {
        self.hold_over(Protocol::Tcp, netns, to)
    }

    /// The same over either protocol; over UDP it has sent one datagram.
    pub fn hold_over(&self, protocol: Protocol, netns: &Netns, to: SocketAddr) -> Result<Held> {
        let mut command = self.command("hold", protocol, &to.to_string());
        let mut child = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = child.stdout.take().context("the process has no stdout")?;
        let (say, said) = mpsc::sync_channel(2);
        // Ends with the process.
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| say.send(line).unwrap_or(()));
        });
        let held = Held {
            said,
            _process: Confined { child },
        };
        let first = held.says(REMOVAL_DEADLINE);
        ensure!(first.as_deref() == Some("connected"), "no connection");
        Ok(held)
    }

    fn command(&self, verb: &str, protocol: Protocol, object: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(&self.path).arg(&self.helper);
        command.args([verb, &protocol.to_string(), object]);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group can be removed once its last process is reaped.
        eventually(REMOVAL_DEADLINE, || {
            kill_members(&self.path);
            fs::remove_dir(&self.path).is_ok() || !self.path.exists()
        });
    }
}

/// A connection of a process in a group.
#[derive(Debug)]
pub struct Held {
    said: Receiver<String>,
    _process: Confined,
}

impl Held {
    /// How it ended, if it does so in time.
    pub fn says(&self, patience: Duration) -> Option<String> {
        self.said.recv_timeout(patience).ok()
    }
}

/// A process in a group that is about to send a frame.
#[derive(Debug)]
pub struct Poised {
    process: Confined,
    stdin: ChildStdin,
}

impl Poised {
    /// Has it sent, and waits for that.
    pub fn send(mut self) -> Result<()> {
        self.stdin.write_all(b"now\n")?;
        let status = self.process.child.wait()?;
        ensure!(status.success(), "the process failed: {status}");
        Ok(())
    }
}

/// A process in a group; killed on drop.
#[derive(Debug)]
pub struct Confined {
    child: Child,
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

fn place(group: &Path, pid: u32) -> Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("cannot put a process into {}", group.display()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or(());
        text
    })
}

fn kill_members(group: &Path) {
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members
        .lines()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
    {
        let _killed = kill_process(pid, Signal::KILL).is_ok();
    }
}
