//! The service that is asked for flows.

use std::sync::Arc;

use agent_hubble_proto::{
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse,
        GetNodesRequest, GetNodesResponse, Namespace, Node, ServerStatusRequest,
        ServerStatusResponse, Tls, observer_server::Observer,
    },
    relay::NodeState,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};

use super::{Hub, PRODUCT, Places, Reached, STREAMS, VERSION, flow, reading::Reading};
use crate::flow::{clock::WallTime, record::Line};

/// Over which the rate of flows is taken, in nanoseconds.
const RATED: i64 = 60_000_000_000;

/// Lines that are looked at at a time.
const AT_ONCE: u64 = 1024;

#[derive(Debug)]
pub(super) struct Flows(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl Observer for Flows {
    type GetFlowsStream = BoxStream<'static, Result<GetFlowsResponse, Status>>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let Self(hub) = self;
        let Places(places) = request.extensions().get().cloned().unwrap_or_default();
        let Ok(place) = places.try_acquire_owned() else {
            hub.counts.has_refused();
            let told = format!("{STREAMS} streams of flows are open already");
            return Err(Status::resource_exhausted(told));
        };
        let reading = Reading::start(Arc::clone(hub), request.into_inner(), place).await?;
        let told = stream::unfold(reading, |mut reading| async {
            let response = reading.next().await?;
            Some((Ok(response), reading))
        });
        Ok(Response::new(told.boxed()))
    }

    async fn get_nodes(
        &self,
        request: Request<GetNodesRequest>,
    ) -> Result<Response<GetNodesResponse>, Status> {
        let Self(hub) = self;
        let reached = request.extensions().get::<Reached>().copied();
        let server_name = hub.address.tls();
        let flows = hub.ring.flows();
        let node = Node {
            name: hub.teller.node_name.clone(),
            version: version(),
            address: hub.address.for_peers(reached.and_then(|Reached(it)| it)),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls {
                enabled: server_name.is_some(),
                server_name: server_name.unwrap_or_default().to_owned(),
            }),
            uptime_ns: hub.uptime_ns(),
            num_flows: flows.kept,
            max_flows: hub.ring.capacity() as u64,
            seen_flows: flows.seen,
        };
        Ok(Response::new(GetNodesResponse { nodes: vec![node] }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let Self(hub) = self;
        let namespaces = hub.namespaces.lately().into_iter();
        let namespaces = namespaces.map(|namespace| Namespace {
            cluster: hub.address.home.cluster.to_string(),
            namespace,
        });
        Ok(Response::new(GetNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let Self(hub) = self;
        let flows = hub.ring.flows();
        Ok(Response::new(ServerStatusResponse {
            num_flows: flows.kept,
            max_flows: hub.ring.capacity() as u64,
            seen_flows: flows.seen,
            uptime_ns: hub.uptime_ns(),
            // One node answers for itself.
            num_connected_nodes: None,
            num_unavailable_nodes: None,
            unavailable_nodes: Vec::new(),
            version: version(),
            flows_rate: rate(hub).await,
        }))
    }
}

fn version() -> String {
    format!("{PRODUCT} v{VERSION}")
}

/// Flows a second, of the last minute; of less where less is kept.
async fn rate(hub: &Hub) -> f64 {
    let now = WallTime::now().0;
    let mut places = hub.ring.places();
    let (mut flows, mut oldest) = (0_u32, now);
    while !places.is_empty() {
        let from = places.end.saturating_sub(AT_ONCE).max(places.start);
        let lines = hub.ring.slice(from..places.end);
        let times = lines.iter().filter_map(|line| match &**line {
            Line::Flow(record) => Some(flow::time(record).0),
            Line::Loss(_) | Line::Tampering(_) => None,
        });
        let (mut known, mut of_late) = (0_u32, 0);
        for time in times {
            known += 1;
            if time > now.saturating_sub(RATED) {
                of_late += 1;
                oldest = oldest.min(time);
            }
        }
        flows += of_late;
        // What is older still is no longer of interest.
        if known > of_late {
            break;
        }
        places.end = from;
        tokio::task::yield_now().await;
    }
    let covered = u64::try_from(now - oldest).unwrap_or_default();
    let seconds = std::time::Duration::from_nanos(covered).as_secs_f64();
    f64::from(flows) / seconds.max(1.0)
}
