//! The sink against collectors of all kinds.

mod server;
mod tls;

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use tokio::runtime::Runtime;

use self::server::{Collector, Reaction, called, plain};
use super::{message::*, *};
use crate::flow::sink::{Destination, Sink, SinkSettings, choice::Choice, privacy::Privacy};

const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

/// One flow, one loss, one act of tampering, as the page of records shows them.
fn lines() -> Vec<Line> {
    let page = include_str!("../../../../docs/flow-record.md");
    let blocks = page.split("```json\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    blocks.map(|block| Line::parse(block).unwrap()).collect()
}

fn flow() -> Line {
    lines().remove(0)
}

fn settings(address: SocketAddr, protocol: Protocol) -> OtlpSettings {
    OtlpSettings {
        endpoint: Endpoint::parse(&format!("http://{address}"), protocol).unwrap(),
        protocol,
        headers: Headers::default(),
        headers_file: None,
        tls: Tls::default(),
        compression: Compression::None,
        timeout_seconds: 30,
        metrics: false,
    }
}

/// A sink, and the collector that it hands records to.
struct Pair {
    collector: Collector,
    otlp: Otlp,
    _runtime: Runtime,
}

impl Pair {
    fn new(
        protocol: Protocol,
        reactions: impl IntoIterator<Item = Reaction>,
        change: impl FnOnce(&mut OtlpSettings),
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let collector = Collector::that(reactions);
        let address = runtime.block_on(collector.listen(protocol));
        let mut settings = settings(address, protocol);
        change(&mut settings);
        let entered = runtime.enter();
        let otlp = Otlp::open(settings).unwrap();
        drop(entered);
        Self {
            collector,
            otlp,
            _runtime: runtime,
        }
    }

    fn write(&mut self, lines: &[Line]) -> Result<Settled, Failure> {
        let lines: Vec<_> = lines.iter().map(Cow::Borrowed).collect();
        self.otlp.write(&lines)
    }
}

fn exported(exported: u64) -> Settled {
    Settled {
        exported,
        ..Settled::default()
    }
}

fn is_away(result: &Result<Settled, Failure>) -> bool {
    matches!(result, Err(Failure::Away(_)))
}

fn is_refused(result: &Result<Settled, Failure>) -> bool {
    matches!(result, Err(Failure::Refused(_)))
}

fn why(result: Result<Settled, Failure>) -> String {
    match result.unwrap_err() {
        Failure::Away(error) | Failure::Refused(error) | Failure::Broken(error) => {
            format!("{error:#}")
        }
    }
}

/// The records of a request that is not packed.
fn records(request: &[u8]) -> Vec<LogRecord> {
    let request = ExportLogsRequest::decode(request).unwrap();
    let scopes = request
        .resource_logs
        .into_iter()
        .flat_map(|it| it.scope_logs);
    scopes.flat_map(|it| it.log_records).collect()
}

fn by_name(attributes: &[KeyValue]) -> BTreeMap<&str, &Value> {
    attributes
        .iter()
        .map(|it| (&*it.key, it.value.as_ref().unwrap().value.as_ref().unwrap()))
        .collect()
}

fn partial(rejected: i64, message: &str) -> Vec<u8> {
    let partial = PartialSuccess {
        rejected_log_records: rejected,
        error_message: message.to_owned(),
    };
    let response = ExportLogsResponse {
        partial_success: Some(partial),
    };
    response.encode_to_vec()
}

/// Says the same over either protocol.
fn success(protocol: Protocol, message: &[u8]) -> Reaction {
    Reaction::Answer(match protocol {
        Protocol::Http => plain(200, message),
        Protocol::Grpc => called(0, "", message, None),
    })
}

fn failure(protocol: Protocol, status: u16, code: u32) -> Reaction {
    Reaction::Answer(match protocol {
        Protocol::Http => plain(status, &[]),
        Protocol::Grpc => called(code, "why", &[], None),
    })
}

#[test]
fn lines_are_log_records() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [], |_| {});
        assert_eq!(pair.write(&lines()).unwrap(), exported(1));
        let (head, body) = pair.collector.seen().remove(0);
        let body = match protocol {
            Protocol::Http => {
                assert_eq!(head.uri.path(), "/v1/logs");
                assert_eq!(head.headers["content-type"], "application/x-protobuf");
                body
            }
            Protocol::Grpc => {
                let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
                assert_eq!(head.uri.path(), path);
                assert_eq!(head.headers["te"], "trailers");
                assert_eq!(head.headers["grpc-timeout"], "30S");
                assert_eq!(body[0], 0, "not packed");
                body[5..].to_vec()
            }
        };
        let [flow, loss, tampering] = <[_; 3]>::try_from(records(&body)).unwrap();
        let named = |it: &LogRecord| (it.event_name.clone(), it.severity_text.clone());
        assert_eq!(named(&flow), ("network.flow".into(), "INFO".into()));
        assert_eq!(named(&loss), ("ringfence.loss".into(), "WARN".into()));
        assert_eq!(
            named(&tampering),
            ("ringfence.tampering".into(), "ERROR".into())
        );
        let attributes = by_name(&flow.attributes);
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(attributes["source.address"], &text("10.77.0.2"));
        assert_eq!(attributes["destination.port"], &Value::Int(8080));
        assert_eq!(attributes["ringfence.default_deny"], &Value::Bool(false));
        assert_eq!(attributes["ringfence.policy.name"], &text("api-service"));
        assert_eq!(
            attributes["ringfence.destination.label.app"],
            &text("api-service")
        );
        assert_eq!(
            flow.body.unwrap().value.unwrap(),
            text("allow TCP 10.77.0.2:55284 shop/gateway > 10.77.0.3:8080 shop/api-service (rule)")
        );
        assert_eq!(flow.time_unix_nano, 1_795_400_457_231_402_993);
        assert!(flow.observed_time_unix_nano > 1_700_000_000_000_000_000);
        assert_eq!(flow.dropped_attributes_count, 0);
    }
}

