//! The commands' side of the control socket: plain blocking IO.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

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

/// For the answer of an agent that was given a time.
const GRACE: Duration = Duration::from_millis(500);

pub(crate) fn status(socket: &Path) -> Result<Status, ClientError> {
    only_answer(socket, &Request::Status {})
}

/// What the agent enforces.
pub(crate) fn world(socket: &Path) -> Result<ServedWorld, ClientError> {
    only_answer(socket, &Request::World {})
}

/// Has a pod enforced for before it starts.
pub(crate) fn pod(socket: &Path, request: PodRequest) -> Result<Held, ClientError> {
    only_answer(socket, &Request::Pod(request))
}

fn only_answer<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ClientError> {
    let mut conversation = Conversation::begin(socket, request)?;
    let Some(line) = conversation.next().transpose()? else {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(ClientError::Io {
            path: socket.to_owned(),
            source,
        });
    };
    serde_json::from_str(&line).map_err(|source| ClientError::Answer { source })
}

/// The lines of the answer, as they come.
pub(crate) fn flows(socket: &Path, request: FlowsRequest) -> Result<Conversation, ClientError> {
    Conversation::begin(socket, &Request::Flows(request))
}

impl Conversation {
    fn begin(path: &Path, request: &Request) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let mut stream = match UnixStream::connect(&path) {
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
        let patience = match request {
            Request::Status {} | Request::World {} => Some(PATIENCE),
            // It answers in time, if it can.
            Request::Pod(PodRequest { wait_ms, .. }) => {
                Some(Duration::from_millis(*wait_ms) + GRACE)
            }
            Request::Flows(_) => None,
        };
        if patience.is_some() {
            // An agent that is stopped or stuck keeps its socket, and would be waited for in vain.
            stream
                .set_read_timeout(patience)
                .map_err(|source| ClientError::Io {
                    path: path.clone(),
                    source,
                })?;
        }
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
