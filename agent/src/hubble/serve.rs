//! Connections.
//!
//! Each has a task and a place; those of the socket and those of TCP are counted apart, so that whoever fills one leaves the
//! other free. A connection that nobody uses is closed, and one whose far end is gone is noticed: clients come again by
//! themselves.

use std::{
    convert::Infallible,
    fmt,
    net::{SocketAddr, TcpListener as BlockingListener},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use agent_hubble_proto::{
    DESCRIPTORS, observer::observer_server::ObserverServer, peer::peer_server::PeerServer,
};
use anyhow::Context as _;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, service::Routes};
use tonic_health::ServingStatus;
use tower::Service as _;
use tracing::debug;

use super::{
    Address, Home, Hub, HubbleCounts, Places, Reached, observer::Flows, peer::Peers,
    tls::Certificates,
};
use crate::{config::HubbleConfig, control::socket::Socket, flow::ring::Ring};

/// Connections at a time, of each way in; more wait.
const CLIENTS: usize = 64;

/// Calls at a time of one connection; more wait.
const CALLS: u32 = 16;

/// For a client to prove who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// For a request to be there, and its answer to begin.
const REQUESTED: Duration = Duration::from_secs(30);

/// A connection without calls is closed after so long.
const IDLE: Duration = Duration::from_mins(1);

/// A connection on which nothing comes is asked whether it lives, and has as long to answer.
const ALIVE: Duration = Duration::from_secs(20);

/// Bytes of a request: filters, of which people write some.
const REQUEST: usize = 64 * 1024;

/// By which Hubble's command line asks for the health of [`Observer`](agent_hubble_proto::observer).
const HEALTH: &str = "hubble.server.Observer";

/// Listens, and does not answer yet.
pub(crate) struct Server {
    hub: Arc<Hub>,
    socket: Option<Socket>,
    tcp: Option<(BlockingListener, Option<Arc<Certificates>>)>,
}

/// What each connection needs.
#[derive(Clone)]
struct Door {
    routes: Routes,
    places: Arc<Semaphore>,
    streams: Places,
}

impl Server {
    /// To be called while the agent may still use any port, and read any file.
    pub(crate) fn bind(
        config: &HubbleConfig,
        home: Home,
        ring: &Arc<Ring>,
        counts: Arc<HubbleCounts>,
    ) -> anyhow::Result<Self> {
        let HubbleConfig {
            socket: path,
            listen,
            tls,
            insecure: _,
            flows: _,
        } = config;
        let socket = path.as_deref().map(|path| {
            let bound = Socket::bind(path, "`hubble.socket`");
            bound.context("Hubble's API cannot be asked at its socket")
        });
        let certificates = tls.clone().map(Certificates::read).transpose();
        let certificates = certificates.context("Hubble's API cannot be asked by TLS")?;
        let certificates = certificates.map(Arc::new);
        let tcp = listen.map(|address| {
            let bind = || {
                let listener = BlockingListener::bind(address)?;
                listener.set_nonblocking(true)?;
                anyhow::Ok((listener, certificates))
            };
            bind().with_context(|| format!("Hubble's API cannot be asked at {address}"))
        });
        let address = Address {
            server_name: tls.as_ref().map(|_| home.name_in_certificates()),
            home,
            socket: path.clone(),
            listen: *listen,
        };
        Ok(Self {
            hub: Arc::new(Hub::new(Arc::clone(ring), address, counts)),
            socket: socket.transpose()?,
            tcp: tcp.transpose()?,
        })
    }

