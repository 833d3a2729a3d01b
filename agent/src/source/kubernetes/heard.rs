//! When something was heard of each kind: an event, or a bookmark, which the library keeps to itself.
//!
//! A layer of the client, that sees the bodies of answers as they arrive, and says in each request who is asking.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::client::Body;
use tower::{Layer, Service};

use super::{kind::Kind, store::Store, token::Token};

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) store: Arc<Store>,
    /// `None` where the library knows another way to say who is asking.
    pub(super) token: Option<Arc<Token>>,
}

#[derive(Clone, Debug)]
pub(super) struct Listener<S> {
    inner: S,
    of: Listening,
}

/// The body of an answer about a kind.
pub(super) struct Heard<B> {
    inner: B,
    /// `None` if it says nothing of one.
    of: Option<(Kind, Arc<Store>)>,
}

impl<S> Layer<S> for Listening {
    type Service = Listener<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let of = self.clone();
        Listener { inner, of }
    }
}

impl<S, B> Service<Request<Body>> for Listener<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Heard<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Listening { store, token } = &self.of;
        let kind = Kind::of_path(request.uri().path());
        let of = kind.map(|kind| (kind, Arc::clone(store)));
        let token = token.clone();
        if let Some(header) = token.as_ref().and_then(|token| token.header()) {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let (StatusCode::UNAUTHORIZED, Some(token)) = (answer.status(), token) {
                token.refused();
            }
            let of = of.filter(|_| answer.status().is_success());
            if let Some((kind, store)) = &of {
                store.heard(*kind);
            }
            Ok(answer.map(|inner| Heard { inner, of }))
        })
    }
}

impl<B: HttpBody + Unpin> HttpBody for Heard<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(_))), Some((kind, store))) = (&frame, &self.of) {
            store.heard(*kind);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
