//! The commands' side of the control socket: plain blocking IO.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;

use super::{FlowsRequest, Held, PodRequest, Refusal, Request, ServedWorld, status::Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no agent listens on {path}: start one with `ringfence run`, or name its --socket")]
    NoAgent { path: PathBuf },
    #[error("may not connect to {path}: only root and the agent's own user may")]
    NotPermitted { path: PathBuf },
    #[error("control socket {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the agent refused: {error}")]
    Refused { error: String },
    #[error("the agent's answer is not understood; is it of another version?")]
    Answer { source: serde_json::Error },
}

/// A connection with its request sent.
#[derive(Debug)]
pub(crate) struct Conversation {
    path: PathBuf,
    answer: BufReader<UnixStream>,
    /// Only the first line can be a refusal.
    is_granted: bool,
}

/// Of an answer: as much as the agent writes at once.
const AT_ONCE: usize = 64 * 1024;

/// An agent that has not said how it is by then is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it enforces is as much as a cluster has.
const LONG: Duration = Duration::from_mins(1);

/// For the answer of an agent that was given a time.
const GRACE: Duration = Duration::from_millis(500);

pub(crate) fn status(socket: &Path) -> Result<Status, ClientError> {
    only_answer(socket, Request::Status {}, PATIENCE)
}

/// [`status`], for who asks again and again: nothing is left behind if the agent hangs.
pub(crate) fn status_in_passing(socket: &Path) -> Result<Status, ClientError> {
    let conversation = Conversation::begin_by(connect_at_once, socket, &Request::Status {})?;
    let stream = conversation.answer.get_ref();
    // Of each part of the answer, which comes at once if it comes.
    let limited = stream.set_read_timeout(Some(PATIENCE));
    limited.map_err(|source| ClientError::Io {
        path: socket.to_owned(),
        source,
    })?;
    conversation.only()
}

/// What the agent enforces.
pub(crate) fn world(socket: &Path) -> Result<ServedWorld, ClientError> {
    only_answer(socket, Request::World {}, LONG)
}

/// Has a pod enforced for before it starts.
pub(crate) fn pod(socket: &Path, request: PodRequest) -> Result<Held, ClientError> {
    // It answers in time, if it can.
    let patience = Duration::from_millis(request.wait_ms) + GRACE;
    only_answer(socket, Request::Pod(request), patience)
}

/// An agent that is stopped or stuck keeps its socket, and would be waited for in vain: for an answer, or, where many wait
/// before, even to be connected, which has no time limit of its own.
fn only_answer<T: DeserializeOwned + Send + 'static>(
    socket: &Path,
    request: Request,
    patience: Duration,
) -> Result<T, ClientError> {
    let path = socket.to_owned();
    let failed = |source: io::Error| ClientError::Io {
        path: socket.to_owned(),
        source,
    };
    let (answer, answered) = mpsc::sync_channel(1);
    // Left behind if it hangs: it ends with the command.
    thread::Builder::new()
        .name("asking".to_owned())
        .spawn(move || answer.send(first_answer(&path, &request)))
        .map_err(failed)?;
    match answered.recv_timeout(patience) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(failed(io::ErrorKind::TimedOut.into())),
        Err(RecvTimeoutError::Disconnected) => Err(failed(io::Error::other("asking panicked"))),
    }
}

fn first_answer<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, ClientError> {
    Conversation::begin(path, request)?.only()
}

/// The lines of the answer, as they come.
pub(crate) fn flows(socket: &Path, request: FlowsRequest) -> Result<Conversation, ClientError> {
    Conversation::begin(socket, &Request::Flows(Box::new(request)))
}

/// [`flows`], from an agent that takes connections in.
pub(crate) fn flows_in_passing(
    socket: &Path,
    request: FlowsRequest,
) -> Result<Conversation, ClientError> {
    Conversation::begin_by(connect_at_once, socket, &Request::Flows(Box::new(request)))
}

/// Where many wait to be connected already, this fails and does not wait, too.
fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn connect_and_wait(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

impl Conversation {
    fn begin(path: &Path, request: &Request) -> Result<Self, ClientError> {
        Self::begin_by(connect_and_wait, path, request)
    }

    fn begin_by(
        connect: fn(&Path) -> io::Result<UnixStream>,
        path: &Path,
        request: &Request,
    ) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let mut stream = match connect(&path) {
            Ok(stream) => stream,
            Err(source) => {
                return Err(match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        ClientError::NoAgent { path }
                    }
                    io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path },
                    _ => ClientError::Io { path, source },
                });
            }
        };
        let mut line =
            serde_json::to_vec(request).map_err(|source| ClientError::Answer { source })?;
        line.push(b'\n');
        match stream.write_all(&line) {
            Ok(()) => Ok(Self {
                path,
                answer: BufReader::with_capacity(AT_ONCE, stream),
                is_granted: false,
            }),
            Err(source) => Err(ClientError::Io { path, source }),
        }
    }
}

impl Conversation {
    /// The one line that answers.
    fn only<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let Some(line) = self.next().transpose()? else {
            return Err(ClientError::Io {
                path: self.path,
                source: io::ErrorKind::UnexpectedEof.into(),
            });
        };
        serde_json::from_str(&line).map_err(|source| ClientError::Answer { source })
    }

    /// Whether what the agent has sent so far has been read. Asks nobody: more may be there.
    pub(crate) fn is_read(&self) -> bool {
        self.answer.buffer().is_empty()
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        self.answer.read_line(&mut line)?;
        // Of an agent that ended while it wrote, a part of a line is no line.
        Ok(line.pop().filter(|last| *last == '\n').map(|_| line))
    }
}

impl Iterator for Conversation {
    type Item = Result<String, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.line() {
            Ok(line) => line?,
            Err(source) => {
                return Some(Err(ClientError::Io {
                    path: self.path.clone(),
                    source,
                }));
            }
        };
        if !std::mem::replace(&mut self.is_granted, true)
            && let Ok(Refusal { error }) = serde_json::from_str(&line)
        {
            return Some(Err(ClientError::Refused { error }));
        }
        Some(Ok(line))
    }
}
