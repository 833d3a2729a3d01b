//! Connections to a collector: one at a time, none for long, and every wait on it ends.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
    rt::{Executor, Read, Write},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    runtime::Handle,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::endpoint::{Endpoint, Protocol};
use crate::flow::sink::remote::Tls;

/// To one address; a name may have more.
const CONNECT: Duration = Duration::from_secs(3);

/// Of a connection. A name that leads elsewhere by now, and certificates that were replaced, are noticed with the next one.
const AGE: Duration = Duration::from_mins(1);

/// Bytes of an answer. What has more is no answer to this question.
const LONGEST: usize = 1 << 20;

pub(super) struct Wire {
    endpoint: Endpoint,
    tls: Tls,
    protocol: Protocol,
    /// For all of an exchange.
    patience: Duration,
    runtime: Handle,
    connection: Option<Connection>,
}

/// What came back.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` if it was too long.
    pub(super) body: Option<Vec<u8>>,
    pub(super) trailers: HeaderMap,
}

struct Connection {
    sender: Sender,
    since: Instant,
    tasks: Tasks,
}

enum Sender {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

/// What carries a connection. A far end that takes nothing would keep it for ever: it ends with the connection.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Why there is no answer.
enum Fault {
    /// Nothing came back: a connection that was kept may have been closed meanwhile.
    Silent(anyhow::Error),
    Other(anyhow::Error),
}

impl Wire {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: Tls,
        protocol: Protocol,
        patience: Duration,
        runtime: Handle,
    ) -> Self {
        Self {
            endpoint,
            tls,
            protocol,
            patience,
            runtime,
            connection: None,
        }
    }

    /// Sends, and waits for all of the answer. On a thread of its own.
    ///
    /// # Errors
    ///
    /// Whether the far end has taken it is not known.
    pub(super) fn exchange(&mut self, request: &Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            let patience = self.patience;
            let answered = timeout(patience, self.answer(request)).await;
            let answered = answered.unwrap_or_else(|_| {
                let waited = patience.as_secs();
                Err(anyhow!("no answer within {waited} s"))
            });
            if answered.is_err() {
                self.connection = None;
            }
            answered
        })
    }

    /// To be called now and then.
    pub(super) fn let_go(&mut self) {
        let is_old = |it: &Connection| it.since.elapsed() >= AGE;
        if self.connection.as_ref().is_some_and(is_old) {
            self.connection = None;
        }
    }

    async fn answer(&mut self, request: &Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        self.let_go();
        if let Some(mut kept) = self.connection.take() {
            match kept.answer(request.clone()).await {
                Ok(reply) => return Ok(self.keep(kept, reply)),
                Err(Fault::Silent(_)) => {}
                Err(Fault::Other(error)) => return Err(error),
            }
        }
        let mut new = self.connect().await?;
        match new.answer(request.clone()).await {
            Ok(reply) => Ok(self.keep(new, reply)),
            Err(Fault::Silent(error) | Fault::Other(error)) => Err(error),
        }
    }

    /// The rest of an answer that is too long is not waited for.
    fn keep(&mut self, connection: Connection, reply: Reply) -> Reply {
        self.connection = reply.body.is_some().then_some(connection);
        reply
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = self.dial().await?;
        if !self.endpoint.is_tls {
            return self.shake_hands(TokioIo::new(stream)).await;
        }
        let mut config = self.tls.client()?;
        config.alpn_protocols = match self.protocol {
            Protocol::Http => vec![b"http/1.1".to_vec()],
            Protocol::Grpc => vec![b"h2".to_vec()],
        };
        let name = self.tls.server_name.as_ref().unwrap_or(&self.endpoint.host);
        let name = ServerName::try_from(name.clone()).context("not a name of a server")?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await?;
        self.shake_hands(TokioIo::new(stream)).await
    }

    /// To the first address that answers.
    async fn dial(&self) -> anyhow::Result<TcpStream> {
        let mut last = None;
        for address in lookup_host((&*self.endpoint.host, self.endpoint.port)).await? {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(anyhow!(error).context(address)),
                Err(_) => last = Some(anyhow!("{address} does not answer")),
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("it has no address")))
    }

    async fn shake_hands<S>(&self, stream: S) -> anyhow::Result<Connection>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let tasks = Tasks::default();
        let sender = match self.protocol {
            Protocol::Http => {
                let (sender, carrier) = http1::handshake(stream).await?;
                tasks.execute(async { drop(carrier.await) });
                Sender::Http(sender)
            }
            Protocol::Grpc => {
                let (sender, carrier) = http2::handshake(tasks.clone(), stream).await?;
                tasks.execute(async { drop(carrier.await) });
                Sender::Grpc(sender)
            }
        };
        Ok(Connection {
            sender,
            since: Instant::now(),
            tasks,
        })
    }
}

impl Connection {
    async fn answer(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, Fault> {
        let sent = match &mut self.sender {
            Sender::Http(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            },
            Sender::Grpc(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            },
        };
        let response = sent.map_err(|error| Fault::Silent(error.into()))?;
        Reply::read(response).await.map_err(Fault::Other)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

impl Reply {
    async fn read(response: Response<Incoming>) -> anyhow::Result<Self> {
        let (head, mut rest) = response.into_parts();
        let mut reply = Self {
            status: head.status,
            headers: head.headers,
            body: Some(Vec::new()),
            trailers: HeaderMap::new(),
        };
        while let Some(frame) = rest.frame().await {
            match frame?.into_data() {
                Ok(data) => {
                    let body = reply.body.get_or_insert_default();
                    if body.len() + data.len() > LONGEST {
                        reply.body = None;
                        break;
                    }
                    body.extend_from_slice(&data);
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        reply.trailers = trailers;
                    }
                }
            }
        }
        Ok(reply)
    }
}

impl Tasks {
    fn end(&self) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are not kept.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async { drop(task.await) });
    }
}

/// What tests need not wait for.
#[cfg(test)]
impl Wire {
    pub(super) fn grow_old(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.since = connection.since.checked_sub(AGE).unwrap();
        }
    }

    pub(super) fn be_patient(&mut self) {
        self.patience = Duration::from_secs(30);
    }

    pub(super) fn be_known_by(&mut self, certificate: std::path::PathBuf, key: std::path::PathBuf) {
        self.tls.cert_file = Some(certificate);
        self.tls.key_file = Some(key);
    }
}
