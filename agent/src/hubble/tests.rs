//! The services with a client in the same process, and records that other tests share.

use std::{path::Path, sync::Arc, time::Duration};

use agent_hubble_proto::{
    flow::{Flow, FlowFilter, LostEventSource, Verdict as Told},
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, ServerStatusRequest,
        get_flows_response::ResponseTypes, observer_server::Observer,
    },
};
use futures::StreamExt as _;
use prost::Message as _;
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Request, Status};

use super::{observer::Flows, *};
use crate::flow::{
    clock::WallTime,
    record::{
        Kind, Line, Loss, LossRecord, Record, TamperRecord, Tampering, Verdict, hostile::hostile,
    },
};

/// `edge/gateway` asks `shop/api`, and is let in by a rule.
const RECORD: &str = r#"{"schema_version":1,"seq":12,"node":"node-1","agent_version":"0.1.0",
    "kind":"start","flow_id":"5f0c2f1f7c0b9a11",
    "start":"2023-11-14T22:13:20.000000000Z","end":"2023-11-14T22:13:21.000000007Z",
    "src":{"ip":"10.0.0.2","port":40000,
        "workload":{"namespace":"edge","name":"gateway","kind":"Workload","labels":{"app":"gateway"}}},
    "dst":{"ip":"10.0.0.1","port":8080,
        "workload":{"namespace":"shop","name":"api","kind":"Workload","labels":{"app":"api"}}},
    "protocol":{"number":6,"name":"tcp"},"direction":"ingress","initiator_known":true,
    "forward":{"packets":5,"bytes":500,"tcp_flags":19},"reverse":{"packets":4,"bytes":4000,"tcp_flags":19},
    "verdict":"allow","policy":{"kind":"NetworkPolicy","namespace":"shop","name":"api",
        "rule":"ingress[0]","rule_id":7},
    "default_deny":false,"reason":"rule","ifindex":1,"generation":3,"endpoint":"shop/api"}"#;

pub(super) fn record(change: impl FnOnce(&mut Record)) -> Record {
    let Line::Flow(mut record) = Line::parse(RECORD).unwrap() else {
        panic!("a flow")
    };
    change(&mut record);
    record
}

pub(super) fn home() -> Home {
    Home::new(&"node-1".into(), Some("east.1"))
}

/// In all its shapes.
pub(super) fn told(record: &Record) -> Vec<Flow> {
    let teller = Teller::new(&home());
    let mut flow = teller.flow(record);
    let shapes = flow::shapes(record).iter();
    shapes
        .map(|shape| {
            shape.dress(&mut flow, record);
            flow.clone()
        })
        .collect()
}

const SECOND: i64 = 1_000_000_000;

/// The one with this number, which is also its second.
fn numbered(seq: u64) -> Record {
    record(|record| {
        record.seq = seq;
        record.start = WallTime(i64::try_from(seq).unwrap() * SECOND);
        record.end = None;
        if seq.is_multiple_of(2) {
            record.kind = Kind::Deny;
            record.verdict = Verdict::Deny;
            record.reason = None;
            record.drop_reason = Some("default-deny".into());
            record.policy = None;
        }
    })
}

fn flows(numbers: std::ops::RangeInclusive<u64>) -> Vec<Arc<Line>> {
    numbers
        .map(|number| Arc::new(Line::Flow(numbered(number))))
        .collect()
}

fn hub(ring: &Arc<Ring>) -> Arc<Hub> {
    let address = Address {
        home: home(),
        socket: Some("/run/hubble.sock".into()),
        listen: None,
        server_name: None,
    };
    Arc::new(Hub::new(Arc::clone(ring), address, Arc::default()))
}

async fn ask(
    hub: &Arc<Hub>,
    request: GetFlowsRequest,
) -> Result<
    <Flows as agent_hubble_proto::observer::observer_server::Observer>::GetFlowsStream,
    Status,
> {
    let flows = Flows(Arc::clone(hub));
    let answer = flows.get_flows(Request::new(request)).await?;
    Ok(answer.into_inner())
}

/// The second in the envelope of each, since it is the number of the record.
fn number(response: &GetFlowsResponse) -> i64 {
    assert_eq!(response.node_name, "east.1/node-1");
    response.time.unwrap().seconds
}

