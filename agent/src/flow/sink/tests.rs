//! Sinks under pressure and on broken ground.

use std::{fs, num::NonZeroU32, path::Path, time::Duration};

use agent_common::process::Process;

use super::*;
use crate::flow::{
    clock::{BootTime, WallTime},
    enrich::{Enricher, Inventories},
    key::Key,
    names::Names,
    process::Namer,
    record::{Direction, End, EndReason, Line, Record, Verdict},
    report::{Count, FlowReport, Report},
    views::NoSets,
};

pub(super) fn line(kind: Kind) -> Arc<Line> {
    let key = Key::V4(agent_common::flow::FlowKey {
        endpoint: 1,
        protocol: 17,
        zero: 0,
        local_port: 5,
        remote_port: 53,
        local: [10, 0, 0, 1],
        remote: [10, 0, 0, 2],
    });
    let report = FlowReport {
        kind,
        id: crate::flow::key::FlowId::new(&key, 1),
        key,
        direction: agent_common::table::Direction::Egress,
        origin: 0,
        opened: BootTime(0),
        at: BootTime(0),
        start: WallTime(0),
        end: None,
        delta: [Count::default(); 2],
        tcp_flags: [0; 2],
        rtt: 0,
        end_reason: (kind == Kind::End).then_some(EndReason::Idle),
        reason: 1,
        rule: 1,
        generation: 1,
        process: Process::NOBODY,
        ifindex: 1,
    };
    let mut enricher = Enricher::new(
        ("node-1".into(), None),
        Box::new(NoSets),
        Arc::default(),
        Namer::without_paths(),
        Names::default(),
    );
    Arc::new(enricher.line(Report::Flow(report), &Inventories::new(Arc::default())))
}

fn to(path: &Path) -> SinkSettings {
    settings(Destination::Plain(Target::File(path.to_owned())))
}

pub(super) fn settings(destination: Destination) -> SinkSettings {
    SinkSettings {
        name: "sink".to_owned(),
        destination,
        choice: Choice::default(),
        privacy: Privacy::default(),
    }
}

fn lines(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| Line::parse(line).unwrap())
        .collect()
}

/// Waits for `done`, for ten seconds at most.
pub(super) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come to pass");
}

#[tokio::test]
async fn lines_are_whole_and_in_the_file_when_the_sink_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let (sink, task) = Sink::start(to(&path), "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    for _ in 0..1000 {
        sink.offer(&[line(Kind::Start)]);
    }
    drop(sink);
    task.await.unwrap();
    assert_eq!(lines(&path).len(), 1000);
    assert_eq!(
        (counts.get().seen, counts.get().exported, counts.get().lost),
        (1000, 1000, 0)
    );
}

#[test]
fn a_crowded_queue_sheds_updates_first_and_counts_by_kind() {
    let sink = Sink {
        queue: Arc::new(Queue::new(8)),
        shared: Arc::default(),
        choice: Arc::default(),
    };
    for _ in 0..10 {
        sink.offer(&[line(Kind::Update)]);
    }
    let lost = |kind: &str| sink.counts().get().lost_by_kind.get(kind).copied();
    for _ in 0..3 {
        sink.offer(&[line(Kind::Deny)]);
    }
    // The last quarter, and the place of an update.
    assert_eq!((lost("update"), lost("deny")), (Some(5), None));
    let mut first = Vec::new();
    assert!(sink.queue.take(&mut first, 2, Duration::ZERO));
    assert!(
        first
            .iter()
            .all(|line| line.flow().unwrap().kind == Kind::Update)
    );
    for _ in 0..5 {
        sink.offer(&[line(Kind::Deny)]);
    }
    assert_eq!((lost("update"), lost("deny")), (Some(8), None));
    sink.offer(&[line(Kind::Deny)]);
    assert_eq!(lost("deny"), Some(1), "only when nothing else is left");
    let mut rest = Vec::new();
    assert!(sink.queue.take(&mut rest, 100, Duration::ZERO));
    assert!(
        rest.iter()
            .all(|line| line.flow().unwrap().kind == Kind::Deny)
    );
    let counts = sink.counts().get();
    assert_eq!((counts.seen, counts.lost), (19, 9));
    assert_eq!(
        first.len() + rest.len(),
        10,
        "seen is what came through and what was lost"
    );
}