/// Names of all attributes that these lines have.
fn names(lines: &[Line]) -> Vec<String> {
    let lines: Vec<_> = lines.iter().map(Cow::Borrowed).collect();
    let request = encode::request(&lines, WallTime(1));
    let mut names = Vec::new();
    for logs in &request.resource_logs {
        let resource = logs.resource.iter().flat_map(|it| &it.attributes);
        let records = logs.scope_logs.iter().flat_map(|it| &it.log_records);
        let all = resource.chain(records.flat_map(|it| &it.attributes));
        names.extend(all.map(|it| it.key.clone()));
    }
    names
}

#[test]
fn the_page_describes_every_attribute() {
    let page = include_str!("../../../../docs/otlp.md");
    let mut all = lines();
    let rest = r#""kind":"deny","drop_reason":"default-deny","icmp":{"type":8,"code":0},"sampling":10,"would_be":[
            {"view":"audit","verdict":"deny","reason":"default-deny"},
            {"view":"staged","verdict":"allow","reason":"rule","policy":{"kind":"RingfencePolicy","namespace":"a","name":"b",
             "rule":"egress[1]","rule_id":4,"tier":"Admin","rule_name":"c"}}],
            "policy":{"kind":"RingfencePolicy","name":"b","rule":"egress[1]","rule_id":4,"tier":"Admin","rule_name":"c",
             "reason":"d","approved_by":"e","owner":"f"},"policy_revision":9,
            "src":{"ip":"fd00::1","workload":{"namespace":"n","name":"p","kind":"Pod","labels":{"app":"x"}}},
            "dst":{"ip":"fd00::2","workload":{"name":"m","kind":"Node","labels":{"zone":"y"}}}"#;
    let text = format!(
        r#"{{"schema_version":1,"seq":1,"node":"n","agent_version":"0.1.0","flow_id":"0000000000000001",
        "start":"2023-11-14T22:13:20.000000000Z","protocol":{{"number":58,"name":"icmpv6"}},
        "direction":"egress","initiator_known":true,"forward":{{"packets":1,"bytes":60}},
        "reverse":{{"packets":0,"bytes":0}},"verdict":"deny","default_deny":true,{rest}}}"#
    );
    all.push(Line::parse(&text).unwrap());
    let names = names(&all);
    assert!(names.len() > 100);
    for name in names {
        // What is the same for both is written once.
        let name = name
            .replace("reverse.", "forward.")
            .replace("would_be.staged", "would_be.audit");
        let last = ["label.app", "label.role", "label.zone"];
        let name = last
            .iter()
            .fold(name, |name, label| name.replace(label, "label.LABEL"));
        let name = name.replace("destination.", "source.");
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn numbers_that_no_signed_one_holds_are_as_much_as_one_holds() {
    let mut line = flow();
    if let Line::Flow(record) = &mut line {
        record.forward.bytes = u64::MAX;
    }
    let request = encode::request(&[Cow::Borrowed(&line)], WallTime(-1));
    let record = &request.resource_logs[0].scope_logs[0].log_records[0];
    let attributes = by_name(&record.attributes);
    assert_eq!(attributes["ringfence.forward.bytes"], &Value::Int(i64::MAX));
    assert_eq!(record.observed_time_unix_nano, 0);
}

#[test]
fn what_would_be_denied_is_a_warning() {
    let mut line = flow();
    let severity = |line: &Line| {
        let request = encode::request(&[Cow::Borrowed(line)], WallTime(1));
        request.resource_logs[0].scope_logs[0].log_records[0]
            .severity_text
            .clone()
    };
    let Line::Flow(record) = &mut line else {
        unreachable!()
    };
    let mut opinion = crate::flow::record::WouldBe {
        view: crate::flow::views::View::Staged,
        verdict: crate::flow::record::Verdict::Allow,
        policy: None,
        reason: "rule".into(),
    };
    record.would_be.push(opinion.clone());
    assert_eq!(severity(&line), "INFO");
    opinion.verdict = crate::flow::record::Verdict::Deny;
    if let Line::Flow(record) = &mut line {
        record.would_be = vec![opinion];
    }
    assert_eq!(severity(&line), "WARN");
}

#[test]
fn nobody_makes_a_request_too_large_by_labels() {
    let mut line = flow();
    let Line::Flow(record) = &mut line else {
        unreachable!()
    };
    let mut workload = record.src.workload.as_deref().unwrap().clone();
    let labels = (0..20_000).map(|number| (format!("label-{number}"), "x".repeat(63)));
    workload.labels = Arc::new(labels.collect());
    record.src.workload = Some(Arc::new(workload.clone()));
    record.dst.workload = Some(Arc::new(workload));
    let lines: Vec<_> = (0..256).map(|_| Cow::Borrowed(&line)).collect();
    let request = encode::request(&lines, WallTime(1));
    let record = &request.resource_logs[0].scope_logs[0].log_records[0];
    let count = usize::try_from(record.dropped_attributes_count).unwrap();
    assert!(count > 39_000 && count < 40_000, "{count}");
    let attributes = by_name(&record.attributes);
    assert!(attributes.contains_key("ringfence.policy.name"));
    assert!(attributes.contains_key("ringfence.destination.name"));
    let length = request.encoded_len();
    assert!(length < 4 << 20, "{length}");
}

#[test]
fn a_node_that_is_hidden_in_some_lines_is_a_resource_of_its_own() {
    let mut all = lines();
    all.push(flow());
    if let Line::Flow(record) = &mut all[3] {
        record.node = "h-1".into();
    }
    let all: Vec<_> = all.iter().map(Cow::Borrowed).collect();
    let request = encode::request(&all, WallTime(1));
    let nodes: Vec<_> = request
        .resource_logs
        .iter()
        .map(|it| {
            let resource = it.resource.as_ref().unwrap();
            by_name(&resource.attributes)["host.name"].clone()
        })
        .collect();
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(nodes, [text("demo-node"), text("h-1")]);
}

#[test]
fn packed_requests_are_unpacked_to_the_same() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [], |it| it.compression = Compression::Gzip);
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        let (head, body) = pair.collector.seen().remove(0);
        let packed = match protocol {
            Protocol::Http => {
                assert_eq!(head.headers["content-encoding"], "gzip");
                body
            }
            Protocol::Grpc => {
                assert_eq!(head.headers["grpc-encoding"], "gzip");
                assert_eq!(body[0], 1);
                body[5..].to_vec()
            }
        };
        let mut message = Vec::new();
        let mut unpacked = flate2::read::GzDecoder::new(&*packed);
        unpacked.read_to_end(&mut message).unwrap();
        assert_eq!(records(&message).len(), 1);
    }
}

