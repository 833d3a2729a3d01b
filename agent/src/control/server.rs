//! The agent's side of the control socket.

use std::{borrow::Cow, collections::VecDeque, fmt, io, path::Path, sync::Arc, time::Duration};

use agent_policy::model::World;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::debug;

use super::{
    FlowsRequest, Held, PodRequest, REQUEST_LIMIT, Refusal, Request, ServedWorld,
    socket::{BindError, Socket},
    status::Status,
};
use crate::flow::{
    clock::WallTime,
    record::{Line, Loss, LossRecord},
    ring::Ring,
};

/// Clients at a time; more wait.
const CLIENTS: usize = 64;
/// Pods that wait at a time, each until the kernel enforces for it. They take no other client's place.
const PODS: usize = 256;
/// Bytes of lines after which a client is written to, though there may be more for it.
const AT_ONCE: usize = 64 * 1024;

/// A client that has not said what it wants by then is sent away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who knows how the agent is. May block for a moment: it is asked on a thread of its own.
pub(crate) trait StatusSource: Send + Sync + 'static {
    fn status(&self) -> Status;

    /// What is in force.
    fn world(&self) -> Arc<World>;
}

/// Who has pods enforced for.
pub(crate) trait Admission: Send + Sync + 'static {
    /// Answers once it is so, or with why it is not, when the time that the request gives is over at the latest.
    fn admit(&self, request: PodRequest) -> BoxFuture<'_, Result<Held, String>>;
}

/// Listens, and does not answer yet.
pub(crate) struct Server {
    socket: Socket,
    handler: Handler,
}

#[derive(Clone)]
struct Handler {
    node: Arc<str>,
    ring: Arc<Ring>,
    status: Arc<dyn StatusSource>,
    /// `None` where pods are not known.
    admission: Option<Arc<dyn Admission>>,
    /// Places for pods.
    pods: Arc<Semaphore>,
}

impl Server {
    /// Listens at `path`.
    pub(crate) fn bind(
        path: &Path,
        node: Arc<str>,
        ring: Arc<Ring>,
        status: Arc<dyn StatusSource>,
        admission: Option<Arc<dyn Admission>>,
    ) -> Result<Self, BindError> {
        Ok(Self {
            socket: Socket::bind(path, "--socket")?,
            handler: Handler {
                node,
                ring,
                status,
                admission,
                pods: Arc::new(Semaphore::new(PODS)),
            },
        })
    }

    /// Answers until the future is dropped.
    pub(crate) async fn run(self) {
        let listener = match self.socket.listener() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "nobody answers at the control socket");
                return;
            }
        };
        let slots = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handler = self.handler.clone();
                    tokio::spawn(async move {
                        if let Err(error) = handler.serve(stream, slot).await {
                            debug!(%error, "a client went away");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait, rather than spin.
                    debug!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Handler {
    async fn serve(self, stream: UnixStream, slot: OwnedSemaphorePermit) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = Vec::new();
        let mut reader = BufReader::new(reader).take(REQUEST_LIMIT as u64 + 1);
        let read = tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await;
        let Ok(read) = read else {
            return refuse(&mut writer, "no request in time").await;
        };
        read?;
        if line.len() > REQUEST_LIMIT {
            let error = format!("the request has more than {REQUEST_LIMIT} bytes");
            return refuse(&mut writer, &error).await;
        }
        match serde_json::from_slice(&line) {
            Ok(Request::Status {}) => {
                let source = Arc::clone(&self.status);
                match tokio::task::spawn_blocking(move || source.status()).await {
                    Ok(status) => send(&mut writer, &status).await,
                    Err(error) => refuse(&mut writer, &format!("no status: {error}")).await,
                }
            }
            Ok(Request::World {}) => {
                let (source, node) = (Arc::clone(&self.status), self.node.to_string());
                // A world can be large: neither it nor its text is made where others are served.
                let line = tokio::task::spawn_blocking(move || {
                    let world = source.world().changes_from(&World::default());
                    line_of(&ServedWorld { node, world })
                });
                match line.await {
                    Ok(line) => writer.write_all(&line?).await,
                    Err(error) => refuse(&mut writer, &format!("no world: {error}")).await,
                }
            }
            Ok(Request::Pod(request)) => {
                let Some(admission) = &self.admission else {
                    return refuse(
                        &mut writer,
                        "this agent has no Kubernetes API to know pods by",
                    )
                    .await;
                };
                let Ok(_place) = self.pods.try_acquire() else {
                    let error = format!("{PODS} pods wait already: try again later");
                    return refuse(&mut writer, &error).await;
                };
                drop(slot);
                let mut rest = reader.into_inner();
                let mut nothing = [0; 1];
                tokio::select! {
                    admitted = admission.admit(request) => match admitted {
                        Ok(held) => send(&mut writer, &held).await,
                        Err(error) => refuse(&mut writer, &error).await,
                    },
                    // A runtime that has given up has ended its plugin.
                    _ = rest.read(&mut nothing) => Ok(()),
                }
            }
            Ok(Request::Flows(request)) => {
                // Whoever follows says no more: the end of its stream is the end of its interest.
                let mut rest = reader.into_inner();
                let mut nothing = [0; 1];
                tokio::select! {
                    result = self.flows(&request, &mut writer) => result,
                    _ = rest.read(&mut nothing), if request.follow => Ok(()),
                }
            }
            Err(error) => refuse(&mut writer, &format!("not a request: {error}")).await,
        }
    }

    async fn flows(&self, request: &FlowsRequest, writer: &mut OwnedWriteHalf) -> io::Result<()> {
        let (kept, mut coming) = self.ring.follow();
        let mut wanted: VecDeque<_> = kept
            .into_iter()
            .filter(|line| request.wants(line))
            .collect();
        if let Some(last) = request.last {
            wanted.drain(..wanted.len().saturating_sub(last));
        }
        // What there is, is written at once: a line by itself costs more to write than to make.
        let mut text = Vec::new();
        for line in wanted {
            line.write(&mut text);
            if text.len() >= AT_ONCE {
                writer.write_all(&text).await?;
                text.clear();
            }
        }
        writer.write_all(&text).await?;
        if !request.follow {
            return Ok(());
        }
        let mut lines = Vec::new();
        loop {
            let lost = coming.read(&mut lines).await;
            text.clear();
            if lost > 0 {
                self.lagged(lost).write(&mut text);
            }
            for line in lines.drain(..).filter(|line| request.wants(line)) {
                line.write(&mut text);
            }
            writer.write_all(&text).await?;
        }
    }

    fn lagged(&self, count: u64) -> Line {
        let now = WallTime::now();
        Line::Loss(LossRecord::new(
            Arc::clone(&self.node),
            None,
            Loss {
                stage: Cow::Borrowed("client"),
                reason: Cow::Borrowed("too-slow"),
                count,
                first: now,
                last: now,
            },
        ))
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, error: &str) -> io::Result<()> {
    send(
        writer,
        &Refusal {
            error: error.to_owned(),
        },
    )
    .await
}

async fn send(writer: &mut OwnedWriteHalf, value: &impl Serialize) -> io::Result<()> {
    writer.write_all(&line_of(value)?).await
}

fn line_of(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    add(value, &mut line)?;
    Ok(line)
}

fn add(value: &impl Serialize, lines: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, value)?;
    lines.push(b'\n');
    Ok(())
}