#[tokio::test]
async fn a_deleted_folder_costs_counted_records_and_a_loss_record_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("flows");
    let path = below.join("flows.jsonl");
    fs::create_dir(&below).unwrap();
    let (sink, task) = Sink::start(to(&path), "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    sink.offer(&[line(Kind::Start)]);
    eventually("the first line", || lines(&path).len() == 1).await;

    fs::remove_dir_all(&below).unwrap();
    sink.offer(&[line(Kind::Update)]);
    eventually("the loss", || counts.get().lost == 1).await;

    fs::create_dir(&below).unwrap();
    eventually("a line after the loss", || {
        sink.offer(&[line(Kind::End)]);
        lines(&path).len() > 1
    })
    .await;
    drop(sink);
    task.await.unwrap();

    let lines = lines(&path);
    let Some(Line::Loss(loss)) = lines.first() else {
        panic!("{lines:?}")
    };
    assert_eq!(loss.loss.reason, "write-failed");
    let counts = counts.get();
    assert_eq!(loss.loss.count, counts.lost);
    assert_eq!(counts.seen, counts.exported + counts.lost);
}

#[tokio::test]
async fn a_full_disk_costs_counted_records_and_not_the_agent() {
    let (sink, task) = Sink::start(to(Path::new("/dev/full")), "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    sink.offer(&[line(Kind::Deny)]);
    drop(sink);
    task.await.unwrap();
    assert_eq!((counts.get().seen, counts.get().lost), (1, 1));
}

#[tokio::test]
async fn a_target_that_cannot_be_opened_is_told_at_the_start() {
    let settings = to(Path::new("/nowhere/flows.jsonl"));
    assert!(Sink::start(settings, "node-1".into(), 8).is_err());
}

/// Of a flow between these, with an id of its own.
pub(super) fn between(verdict: &str, number: u64, addition: &str) -> Arc<Line> {
    let text = format!(
        r#"{{"schema_version":1,"seq":{number},"node":"n","agent_version":"0.1.0","kind":"start","flow_id":"{number:016x}",
        "start":"2023-11-14T22:13:20.000000000Z","src":{{"ip":"10.0.0.2","port":1,"workload":{{"namespace":"edge",
        "name":"gateway","kind":"Pod","labels":{{"app":"gateway","tier":"front"}}}}}},"dst":{{"ip":"192.0.2.1","port":2}},
        "protocol":{{"number":6,"name":"tcp"}},"direction":"egress","initiator_known":true,
        "forward":{{"packets":1,"bytes":60}},"reverse":{{"packets":0,"bytes":0}},"verdict":"{verdict}",
        "default_deny":false{addition}}}"#
    );
    Arc::new(Line::parse(&text).unwrap())
}

#[test]
fn a_filter_has_something_that_fits_in_every_list() {
    let takes = |change: &dyn Fn(&mut choice::Filter)| {
        let mut choice = Choice::default();
        change(&mut choice.filter);
        choice.takes(&between("allow", 1, ""))
    };
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert!(takes(&|_| {}));
    assert!(takes(
        &|it| it.verdicts = vec![Verdict::Deny, Verdict::Allow]
    ));
    assert!(!takes(&|it| it.verdicts = vec![Verdict::Deny]));
    assert!(takes(&|it| it.directions = vec![Direction::Egress]));
    assert!(!takes(&|it| it.directions = vec![Direction::Ingress]));
    assert!(takes(
        &|it| it.namespaces = vec!["shop".into(), "edge".into()]
    ));
    assert!(!takes(&|it| it.namespaces = vec!["shop".into()]));
    assert!(takes(
        &|it| it.labels = [label("app", "gateway"), label("tier", "front")].into()
    ));
    assert!(!takes(
        &|it| it.labels = [label("app", "gateway"), label("tier", "back")].into()
    ));
    assert!(takes(&|it| it.cidrs = vec!["192.0.2.0/24".parse().unwrap()]));
    assert!(!takes(&|it| it.cidrs = vec!["fd00::/8".parse().unwrap()]));
    // Each of the lists has to.
    assert!(!takes(&|it| {
        it.namespaces = vec!["edge".into()];
        it.cidrs = vec!["198.51.100.0/24".parse().unwrap()];
    }));
}

