//! What agent and helper say to each other: one question at a time, and one answer to it.
//!
//! Over a pair of `SOCK_SEQPACKET` sockets, which keeps the borders of messages and tells each end when
//! the other has gone. Both ends are of one binary, so there is no version.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
    },
};

/// No message is longer.
pub(super) const LONGEST: usize = 512;

/// No message has more descriptors.
const DESCRIPTORS: usize = 2;

/// No path: which namespace is meant, the helper finds out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// For a socket that asks about the sockets of the namespace that an interface of the node leads to.
    Behind(Behind),
    /// For the namespace that a process is in, and a socket that asks about interfaces there.
    Of(Process),
    /// For the file that a process runs.
    Runs(Process),
}

/// The end of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// Of the interface; the kernel's are positive.
    index: u32,
    /// The node's number for the namespace; the kernel's are not negative.
    number: i32,
}

/// A process by its number; the kernel's are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

/// What was asked for, or why there is none.
#[derive(Debug)]
pub(super) enum Answer {
    /// Of `sock_diag`.
    Socket(OwnedFd),
    Namespace {
        namespace: OwnedFd,
        /// Of `rtnetlink`.
        socket: OwnedFd,
    },
    /// A path, as the process sees it.
    File(Vec<u8>),
    Refused(String),
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error("the other end has gone")]
    Gone,
    #[error("nothing came in time")]
    Late,
    #[error("what came is no answer")]
    Garbled,
    #[error(transparent)]
    Io(io::Error),
}

const SOCKET: u8 = 0;
const REFUSED: u8 = 1;
const NAMESPACE: u8 = 2;
const FILE: u8 = 3;

const BEHIND: u8 = 0;
const OF: u8 = 1;
const RUNS: u8 = 2;

impl Question {
    /// Of every one: its kind, and two numbers, of which that about a process needs one.
    pub(super) const LENGTH: usize = 9;

    /// `None` where the kernel could have no such numbers.
    pub(super) fn behind(index: u32, number: i32) -> Option<Self> {
        let is_right = is_positive(index) && number >= 0;
        is_right.then_some(Self::Behind(Behind { index, number }))
    }

    /// `None` where the kernel could have no such number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        is_positive(pid).then_some(Self::Of(Process(pid)))
    }

    /// `None` where the kernel could have no such number.
    pub(super) fn runs(pid: u32) -> Option<Self> {
        is_positive(pid).then_some(Self::Runs(Process(pid)))
    }

    pub(super) fn bytes(self) -> [u8; Self::LENGTH] {
        let (kind, first, second) = match self {
            Self::Behind(Behind { index, number }) => (BEHIND, index, number),
            Self::Of(Process(pid)) => (OF, pid, 0),
            Self::Runs(Process(pid)) => (RUNS, pid, 0),
        };
        let mut bytes = [kind; Self::LENGTH];
        let (_, numbers) = bytes.split_at_mut(1);
        let (one, other) = numbers.split_at_mut(4);
        one.copy_from_slice(&first.to_ne_bytes());
        other.copy_from_slice(&second.to_ne_bytes());
        bytes
    }

    /// `None` of anything that [`Self::bytes`] does not make.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, numbers) = bytes.split_first()?;
        let (first, second) = numbers.split_first_chunk::<4>()?;
        let second: [u8; 4] = second.try_into().ok()?;
        let (first, second) = (u32::from_ne_bytes(*first), i32::from_ne_bytes(second));
        match (*kind, second) {
            (BEHIND, number) => Self::behind(first, number),
            (OF, 0) => Self::of(first),
            (RUNS, 0) => Self::runs(first),
            _ => None,
        }
    }
}

impl Behind {
    pub(super) fn index(self) -> u32 {
        self.index
    }

    pub(super) fn number(self) -> i32 {
        self.number
    }
}

impl Process {
    pub(super) fn pid(self) -> u32 {
        self.0
    }
}

fn is_positive(number: u32) -> bool {
    number > 0 && i32::try_from(number).is_ok()
}

impl Answer {
    pub(super) fn send(&self, to: BorrowedFd<'_>) -> Result<(), TalkError> {
        match self {
            Self::Socket(socket) => send(to, &[SOCKET], &[socket.as_fd()]),
            Self::Namespace { namespace, socket } => {
                send(to, &[NAMESPACE], &[namespace.as_fd(), socket.as_fd()])
            }
            Self::File(path) => send_text(to, FILE, path),
            Self::Refused(why) => send_text(to, REFUSED, why.as_bytes()),
        }
    }

    pub(super) fn read(message: Message) -> Result<Self, TalkError> {
        let Message { bytes, descriptors } = message;
        let mut descriptors = descriptors.into_iter();
        match (bytes.split_first(), descriptors.next(), descriptors.next()) {
            (Some((&SOCKET, [])), Some(socket), None) => Ok(Self::Socket(socket)),
            (Some((&NAMESPACE, [])), Some(namespace), Some(socket)) => {
                Ok(Self::Namespace { namespace, socket })
            }
            (Some((&FILE, path)), None, None) => Ok(Self::File(path.to_vec())),
            (Some((&REFUSED, why)), None, None) => {
                Ok(Self::Refused(String::from_utf8_lossy(why).into_owned()))
            }
            _ => Err(TalkError::Garbled),
        }
    }
}

/// As much of it as a message has room for.
fn send_text(to: BorrowedFd<'_>, kind: u8, text: &[u8]) -> Result<(), TalkError> {
    let mut bytes = vec![kind];
    bytes.extend(text);
    bytes.truncate(LONGEST);
    send(to, &bytes, &[])
}

/// Whether this is one end of such a pair.
pub(super) fn is_ours(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

pub(super) fn send(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), TalkError> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(TalkError::Garbled);
    }
    // Even where calls are restarted after a signal, those with a time limit are not.
    retry_on_intr(|| {
        let bytes = [IoSlice::new(bytes)];
        sendmsg(to, &bytes, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// The next message; a longer one than there may be comes without its end, and with one byte more.
pub(super) fn receive(from: BorrowedFd<'_>, flags: RecvFlags) -> Result<Message, TalkError> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; LONGEST + 1];
    let received = retry_on_intr(|| {
        let mut bytes = [IoSliceMut::new(&mut bytes)];
        recvmsg(
            from,
            &mut bytes,
            &mut ancillary,
            flags | RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // Nobody sends an empty message.
    if received.bytes == 0 {
        return Err(TalkError::Gone);
    }
    bytes.truncate(received.bytes);
    Ok(Message { bytes, descriptors })
}

impl From<Errno> for TalkError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Gone,
            Errno::AGAIN => Self::Late,
            other => Self::Io(other.into()),
        }
    }
}

#[cfg(test)]
mod tests;
