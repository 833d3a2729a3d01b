//! HTTP for whoever scrapes.

use std::{
    fmt,
    future::Future as _,
    io,
    net::{SocketAddr, TcpListener as BlockingListener},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{
        StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;

/// Who has not asked by then, or has not taken the answer so long after that, is sent away: it would keep others out.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was gathered is good for so long, however many ask.
const FRESH: Duration = Duration::from_secs(1);

/// What `OpenMetrics` calls itself.
const FORM: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and does not answer yet.
#[derive(Debug)]
pub(crate) struct Server(BlockingListener);

/// Accepts as many connections as there are places.
struct Places {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

/// A connection that ends some day.
struct Connection {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    is_answered: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Server {
    /// To be called while the agent may still use any port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = BlockingListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Answers for ever.
    pub(crate) async fn run(self, registry: Registry) -> io::Result<()> {
        let places = Places {
            listener: TcpListener::from_std(self.0)?,
            free: Arc::new(Semaphore::new(CONNECTIONS)),
        };
        let router = Router::new()
            .route("/metrics", get(scrape))
            .with_state(Arc::new(Gathered {
                registry,
                turn: Arc::new(Semaphore::new(1)),
                last: Mutex::default(),
            }));
        axum::serve(places, router).await
    }
}

/// What is answered, gathered by one at a time: whoever asks and goes leaves no more behind than that.
struct Gathered {
    registry: Registry,
    turn: Arc<Semaphore>,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Gathered {
    fn text(&self) -> Result<Arc<str>, fmt::Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(text));
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        let out: Arc<str> = out.into();
        *last = Some((Instant::now(), Arc::clone(&out)));
        Ok(out)
    }
}

async fn scrape(State(gathered): State<Arc<Gathered>>) -> Response {
    // It is never closed.
    let turn = Arc::clone(&gathered.turn).acquire_owned().await;
    // It reads the kernel's tables: not on a thread that others wait for. Its turn lasts until it is done, also if
    // nobody waits for the answer any more.
    let encoded = tokio::task::spawn_blocking(move || {
        let text = gathered.text();
        drop(turn);
        text
    });
    match encoded.await {
        Ok(Ok(text)) => (
            [(CONTENT_TYPE, FORM), (CONNECTION, "close")],
            text.to_string(),
        )
            .into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl axum::serve::Listener for Places {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed.
        let place = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            until: Box::pin(sleep(PATIENCE)),
            is_answered: false,
            _place: place,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.is_answered {
            self.is_answered = true;
            self.until.as_mut().reset(Instant::now() + PATIENCE);
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