#[tokio::test]
async fn of_permitted_flows_alone_one_in_so_many_is_written_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let mut settings = to(&path);
    settings.choice.sample = NonZeroU32::new(10);
    let (sink, task) = Sink::start(settings, "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    let audited = r#","would_be":[{"view":"audit","verdict":"deny","reason":"default-deny"}]"#;
    for number in 0..100 {
        sink.offer(&[
            between("allow", number, ""),
            between("deny", number, ""),
            between("allow", number, audited),
        ]);
    }
    drop(sink);
    task.await.unwrap();
    let mut written = [0; 2];
    for line in lines(&path) {
        let Line::Flow(record) = line else {
            panic!("{line:?}")
        };
        let is_sampled = record.sampling.is_some();
        written[usize::from(is_sampled)] += 1;
        assert!(!is_sampled || record.flow_id.0 % 10 == 0);
        assert_eq!(record.sampling.map_or(10, NonZeroU32::get), 10);
    }
    assert_eq!(written, [200, 10]);
    let counts = counts.get();
    assert_eq!(
        (counts.seen, counts.exported, counts.left_out),
        (210, 210, 90)
    );
}

#[tokio::test]
async fn half_a_line_of_an_agent_that_was_killed_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let whole = between("allow", 1, "");
    let mut text = Vec::new();
    whole.write(&mut text);
    let half = |length: usize| text[..length].to_vec();
    for torn in [Vec::new(), half(1), half(50), half(text.len() - 1)] {
        fs::write(&path, [&text[..], &torn].concat()).unwrap();
        let (sink, task) = Sink::start(to(&path), "node-1".into(), 8).unwrap();
        sink.offer(&[between("deny", 2, "")]);
        drop(sink);
        task.await.unwrap();
        assert_eq!(lines(&path).len(), 2);
    }
    // What is none of ours stays.
    for other in ["half".to_owned(), "x".repeat(3 << 20)] {
        fs::write(&path, &other).unwrap();
        let (sink, task) = Sink::start(to(&path), "node-1".into(), 8).unwrap();
        drop(sink);
        task.await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), other + "\n");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_moved_aside_is_written_to_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing fits behind such a name.
    let path = folder.path().join("f".repeat(250));
    let settings = settings(Destination::File(FileSettings {
        path: path.clone(),
        format: format::Format::Ringfence,
        rotation: Rotation {
            rotate_bytes: 1000,
            ..Rotation::default()
        },
    }));
    let (sink, task) = Sink::start(settings, "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    for number in 1..20 {
        sink.offer(&[between("deny", number, "")]);
        eventually("a line", || counts.get().exported == number).await;
    }
    drop(sink);
    task.await.unwrap();
    assert_eq!((lines(&path).len(), counts.get().lost), (19, 0));
}

