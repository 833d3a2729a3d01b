//! A collector that does as it is told.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::http::{HeaderMap, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::{Bytes, Incoming},
    rt::{Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::Protocol;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// What is done with a request.
pub(super) enum Reaction {
    Answer(Response<Body>),
    /// Nothing, for ever.
    Hang,
    /// The connection is cut.
    Cut,
}

#[derive(Clone, Default)]
pub(super) struct Collector(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reactions: Mutex<VecDeque<Reaction>>,
    seen: Mutex<Vec<(Parts, Vec<u8>)>>,
    connections: AtomicUsize,
    certificate: Mutex<Option<Arc<ServerConfig>>>,
}

/// What becomes of nobody.
#[derive(Debug)]
struct Cutting;

impl std::fmt::Display for Cutting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cutting {}

impl Collector {
    /// Reacts like this, and then takes all that comes.
    pub(super) fn that(reactions: impl IntoIterator<Item = Reaction>) -> Self {
        let collector = Self::default();
        collector.0.reactions.lock().unwrap().extend(reactions);
        collector
    }

    pub(super) fn proves_by(&self, certificate: ServerConfig) {
        *self.0.certificate.lock().unwrap() = Some(Arc::new(certificate));
    }

    /// Listens, from within a runtime.
    pub(super) async fn listen(&self, protocol: Protocol) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                collector.0.connections.fetch_add(1, Ordering::Relaxed);
                let certificate = collector.0.certificate.lock().unwrap().clone();
                let collector = collector.clone();
                tokio::spawn(async move {
                    match certificate {
                        None => collector.serve(protocol, TokioIo::new(stream)).await,
                        Some(certificate) => {
                            let accepted = TlsAcceptor::from(certificate).accept(stream).await;
                            if let Ok(stream) = accepted {
                                collector.serve(protocol, TokioIo::new(stream)).await;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    async fn serve<S: Read + Write + Unpin + Send + 'static>(&self, protocol: Protocol, io: S) {
        let service = service_fn(|request| self.react(protocol, request));
        match protocol {
            Protocol::Http => drop(http1::Builder::new().serve_connection(io, service).await),
            Protocol::Grpc => {
                let server = http2::Builder::new(TokioExecutor::new());
                // Its streams are served by this task: what they borrow lives as long.
                let collector = self.clone();
                let service = service_fn(move |request| {
                    let collector = collector.clone();
                    async move { collector.react(protocol, request).await }
                });
                drop(server.serve_connection(io, service).await);
            }
        }
    }

    async fn react(
        &self,
        protocol: Protocol,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Cutting> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cutting)?;
        let body = body.to_bytes().to_vec();
        self.0.seen.lock().unwrap().push((parts, body));
        let reaction = self.0.reactions.lock().unwrap().pop_front();
        match reaction {
            Some(Reaction::Answer(response)) => Ok(response),
            Some(Reaction::Hang) => std::future::pending().await,
            Some(Reaction::Cut) => Err(Cutting),
            None => Ok(match protocol {
                Protocol::Http => plain(200, &[]),
                Protocol::Grpc => called(0, "", &[], None),
            }),
        }
    }

    pub(super) fn seen(&self) -> Vec<(Parts, Vec<u8>)> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }
}

/// An answer over HTTP.
pub(super) fn plain(status: u16, message: &[u8]) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/x-protobuf")
        .body(Full::from(message.to_vec()).boxed())
        .unwrap()
}

/// An answer over gRPC: a message, and then a status.
pub(super) fn called(
    code: u32,
    said: &str,
    message: &[u8],
    details: Option<&str>,
) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", said.parse().unwrap());
    if let Some(details) = details {
        trailers.insert("grpc-status-details-bin", details.parse().unwrap());
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0], &length[..], message].concat();
    let body = Full::from(framed).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(body.boxed())
        .unwrap()
}