#[test]
fn headers_go_along() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [], |it| {
            it.headers.insert("Authorization", "Bearer s3cret").unwrap();
        });
        pair.write(&[flow()]).unwrap();
        let (head, _) = pair.collector.seen().remove(0);
        assert_eq!(head.headers["authorization"], "Bearer s3cret");
    }
}

#[test]
fn one_connection_is_kept_and_a_new_one_made_after_a_while() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [], |_| {});
        for _ in 0..5 {
            assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
            pair.otlp.tick();
        }
        assert_eq!(pair.collector.connections(), 1);
        pair.otlp.client.wire.grow_old();
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert_eq!(pair.collector.connections(), 2);
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_costs_nothing() {
    for protocol in BOTH {
        let taken = || success(protocol, &[]);
        let mut pair = Pair::new(protocol, [taken(), Reaction::Cut, taken()], |_| {});
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert_eq!(pair.collector.connections(), 2);
    }
}

#[test]
fn who_is_busy_is_asked_again() {
    let all = [
        (Protocol::Http, [429, 502, 503, 504, 503, 503], [0; 6]),
        (Protocol::Grpc, [200; 6], [1, 4, 10, 11, 14, 15]),
    ];
    for (protocol, statuses, codes) in all {
        for (status, code) in statuses.into_iter().zip(codes) {
            let mut pair = Pair::new(protocol, [failure(protocol, status, code)], |_| {});
            let busy = pair.write(&[flow()]);
            assert!(is_away(&busy), "{status} {code}: {busy:?}");
            assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        }
    }
}

