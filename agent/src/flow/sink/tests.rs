//! Sinks under pressure and on broken ground.

use std::{fs, time::Duration};

use agent_common::process::Process;

use super::*;
use crate::flow::{
    clock::WallTime,
    enrich::{Enricher, Inventory},
    key::Key,
    process::Namer,
    record::{EndReason, Line},
    report::{Count, FlowReport, Report},
    views::NoSets,
};

fn line(kind: Kind) -> Arc<Written> {
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
        start: WallTime(0),
        end: None,
        delta: [Count::default(); 2],
        tcp_flags: [0; 2],
        end_reason: (kind == Kind::End).then_some(EndReason::Idle),
        reason: 1,
        rule: 1,
        generation: 1,
        process: Process::NOBODY,
        ifindex: 1,
    };
    let mut enricher = Enricher::new(
        "node-1".into(),
        Box::new(NoSets),
        Arc::default(),
        Namer::without_paths(),
    );
    let line = enricher.line(Report::Flow(report), &Inventory::default());
    Written::new(line, &mut Vec::new())
}

fn lines(path: &std::path::Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| Line::parse(line).unwrap())
        .collect()
}

/// Waits for `done`, for ten seconds at most.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
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
    let (sink, task) = Sink::start(Target::File(path.clone()), "node-1".into(), 1024).unwrap();
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
    };
    for _ in 0..10 {
        sink.offer(&[line(Kind::Update)]);
    }
    for _ in 0..3 {
        sink.offer(&[line(Kind::Deny)]);
    }
    let counts = sink.counts().get();
    assert_eq!(counts.lost_by_kind.get("update"), Some(&4));
    assert_eq!(
        counts.lost_by_kind.get("deny"),
        Some(&1),
        "only when nothing is left"
    );
    assert_eq!((counts.seen, counts.lost), (13, 5));
}

#[tokio::test]
async fn a_deleted_folder_costs_counted_records_and_a_loss_record_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("flows");
    let path = below.join("flows.jsonl");
    fs::create_dir(&below).unwrap();
    let (sink, task) = Sink::start(Target::File(path.clone()), "node-1".into(), 1024).unwrap();
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
    let (sink, task) =
        Sink::start(Target::File("/dev/full".into()), "node-1".into(), 1024).unwrap();
    let counts = sink.counts();
    sink.offer(&[line(Kind::Deny)]);
    drop(sink);
    task.await.unwrap();
    assert_eq!((counts.get().seen, counts.get().lost), (1, 1));
}

#[tokio::test]
async fn a_target_that_cannot_be_opened_is_told_at_the_start() {
    let target = Target::File("/nowhere/flows.jsonl".into());
    assert!(Sink::start(target, "node-1".into(), 8).is_err());
}
