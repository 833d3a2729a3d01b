//! Who else can be asked: nobody. This node is told, and the stream stays open, since a client that has lost it waits.

use std::sync::Arc;

use agent_hubble_proto::peer::{
    ChangeNotification, ChangeNotificationType, NotifyRequest, Tls, peer_server::Peer,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};

use super::{Hub, Reached};

#[derive(Debug)]
pub(super) struct Peers(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl Peer for Peers {
    type NotifyStream = BoxStream<'static, Result<ChangeNotification, Status>>;

    async fn notify(
        &self,
        request: Request<NotifyRequest>,
    ) -> Result<Response<Self::NotifyStream>, Status> {
        let Self(hub) = self;
        let reached = request.extensions().get::<Reached>().copied();
        let tls = hub.address.tls().map(|name| Tls {
            server_name: name.to_owned(),
        });
        let itself = ChangeNotification {
            name: hub.teller.node_name.clone(),
            address: hub.address.for_peers(reached.and_then(|Reached(it)| it)),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls,
        };
        let told = stream::iter([Ok(itself)]).chain(stream::pending());
        Ok(Response::new(told.boxed()))
    }
}