#[test]
fn what_is_refused_is_not_sent_again() {
    let all = [
        (
            Protocol::Http,
            [400, 401, 403, 404, 413, 500, 501, 301, 307],
            [0; 9],
        ),
        (Protocol::Grpc, [200; 9], [2, 3, 5, 6, 7, 8, 9, 12, 16]),
    ];
    for (protocol, statuses, codes) in all {
        for (status, code) in statuses.into_iter().zip(codes) {
            let mut pair = Pair::new(protocol, [failure(protocol, status, code)], |_| {});
            let refused = pair.write(&[flow()]);
            assert!(is_refused(&refused), "{status} {code}: {refused:?}");
        }
    }
    // What stands before a server of gRPC may answer for it.
    for (status, is_busy) in [(503, true), (404, false), (401, false)] {
        let answer = Reaction::Answer(plain(status, &[]));
        let mut pair = Pair::new(Protocol::Grpc, [answer], |_| {});
        assert_eq!(is_away(&pair.write(&[flow()])), is_busy, "{status}");
    }
}

#[test]
fn why_it_is_refused_is_said_and_cannot_forge_a_log() {
    let status = Status {
        code: 3,
        message: format!("bad\n{}", "x".repeat(5000)),
        details: Vec::new(),
    };
    let answer = Reaction::Answer(plain(400, &status.encode_to_vec()));
    let mut pair = Pair::new(Protocol::Http, [answer], |_| {});
    let told = why(pair.write(&[flow()]));
    assert!(told.contains("400") && told.contains("bad\\nxx"), "{told}");
    assert!(told.len() < 400, "{told}");
}

#[test]
fn a_rest_is_granted_and_not_for_ever() {
    let mut answer = plain(503, &[]);
    let headers = answer.headers_mut();
    headers.insert("retry-after", "1000000".parse().unwrap());
    let mut pair = Pair::new(Protocol::Http, [Reaction::Answer(answer)], |_| {});
    let first = why(pair.write(&[flow()]));
    assert!(first.contains("503"), "{first}");
    // It is not asked again, and that is no news.
    assert_eq!(why(pair.write(&[flow()])), first);
    assert_eq!(pair.collector.seen().len(), 1);
    let until = pair.otlp.not_before.unwrap();
    assert!(until <= Instant::now() + REST);
    pair.otlp.not_before = Some(Instant::now());
    assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
}