/// What has become of a record between two named ends.
fn shaped(privacy: Privacy) -> Record {
    let line = between(
        "allow",
        7,
        r#","policy":{"kind":"NetworkPolicy","namespace":"edge","name":"gateway-of","rule":"egress[0]","rule_id":1,"owner":"team"},"policy_revision":3,
        "ifindex":4,"endpoint":"edge/gateway","process":{"pid":1,"comm":"curl","exe":"/b","uid":0,"cgroup_id":2,"cgroup":"/a","container_id":"c"},"community_id":"1:x""#,
    );
    let shape = shape::Shape::new(Choice::default(), privacy).unwrap();
    match shape.of(&line).into_owned() {
        Line::Flow(record) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_sink_is_not_to_be_told_is_in_none_of_its_fields() {
    let record = shaped(Privacy {
        drop: [
            privacy::Dropped::Ip,
            privacy::Dropped::Port,
            privacy::Dropped::Workload,
            privacy::Dropped::Process,
        ]
        .into(),
        ..Privacy::default()
    });
    assert_eq!((record.src, record.dst), (End::default(), End::default()));
    assert_eq!((record.endpoint, record.process), (None, None));
    assert_eq!((record.policy, record.ifindex), (None, None));
    assert_eq!(record.community_id, None);
    assert_ne!(record.flow_id.0, 7, "it is made of the addresses");
}

/// Of `record`, with a node's address and a Service at its far end.
fn with_node(privacy: Privacy) -> End {
    let Line::Flow(mut record) = Line::clone(&between("allow", 7, "")) else {
        panic!("a flow");
    };
    let end = r#"{"ip":"192.0.2.1","port":2,"service":"shop/web",
        "workload":{"name":"ip-192-0-2-1","kind":"Node","labels":{"kubernetes.io/hostname":"ip-192-0-2-1"}}}"#;
    record.dst = serde_json::from_str(end).unwrap();
    record.endpoint = Some("node/ip-192-0-2-1".into());
    let shape = shape::Shape::new(Choice::default(), privacy).unwrap();
    match shape.of(&Arc::new(Line::Flow(record))).into_owned() {
        Line::Flow(record) => {
            let endpoint = record.endpoint.as_deref();
            assert_ne!(endpoint, Some("node/ip-192-0-2-1"));
            record.dst
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_s_name_and_a_service_s_lead_to_addresses() {
    for hashed in [
        privacy::Hashed::Ip,
        privacy::Hashed::Node,
        privacy::Hashed::Workload,
    ] {
        let end = with_node(Privacy {
            hash: [hashed].into(),
            ..Privacy::default()
        });
        let text = serde_json::to_string(&end).unwrap();
        assert!(!text.contains("ip-192-0-2-1"), "{text}");
        assert_eq!(text.contains("shop/web"), hashed == privacy::Hashed::Node);
        // Namespace and name by themselves, as everywhere.
        assert!(end.service.is_some_and(|it| it.contains('/')), "{text}");
    }
    for dropped in [privacy::Dropped::Ip, privacy::Dropped::Workload] {
        let end = with_node(Privacy {
            drop: [dropped].into(),
            ..Privacy::default()
        });
        assert_eq!((end.workload, end.service), (None, None));
    }
}

#[test]
fn ports_are_not_told_by_the_flow_either() {
    let record = shaped(Privacy {
        drop: [privacy::Dropped::Port].into(),
        ..Privacy::default()
    });
    assert_eq!(record.src.port, None);
    assert_eq!(record.community_id, None);
    assert_ne!(record.flow_id.0, 7);
    assert!(record.src.ip.is_some());
}

#[test]
fn pseudonyms_are_the_same_under_one_key_and_tell_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let with_key = |key: &str| {
        let path = folder.path().join("key");
        fs::write(&path, key).unwrap();
        let hash = [
            privacy::Hashed::Ip,
            privacy::Hashed::Workload,
            privacy::Hashed::Labels,
            privacy::Hashed::Process,
            privacy::Hashed::Node,
        ];
        shaped(Privacy {
            hash: hash.into(),
            key_file: Some(path),
            ..Privacy::default()
        })
    };
    let record = with_key("0123456789abcdef");
    assert_eq!(record, with_key("0123456789abcdef\n"));
    let other = with_key("0123456789abcdeg");
    assert_ne!((&record.src, record.flow_id), (&other.src, other.flow_id));

    let mut text = Vec::new();
    Line::Flow(record.clone()).write(&mut text);
    let text = String::from_utf8(text).unwrap();
    for told in [
        "10.0.0.2",
        "edge",
        "\"gateway\"",
        "front",
        "gateway-of",
        "team",
        "curl",
        "\"/a\"",
        "\"/b\"",
        "\"c\"",
        "1:x",
    ] {
        assert!(!text.contains(told), "{told} in {text}");
    }
    let workload = record.src.workload.unwrap();
    let endpoint = format!("{}/{}", workload.namespace, workload.name);
    assert_eq!(record.endpoint.as_deref(), Some(&*endpoint));
    assert!(record.src.ip.unwrap().to_string().starts_with("fd04:"));
    assert!(workload.labels.contains_key("app"), "keys stay");
}

#[test]
fn a_key_that_could_be_found_by_trying_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "short").unwrap();
    let mut settings = to(&folder.path().join("flows"));
    settings.privacy.hash.insert(privacy::Hashed::Ip);
    settings.privacy.key_file = Some(path);
    let shared = Arc::default();
    let refused = Writer::open(settings, "node-1".into(), shared)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("fewer than 16 bytes"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_sink_that_hides_the_node_hides_it_in_its_loss_records() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("flows");
    let path = below.join("flows.jsonl");
    fs::create_dir(&below).unwrap();
    let mut settings = to(&path);
    settings.privacy.hash.insert(privacy::Hashed::Node);
    let (sink, task) = Sink::start(settings, "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    fs::remove_dir_all(&below).unwrap();
    sink.offer(&[line(Kind::Deny)]);
    eventually("the loss", || counts.get().lost == 1).await;
    fs::create_dir(&below).unwrap();
    eventually("a line after the loss", || {
        sink.offer(&[line(Kind::End)]);
        !lines(&path).is_empty()
    })
    .await;
    drop(sink);
    task.await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\"loss\"") && !text.contains("node-1"),
        "{text}"
    );
}
