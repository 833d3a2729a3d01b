//! A process that does with one socket what it is told to, and is put into groups meanwhile.
//!
//! Orders and answers are messages on a socket of its own, so that other sockets can go with them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::cgroup::{Cgroup, JOIN};
use crate::lab::Netns;
use crate::loose::Loose;
use crate::probe::{Outcome, Protocol};
use crate::serve::Service;

/// No message is longer.
const LONGEST: usize = 256;

/// The process, as its test sees it; killed on drop.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    orders: OwnedFd,
}

impl Puppet {
    /// In the group that this process is in. `helper` is the program `lab-peer`.
    pub fn outside(helper: &Path, netns: &Netns) -> Result<Self> {
        Self::start(&mut Command::new(helper), netns)
    }

    /// In a group from its first moment.
    pub fn inside(group: &Cgroup, netns: &Netns) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(group.path());
        Self::start(command.arg(group.helper()), netns)
    }

    fn start(command: &mut Command, netns: &Netns) -> Result<Self> {
        let kind = SocketType::SEQPACKET;
        let (orders, its) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        command.args(["obey", "-", "-"]).stdin(Stdio::from(its));
        let child = netns.spawn(command.stdout(Stdio::null()))?;
        Ok(Self { child, orders })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it make a socket, see [`Loose::make`].
    pub fn makes(&self, protocol: Protocol, like: SocketAddr) -> Result<()> {
        self.does("make", protocol, &like.to_string())
    }

    /// See [`Loose::listening`].
    pub fn listens(&self, protocol: Protocol, port: u16) -> Result<()> {
        self.does("listen", protocol, &port.to_string())
    }

    /// Has it use a socket that somebody else has made.
    pub fn takes(&self, protocol: Protocol, socket: &Loose) -> Result<()> {
        let order = format!("take {protocol} -");
        put(&self.orders, &order, Some(socket.as_fd()))?;
        self.answer("take").and_then(|(outcome, _)| fine(&outcome))
    }

    /// Has it hand out its socket.
    pub fn gives(&self, protocol: Protocol) -> Result<Loose> {
        put(&self.orders, &format!("give {protocol} -"), None)?;
        let (_, socket) = self.answer("give")?;
        Ok(Loose::of(protocol, socket.context("no socket came")?))
    }

    /// See [`Loose::probe`].
    pub fn probes(&self, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
        self.asked("probe", protocol, &to.to_string())
    }

    /// See [`Loose::connect`].
    pub fn connects(&self, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
        self.asked("connect", protocol, &to.to_string())
    }

    /// See [`Loose::echoes`].
    pub fn echoes(&self, protocol: Protocol, number: u32) -> Result<Outcome> {
        self.asked("echo", protocol, &number.to_string())
    }

    /// See [`Loose::tells`].
    pub fn tells(&self, to: SocketAddr) -> Result<Outcome> {
        self.asked("tell", Protocol::Udp, &to.to_string())
    }

    /// Has it serve at its socket, see [`Loose::serve`].
    pub fn serves(&self, protocol: Protocol) -> Result<()> {
        self.does("serve", protocol, "-")
    }

    /// Has it close its socket.
    pub fn closes(&self, protocol: Protocol) -> Result<()> {
        self.does("close", protocol, "-")
    }

    fn does(&self, verb: &str, protocol: Protocol, object: &str) -> Result<()> {
        fine(&self.asked(verb, protocol, object)?)
    }

    fn asked(&self, verb: &str, protocol: Protocol, object: &str) -> Result<Outcome> {
        put(&self.orders, &format!("{verb} {protocol} {object}"), None)?;
        self.answer(verb).map(|(outcome, _)| outcome)
    }

    fn answer(&self, verb: &str) -> Result<(Outcome, Option<OwnedFd>)> {
        let (text, socket) = take(&self.orders)?;
        ensure!(!text.is_empty(), "the process ended of {verb:?}");
        Ok((text.parse()?, socket))
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

fn fine(outcome: &Outcome) -> Result<()> {
    ensure!(*outcome == Outcome::Allowed, "{outcome}");
    Ok(())
}

/// What the process does: one order after the other, until nobody gives any.
pub fn obey() -> Result<()> {
    let orders = std::io::stdin();
    let mut held: Option<Loose> = None;
    // They end with the process.
    let mut served: Vec<Service> = Vec::new();
    loop {
        let (order, handed) = take(&orders)?;
        if order.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = order.split(' ').collect();
        let [verb, protocol, object] = words.as_slice() else {
            bail!("not an order: {order:?}");
        };
        let protocol = Protocol::from_str(protocol)?;
        let socket = || held.as_ref().context("no socket");
        let outcome = match *verb {
            "probe" => socket()?.probe(object.parse()?),
            "connect" => socket()?.connect(object.parse()?),
            "echo" => socket()?.echoes(object.parse()?),
            "tell" => socket()?.tells(object.parse()?),
            "give" => {
                let given = held.take().context("no socket")?;
                put(&orders, &Outcome::Allowed.to_string(), Some(given.as_fd()))?;
                continue;
            }
            other => {
                held = match other {
                    "make" => Some(Loose::make(protocol, object.parse::<SocketAddr>()?.ip())?),
                    "listen" => Some(Loose::listening(protocol, object.parse()?)?),
                    "take" => Some(Loose::of(protocol, handed.context("no socket came")?)),
                    "close" => None,
                    "serve" => {
                        served.push(held.take().context("no socket")?.serve()?);
                        None
                    }
                    other => bail!("not an order: {other:?}"),
                };
                Outcome::Allowed
            }
        };
        put(&orders, &outcome.to_string(), None)?;
    }
}

fn put(to: impl AsFd, text: &str, socket: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
    if !sockets.is_empty() {
        let pushed = ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
        ensure!(pushed, "no room for a descriptor");
    }
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(to, &text, &mut ancillary, SendFlags::NOSIGNAL).context("cannot send")?;
    Ok(())
}

/// A message, empty at the end.
fn take(from: impl AsFd) -> Result<(String, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; LONGEST];
    let received = recvmsg(
        from,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    );
    let received = received.context("cannot receive")?;
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    let text = text.get(..received.bytes).unwrap_or_default();
    Ok((String::from_utf8_lossy(text).into_owned(), socket))
}