#[test]
fn over_grpc_who_is_exhausted_says_whether_to_come_again() {
    let info = RetryInfo {
        retry_delay: Some(Span {
            seconds: 7,
            nanos: 1,
        }),
    };
    let status = Status {
        code: 8,
        message: String::new(),
        details: vec![Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
    let answer = Reaction::Answer(called(8, "slow down", &[], Some(&details)));
    let mut pair = Pair::new(Protocol::Grpc, [answer], |_| {});
    assert!(is_away(&pair.write(&[flow()])));
    assert!(pair.otlp.not_before.is_some());
    for broken in ["", "%%%", "AAAA"] {
        let answer = Reaction::Answer(called(8, "", &[], Some(broken)));
        let mut pair = Pair::new(Protocol::Grpc, [answer], |_| {});
        assert!(is_refused(&pair.write(&[flow()])), "{broken}");
    }
}

#[test]
fn what_is_rejected_of_a_batch_is_lost() {
    for protocol in BOTH {
        let answer = success(protocol, &partial(2, "too old"));
        let mut pair = Pair::new(protocol, [answer], |_| {});
        let five: Vec<_> = (0..5).map(|_| flow()).collect();
        let settled = pair.write(&five).unwrap();
        assert_eq!((settled.exported, settled.lost), (3, [0, 0, 2, 0]));
        // Numbers that cannot be are not believed.
        for (rejected, lost) in [(-1, 0), (0, 0), (4, 4)] {
            let answer = success(protocol, &partial(rejected, ""));
            let mut pair = Pair::new(protocol, [answer], |_| {});
            let settled = pair.write(&five).unwrap();
            assert_eq!((settled.exported, settled.lost[2]), (5 - lost, lost));
        }
        for rejected in [5, 6, i64::MAX] {
            let answer = success(protocol, &partial(rejected, ""));
            let mut pair = Pair::new(protocol, [answer], |_| {});
            assert!(is_refused(&pair.write(&five)), "{rejected}");
        }
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_no_loss() {
    for protocol in BOTH {
        let broken = success(protocol, &[0xff; 7]);
        let mut pair = Pair::new(protocol, [broken], |_| {});
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert!(pair.otlp.complained.is_some());
    }
    // Over HTTP it may be in another form, or in none.
    let mut other = plain(200, b"{}");
    let headers = other.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    for answer in [other, plain(204, b"")] {
        let mut pair = Pair::new(Protocol::Http, [Reaction::Answer(answer)], |_| {});
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert!(pair.otlp.complained.is_none());
    }
}

#[test]
fn who_answers_too_long_is_left() {
    let long = vec![b'x'; 2 << 20];
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [success(protocol, &long)], |_| {});
        let settled = pair.write(&[flow()]);
        match protocol {
            Protocol::Http => assert_eq!(settled.unwrap(), exported(1)),
            // The status comes behind it.
            Protocol::Grpc => assert!(is_refused(&settled), "{settled:?}"),
        }
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        assert_eq!(pair.collector.connections(), 2);
    }
}

#[test]
fn who_does_not_answer_is_left_and_asked_again() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [Reaction::Hang], |it| it.timeout_seconds = 1);
        let told = why(pair.write(&[flow()]));
        assert!(told.contains("no answer within 1 s"), "{told}");
        pair.otlp.client.wire.be_patient();
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
    }
}

#[test]
fn who_says_nothing_but_listens_is_left() {
    // A port that takes connections and neither reads nor writes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = Runtime::new().unwrap();
    for (protocol, scheme) in [
        (Protocol::Http, "http"),
        (Protocol::Grpc, "http"),
        (Protocol::Http, "https"),
    ] {
        let address = silent.local_addr().unwrap();
        let mut settings = settings(address, protocol);
        let endpoint = format!("{scheme}://{address}");
        settings.endpoint = Endpoint::parse(&endpoint, protocol).unwrap();
        settings.timeout_seconds = 1;
        let authority = tls::Authority::new();
        settings.tls.ca_file = Some(authority.path());
        let entered = runtime.enter();
        let mut otlp = Otlp::open(settings).unwrap();
        drop(entered);
        let line = flow();
        assert!(is_away(&otlp.write(&[Cow::Borrowed(&line)])));
    }
}

#[test]
fn who_cuts_the_connection_or_is_not_there_is_asked_again() {
    for protocol in BOTH {
        let mut pair = Pair::new(protocol, [Reaction::Cut], |_| {});
        assert!(is_away(&pair.write(&[flow()])));
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut pair = Pair::new(protocol, [], |it| {
            it.endpoint = settings(address, protocol).endpoint;
        });
        assert!(is_away(&pair.write(&[flow()])));
    }
    let mut pair = Pair::new(Protocol::Http, [], |it| {
        it.endpoint = Endpoint::parse("http://nowhere.invalid:1", Protocol::Http).unwrap();
    });
    assert!(is_away(&pair.write(&[flow()])));
}

/// Waits for `done`, for a minute at most.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come to pass");
}