/// All that is answered, by number.
async fn numbers(hub: &Arc<Hub>, request: GetFlowsRequest) -> Vec<i64> {
    let stream = ask(hub, request).await.unwrap();
    stream.map(|it| number(&it.unwrap())).collect().await
}

fn second(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn dropped() -> Vec<FlowFilter> {
    vec![FlowFilter {
        verdict: vec![Told::Dropped.into()],
        ..FlowFilter::default()
    }]
}

#[tokio::test]
async fn a_request_gets_the_flows_that_it_is_about_the_oldest_first() {
    let ring = Arc::new(Ring::new(16));
    ring.push(&flows(1..=10));
    let hub = hub(&ring);
    let all = GetFlowsRequest::default();
    let number = |number| GetFlowsRequest {
        number,
        ..GetFlowsRequest::default()
    };
    assert_eq!(
        numbers(&hub, all.clone()).await,
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(numbers(&hub, number(3)).await, [8, 9, 10]);
    assert_eq!(numbers(&hub, number(u64::MAX)).await.len(), 10);
    let first = GetFlowsRequest {
        first: true,
        ..number(3)
    };
    assert_eq!(numbers(&hub, first).await, [1, 2, 3]);
    // It counts those that pass.
    let denied = GetFlowsRequest {
        whitelist: dropped(),
        ..number(2)
    };
    assert_eq!(numbers(&hub, denied).await, [8, 10]);
    let permitted = GetFlowsRequest {
        blacklist: dropped(),
        ..number(2)
    };
    assert_eq!(numbers(&hub, permitted).await, [7, 9]);
    let first_denied = GetFlowsRequest {
        whitelist: dropped(),
        first: true,
        ..number(2)
    };
    assert_eq!(numbers(&hub, first_denied).await, [2, 4]);
    let since = GetFlowsRequest {
        since: Some(second(4)),
        ..number(0)
    };
    assert_eq!(
        numbers(&hub, since.clone()).await,
        (4..=10).collect::<Vec<_>>()
    );
    // With both, the number is of the oldest since then.
    let since = GetFlowsRequest { number: 2, ..since };
    assert_eq!(numbers(&hub, since).await, [4, 5]);
    let until = GetFlowsRequest {
        until: Some(second(4)),
        ..number(0)
    };
    assert_eq!(numbers(&hub, until.clone()).await, [1, 2, 3, 4]);
    let until = GetFlowsRequest { number: 2, ..until };
    assert_eq!(numbers(&hub, until).await, [3, 4]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_any_flow() {
    let ring = Arc::new(Ring::new(16));
    ring.push(&flows(1..=3));
    let hub = hub(&ring);
    let refused = async |request| {
        let Err(status) = ask(&hub, request).await else {
            panic!("answered")
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        status.message().to_owned()
    };
    let both = GetFlowsRequest {
        first: true,
        follow: true,
        ..GetFlowsRequest::default()
    };
    assert!(refused(both).await.contains("exclude each other"));
    let time = Timestamp {
        seconds: 0,
        nanos: -1,
    };
    let time = GetFlowsRequest {
        since: Some(time),
        ..GetFlowsRequest::default()
    };
    assert!(refused(time).await.contains("`since`"));
    let filter = FlowFilter {
        http_path: vec!["/".to_owned()],
        ..FlowFilter::default()
    };
    let filter = GetFlowsRequest {
        blacklist: vec![filter],
        ..GetFlowsRequest::default()
    };
    assert!(refused(filter).await.contains("`http_path`"));
    // Times beyond all years are no error.
    let all = GetFlowsRequest {
        since: Some(second(i64::MIN)),
        until: Some(second(i64::MAX)),
        ..GetFlowsRequest::default()
    };
    assert_eq!(numbers(&hub, all).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_follower_gets_what_comes_and_what_it_asked_for_before() {
    let ring = Arc::new(Ring::new(16));
    ring.push(&flows(1..=4));
    let hub = hub(&ring);
    let follow = GetFlowsRequest {
        follow: true,
        ..GetFlowsRequest::default()
    };
    let mut new = ask(&hub, follow.clone()).await.unwrap();
    let last = GetFlowsRequest {
        number: 2,
        ..follow.clone()
    };
    let mut last = ask(&hub, last).await.unwrap();
    let until = GetFlowsRequest {
        until: Some(second(6)),
        ..follow
    };
    let until = ask(&hub, until).await.unwrap();
    ring.push(&flows(5..=7));
    for (stream, first) in [(&mut new, 5), (&mut last, 3)] {
        for expected in first..=7 {
            assert_eq!(number(&stream.next().await.unwrap().unwrap()), expected);
        }
    }
    // It has seen one that is later.
    let seen: Vec<i64> = until.map(|it| number(&it.unwrap())).collect().await;
    assert_eq!(seen, [5, 6]);
}

fn lost(response: GetFlowsResponse) -> Option<(LostEventSource, u64)> {
    match response.response_types? {
        ResponseTypes::LostEvents(lost) => Some((lost.source(), lost.num_events_lost)),
        ResponseTypes::Flow(_) | ResponseTypes::NodeStatus(_) => None,
    }
}

#[tokio::test]
async fn what_a_slow_follower_misses_is_told() {
    let ring = Arc::new(Ring::new(16));
    let hub = hub(&ring);
    let follow = GetFlowsRequest {
        follow: true,
        ..GetFlowsRequest::default()
    };
    let mut stream = ask(&hub, follow).await.unwrap();
    // More than it may lag behind.
    ring.push(&flows(1..=5000));
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(
        lost(first),
        Some((LostEventSource::HubbleRingBuffer, 5000 - 4096))
    );
    let second = stream.next().await.unwrap().unwrap();
    assert_eq!(number(&second), 5000 - 4096 + 1);
    let expected = HubbleStatus {
        streams: 1,
        refused: 0,
        told: 1,
        missed: 5000 - 4096,
    };
    assert_eq!(hub.counts.status(), expected);
    drop(stream);
    assert_eq!(hub.counts.status().streams, 0);
}

#[tokio::test]
async fn values_however_long_fit_into_what_clients_take() {
    let ring = Arc::new(Ring::new(16));
    let hub = hub(&ring);
    ring.push(&[Arc::new(hostile(&Line::Flow(numbered(1))))]);
    let mut stream = ask(&hub, GetFlowsRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap().unwrap();
    // More than 4 MiB is refused by clients of gRPC, unless they are told otherwise.
    let length = response.encoded_len();
    assert!(length > 64 << 10 && length < 4 << 20, "{length}");
    let read = GetFlowsResponse::decode(&*response.encode_to_vec());
    assert_eq!(read.unwrap(), response);
}

#[tokio::test]
async fn losses_and_tampering_pass_every_filter() {
    let ring = Arc::new(Ring::new(16));
    let loss = |stage: &'static str, count| {
        let loss = Loss {
            stage: stage.into(),
            reason: "full".into(),
            count,
            first: WallTime(SECOND),
            last: WallTime(2 * SECOND),
        };
        Arc::new(Line::Loss(LossRecord::new("node-1".into(), Some(1), loss)))
    };
    let tampering = Tampering {
        how: "detached".into(),
        what: "interface veth1".to_owned(),
        count: 1,
        at: WallTime(3 * SECOND),
        restored: true,
    };
    let tampering = TamperRecord::new("node-1".into(), 2, tampering);
    ring.push(&[
        loss("ring-buffer", 7),
        loss("tracker", 8),
        Arc::new(Line::Tampering(tampering)),
    ]);
    ring.push(&flows(5..=5));
    let hub = hub(&ring);
    let none = GetFlowsRequest {
        blacklist: vec![FlowFilter::default()],
        ..GetFlowsRequest::default()
    };
    let stream = ask(&hub, none).await.unwrap();
    let mut told: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(told.iter().map(number).collect::<Vec<_>>(), [2, 2, 3]);
    let Some(ResponseTypes::NodeStatus(status)) = told.pop().unwrap().response_types else {
        panic!("the last is what was tampered with")
    };
    assert_eq!(
        status.message,
        "tampering: interface veth1 detached; it has been put right"
    );
    let sources: Vec<_> = told.into_iter().filter_map(lost).collect();
    let expected = [
        (LostEventSource::PerfEventRingBuffer, 7),
        (LostEventSource::ObserverEventsQueue, 8),
    ];
    assert_eq!(sources, expected);
}

#[tokio::test]
async fn filters_see_what_the_mask_hides() {
    let ring = Arc::new(Ring::new(16));
    ring.push(&flows(1..=4));
    let masked = GetFlowsRequest {
        whitelist: dropped(),
        field_mask: Some(FieldMask {
            paths: vec!["source.pod_name".to_owned(), "l7".to_owned()],
        }),
        ..GetFlowsRequest::default()
    };
    let stream = ask(&hub(&ring), masked).await.unwrap();
    let told: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(told.iter().map(number).collect::<Vec<_>>(), [2, 4]);
    for response in told {
        let Some(ResponseTypes::Flow(flow)) = response.response_types else {
            panic!("a flow")
        };
        assert_eq!(flow.source.unwrap().pod_name, "gateway");
        assert_eq!((flow.verdict, flow.time), (0, None));
    }
}

#[tokio::test]
async fn streams_are_counted_and_given_back() {
    let ring = Arc::new(Ring::new(16));
    let hub = hub(&ring);
    let follow = GetFlowsRequest {
        follow: true,
        ..GetFlowsRequest::default()
    };
    let (one_way, other_way) = (Places::default(), Places::default());
    let ask = |way: &Places| {
        let mut request = Request::new(follow.clone());
        request.extensions_mut().insert(way.clone());
        let service = Flows(Arc::clone(&hub));
        async move { service.get_flows(request).await }
    };
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(ask(&one_way).await.unwrap());
    }
    let Err(refused) = ask(&one_way).await else {
        panic!("one too many")
    };
    assert!(ask(&other_way).await.is_ok(), "each way in has its own");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(hub.counts.status().refused, 1);
    open.pop();
    assert!(ask(&one_way).await.is_ok());
}

#[tokio::test]
async fn numbers_of_flows_and_namespaces_are_told() {
    let ring = Arc::new(Ring::new(16));
    let hub = hub(&ring);
    let watching = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move { hub.namespaces.watch(hub.ring.follow_from(0)).await })
    };
    ring.push(&flows(1..=20));
    ring.push(&[Arc::new(Line::Flow(record(|record| {
        record.seq = 21;
        record.dst.workload = None;
        record.dst.service = Some("web/front".into());
    })))]);
    let service = Flows(Arc::clone(&hub));
    let status = service
        .server_status(Request::new(ServerStatusRequest::default()))
        .await;
    let status = status.unwrap().into_inner();
    assert_eq!(
        (status.num_flows, status.max_flows, status.seen_flows),
        (16, 16, 21)
    );
    assert_eq!(status.num_connected_nodes, None);
    assert_eq!(status.version, format!("ringfence v{VERSION}"));
    assert!(status.uptime_ns > 0);
    // They are of 1970.
    assert!(status.flows_rate.abs() < f64::EPSILON);
    let namespaces = async || {
        let asked = service.get_namespaces(Request::new(GetNamespacesRequest::default()));
        let told = asked.await.unwrap().into_inner().namespaces;
        let told = told
            .into_iter()
            .map(|it| format!("{}/{}", it.cluster, it.namespace));
        told.collect::<Vec<_>>()
    };
    tokio::time::timeout(Duration::from_secs(30), async {
        while namespaces().await.len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(
        namespaces().await,
        ["east.1/edge", "east.1/shop", "east.1/web"]
    );
    watching.abort();
}

#[test]
fn peers_are_told_an_address_that_they_reach() {
    let home = Home::new(&"node-1.example".into(), None);
    let at = |listen: Option<&str>| Address {
        home: home.clone(),
        socket: Some(Path::new("/run/h.sock").to_owned()),
        listen: listen.map(|it| it.parse().unwrap()),
        server_name: Some(home.name_in_certificates()),
    };
    let reached = Some("192.0.2.7:4244".parse().unwrap());
    assert_eq!(at(None).for_peers(None), "unix:///run/h.sock");
    assert_eq!(at(None).tls(), None, "a socket has none");
    assert_eq!(
        at(Some("192.0.2.1:4244")).for_peers(reached),
        "192.0.2.1:4244"
    );
    assert_eq!(at(Some("[::]:4244")).for_peers(reached), "192.0.2.7:4244");
    assert_eq!(
        at(Some("0.0.0.0:4244")).for_peers(None),
        "node-1.example:4244"
    );
    let name = "node-1-example.default.hubble-grpc.cilium.io";
    assert_eq!(at(Some("0.0.0.0:4244")).tls(), Some(name));
}