    /// Answers for ever.
    pub(crate) async fn run(self) {
        let Self { hub, socket, tcp } = self;
        let routes = match routes(&hub).await {
            Ok(routes) => routes,
            Err(error) => {
                tracing::error!(%error, "Hubble's API is not answered");
                return;
            }
        };
        let door = || Door {
            routes: routes.clone(),
            places: Arc::new(Semaphore::new(CLIENTS)),
            streams: Places::default(),
        };
        let at_socket = async {
            let Some(socket) = socket else { return };
            if let Err(error) = door().at_socket(&socket).await {
                tracing::error!(%error, "Hubble's API is not answered at its socket");
            }
        };
        let by_tcp = async {
            let Some((listener, certificates)) = tcp else {
                return;
            };
            if let Err(error) = door().by_tcp(listener, certificates).await {
                tracing::error!(%error, "Hubble's API is not answered by TCP");
            }
        };
        // From what is there on.
        let seen = hub.ring.follow_from(hub.ring.places().start);
        tokio::join!(at_socket, by_tcp, hub.namespaces.watch(seen));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.socket)
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

async fn routes(hub: &Arc<Hub>) -> Result<Routes, tonic_reflection::server::Error> {
    let (health, answered) = tonic_health::server::health_reporter();
    for service in ["", HEALTH] {
        let status = ServingStatus::Serving;
        health.set_service_status(service, status).await;
    }
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let observer = ObserverServer::new(Flows(Arc::clone(hub)));
    Ok(Routes::new(observer.max_decoding_message_size(REQUEST))
        .add_service(PeerServer::new(Peers(Arc::clone(hub))).max_decoding_message_size(REQUEST))
        .add_service(answered)
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}

impl Door {
    async fn at_socket(self, socket: &Socket) -> std::io::Result<()> {
        let listener = socket.listener()?;
        loop {
            let place = self.place().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = self.clone();
                    tokio::spawn(async move { door.serve(stream, None, place).await });
                }
                Err(error) => later(&error).await,
            }
        }
    }

    async fn by_tcp(
        self,
        listener: BlockingListener,
        certificates: Option<Arc<Certificates>>,
    ) -> std::io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let place = self.place().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (door, certificates) = (self.clone(), certificates.clone());
                    tokio::spawn(door.serve_tcp(stream, certificates, place));
                }
                Err(error) => later(&error).await,
            }
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    async fn serve_tcp(
        self,
        stream: TcpStream,
        certificates: Option<Arc<Certificates>>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let reached = stream.local_addr().ok();
        drop(stream.set_nodelay(true));
        let Some(certificates) = certificates else {
            return self.serve(stream, reached, place).await;
        };
        // It may read files: not on a thread that others wait for.
        let now = tokio::task::spawn_blocking(move || certificates.now());
        let Ok(config) = now.await else { return };
        match timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, reached, place).await,
            Ok(Err(error)) => debug!(%error, "a client of Hubble's API has not proved who it is"),
            Err(_) => debug!("a client of Hubble's API says nothing"),
        }
    }

    async fn serve<S>(
        self,
        stream: S,
        reached: Option<SocketAddr>,
        _place: Option<OwnedSemaphorePermit>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let calls = Calls::default();
        let counted = calls.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Reached(reached));
            request.extensions_mut().insert(self.streams.clone());
            let (mut routes, call) = (self.routes.clone(), counted.begin());
            async move {
                let answer = match timeout(REQUESTED, routes.call(request)).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(never)) => match never {},
                    Err(_) => Status::deadline_exceeded("the request has no end").into_http(),
                };
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _call: call }))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE)
            .max_concurrent_streams(CALLS)
            .max_header_list_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "a client of Hubble's API went away");
                }
                return;
            }
            () = calls.cease() => {}
        }
        connection.as_mut().graceful_shutdown();
        // It may have asked something meanwhile, and is to have its answer, but need not listen.
        if timeout(PATIENCE, connection).await.is_err() {
            debug!("a client of Hubble's API was cut off");
        }
    }
}

/// Out of file descriptors, most likely: waits, rather than spins.
async fn later(error: &std::io::Error) {
    debug!(%error, "cannot accept a client of Hubble's API");
    sleep(Duration::from_millis(100)).await;
}

/// Of one connection.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<CallCounts>);

#[derive(Debug, Default)]
struct CallCounts {
    open: AtomicUsize,
    begun: AtomicUsize,
}

/// One that is not over yet.
#[derive(Debug)]
struct Call(Arc<CallCounts>);

impl Calls {
    fn begin(&self) -> Call {
        self.0.open.fetch_add(1, Relaxed);
        self.0.begun.fetch_add(1, Relaxed);
        Call(Arc::clone(&self.0))
    }

    /// Returns when there have been none for long.
    async fn cease(&self) {
        let mut before = self.0.begun.load(Relaxed);
        loop {
            sleep(IDLE).await;
            let begun = self.0.begun.load(Relaxed);
            if begun == before && self.0.open.load(Relaxed) == 0 {
                return;
            }
            before = begun;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// What is answered; the call is over when it has been, or when nobody wants it any more.
struct Answer<B> {
    body: B,
    _call: Call,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