#[test]
fn nothing_is_lost_while_a_collector_is_busy() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let busy = || failure(protocol, 503, 14);
        let collector = Collector::that([busy(), Reaction::Cut, busy()]);
        let address = runtime.block_on(collector.listen(protocol));
        let (sink, task) = {
            let _entered = runtime.enter();
            Sink::start(in_full(settings(address, protocol)), "node-1".into(), 64).unwrap()
        };
        let counts = sink.counts();
        for line in lines() {
            sink.offer(&[Arc::new(line)]);
        }
        eventually("a record", || counts.get().exported == 1);
        drop(sink);
        runtime.block_on(task).unwrap();
        assert_eq!((counts.get().seen, counts.get().lost), (1, 0));
        let last = collector.seen().pop().unwrap();
        assert!(!last.1.is_empty());
    }
}

#[test]
fn what_is_refused_is_counted_and_the_next_request_says_so() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let collector = Collector::that([failure(protocol, 400, 3)]);
        let address = runtime.block_on(collector.listen(protocol));
        let (sink, task) = {
            let _entered = runtime.enter();
            Sink::start(in_full(settings(address, protocol)), "node-1".into(), 64).unwrap()
        };
        let counts = sink.counts();
        sink.offer(&[Arc::new(flow())]);
        eventually("a loss", || counts.get().lost == 1);
        sink.offer(&[Arc::new(flow())]);
        eventually("a record", || counts.get().exported == 1);
        drop(sink);
        runtime.block_on(task).unwrap();
        let (_, body) = collector.seen().pop().unwrap();
        let message = if protocol == Protocol::Http {
            &body[..]
        } else {
            &body[5..]
        };
        let told = &records(message)[0];
        assert_eq!(told.event_name, "ringfence.loss");
        let attributes = by_name(&told.attributes);
        assert_eq!(attributes["ringfence.loss.count"], &Value::Int(1));
    }
}

#[test]
fn nothing_is_lost_to_a_collector_that_is_away_when_it_is_told_of_a_loss() {
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let busy = || failure(protocol, 503, 14);
        let collector = Collector::that([failure(protocol, 400, 3), busy(), busy(), busy()]);
        let address = runtime.block_on(collector.listen(protocol));
        let (sink, task) = {
            let _entered = runtime.enter();
            Sink::start(in_full(settings(address, protocol)), "node-1".into(), 64).unwrap()
        };
        let counts = sink.counts();
        sink.offer(&[Arc::new(flow())]);
        eventually("a loss", || counts.get().lost == 1);
        // By then the loss has been told, to nobody.
        eventually("an attempt to tell it", || collector.seen().len() >= 2);
        for _ in 0..10 {
            sink.offer(&[Arc::new(flow())]);
        }
        eventually("all records", || counts.get().exported == 10);
        drop(sink);
        runtime.block_on(task).unwrap();
        assert_eq!((counts.get().seen, counts.get().lost), (11, 1));
    }
}

fn in_full(otlp: OtlpSettings) -> SinkSettings {
    SinkSettings {
        name: "collector".to_owned(),
        destination: Destination::Otlp(otlp),
        choice: Choice::default(),
        privacy: Privacy::default(),
    }
}

#[test]
fn metrics_are_brought_where_metrics_go() {
    let text = "# HELP ringfence_a A.\n# TYPE ringfence_a gauge\nringfence_a 7\n# EOF\n";
    for (protocol, path) in [
        (Protocol::Http, "/v1/metrics"),
        (
            Protocol::Grpc,
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        ),
    ] {
        let runtime = Runtime::new().unwrap();
        let in_part = success(protocol, &partial(1, "no"));
        let collector = Collector::that([failure(protocol, 503, 14), in_part]);
        let address = runtime.block_on(collector.listen(protocol));
        let mut push = {
            let _entered = runtime.enter();
            Push::new(settings(address, protocol), "node-1").unwrap()
        };
        let told = push.push(text);
        assert!(matches!(told, Pushed::Later { .. }), "{told:?}");
        let told = push.push(text);
        assert!(
            matches!(&told, Pushed::Never(why) if why.starts_with("1 points")),
            "{told:?}"
        );
        let told = push.push(text);
        assert!(matches!(told, Pushed::All), "{told:?}");
        let (head, _) = collector.seen().pop().unwrap();
        assert_eq!(head.uri.path(), path);
        assert_eq!(collector.seen().len(), 3);
    }
}
