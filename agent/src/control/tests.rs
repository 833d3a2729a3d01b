//! The socket with both sides in one process.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::model::World;

use super::{
    client::{self, ClientError},
    server::{Server, StatusSource},
    socket::BindError,
    status::{EventCounts, PrivilegeStatus, ProcessStatus, RecordCounts, RejectionSums, Status},
    *,
};
use crate::flow::{
    clock::WallTime,
    names::NameStatus,
    record::{Line, Loss, LossRecord},
    ring::Ring,
};

struct Fixed;

impl StatusSource for Fixed {
    fn world(&self) -> Arc<World> {
        let mut world = World::default();
        world.apply(&Change::Namespace("shop".to_owned(), Some(Arc::default())));
        Arc::new(world)
    }

    fn status(&self) -> Status {
        Status {
            agent_version: "0.1.0".to_owned(),
            pid: 42,
            uptime_s: 7,
            node: "node-1".to_owned(),
            generation: 3,
            enforcing: true,
            last_load: None,
            kubernetes: None,
            policies: BTreeMap::new(),
            next_change: None,
            failsafe: Vec::new(),
            endpoints: Vec::new(),
            unknown_interfaces: None,
            tables: Vec::new(),
            events: EventCounts::default(),
            processes: ProcessStatus::default(),
            drops: BTreeMap::new(),
            unremembered: 0,
            rejections: RejectionSums::default(),
            would_be: BTreeMap::new(),
            tampered: BTreeMap::new(),
            names: NameStatus::default(),
            hubble: None,
            records: RecordCounts::default(),
            privileges: PrivilegeStatus::default(),
            features: Vec::new(),
        }
    }
}

fn bind(path: &Path, ring: &Arc<Ring>) -> Result<Server, BindError> {
    let status = Arc::new(Fixed);
    Server::bind(path, "node-1".into(), Arc::clone(ring), status, None)
}

fn loss(count: u64) -> Arc<Line> {
    let (first, last) = (WallTime(0), WallTime(0));
    let loss = Loss {
        stage: "tracker".into(),
        reason: "capacity".into(),
        count,
        first,
        last,
    };
    let line = Line::Loss(LossRecord::new("node-1".into(), None, loss));
    Arc::new(line)
}

/// Runs `client` on its own thread against a server on a fresh socket.
async fn with_server<T: Send + 'static>(
    ring: Arc<Ring>,
    client: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/ringfence.sock");
    let server = bind(&path, &ring).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let task = tokio::spawn(server.run());
    let client_path = path.clone();
    let answer = tokio::task::spawn_blocking(move || client(client_path))
        .await
        .unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket leaves with its server");
    answer
}

#[tokio::test]
async fn a_client_reads_the_status() {
    let status = with_server(Arc::new(Ring::new(8)), |path| client::status(&path)).await;
    assert_eq!(status.unwrap(), Fixed.status());
}

#[tokio::test]
async fn a_client_reads_the_world_that_is_enforced() {
    let served = with_server(Arc::new(Ring::new(8)), |path| client::world(&path)).await;
    let ServedWorld { node, world } = served.unwrap();
    assert_eq!(node, "node-1");
    assert_eq!(world.into_iter().collect::<World>(), *Fixed.world());
}

#[tokio::test]
async fn a_client_reads_the_last_records_and_follows() {
    let ring = Arc::new(Ring::new(2));
    for count in 1..=3 {
        ring.push(&[loss(count)]);
    }
    let writer = Arc::clone(&ring);
    let lines = with_server(ring, move |path| {
        let request = FlowsRequest {
            last: Some(5),
            follow: true,
            ..FlowsRequest::default()
        };
        let mut lines = client::flows(&path, request).unwrap();
        let mut read = vec![
            lines.next().unwrap().unwrap(),
            lines.next().unwrap().unwrap(),
        ];
        writer.push(&[loss(4)]);
        read.push(lines.next().unwrap().unwrap());
        read
    })
    .await;
    let counts: Vec<_> = lines
        .iter()
        .map(|line| match Line::parse(line).unwrap() {
            Line::Loss(loss) => loss.loss.count,
            Line::Flow(_) | Line::Tampering(_) => 0,
        })
        .collect();
    assert_eq!(counts, [2, 3, 4]);
}

/// seen = exported + counted losses.
#[tokio::test]
async fn a_follower_that_is_too_slow_is_told_how_much_it_missed() {
    const LINES: u64 = 50_000;
    let ring = Arc::new(Ring::new(1));
    let writer = Arc::clone(&ring);
    let (received, missed) = with_server(ring, move |path| {
        writer.push(&[loss(0)]);
        let request = FlowsRequest {
            follow: true,
            ..FlowsRequest::default()
        };
        let mut lines = client::flows(&path, request).unwrap();
        lines.next().unwrap().unwrap();
        for _ in 0..LINES {
            writer.push(&[loss(1)]);
        }
        let (mut received, mut missed) = (0, 0);
        while received + missed < LINES {
            match Line::parse(&lines.next().unwrap().unwrap()).unwrap() {
                Line::Loss(record) if record.loss.stage == "client" => missed += record.loss.count,
                _ => received += 1,
            }
        }
        (received, missed)
    })
    .await;
    assert!(missed > 0, "the test is too slow to prove anything");
    assert_eq!(received + missed, LINES);
}

fn ask(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // The agent may have closed before it has read all of a request that is too long.
    drop(stream.write_all(request));
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    answer
}

#[tokio::test]
async fn what_is_not_a_request_is_refused() {
    let answers = with_server(Arc::new(Ring::new(8)), |path| {
        let long = [b' '; REQUEST_LIMIT + 1];
        [
            &b"{\"command\":\"format\"}\n"[..],
            b"{\"command\":\"status\",\"x\":1}\n",
            b"\n",
            &long,
        ]
        .map(|request| ask(&path, request))
    })
    .await;
    for answer in &answers {
        assert!(answer.starts_with("{\"error\":"), "{answers:?}");
    }
    assert!(answers[3].contains("4096 bytes"));
}

#[tokio::test]
async fn a_running_agent_keeps_its_socket_and_a_dead_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringfence.sock");
    let ring = Arc::new(Ring::new(8));
    let alive = bind(&path, &ring).unwrap();
    let error = bind(&path, &ring).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    drop(alive);

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead agent leaves its socket behind");
    let error = client::status(&path).unwrap_err();
    assert!(matches!(error, ClientError::NoAgent { .. }), "{error}");
    let server = bind(&path, &ring).unwrap();
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = bind(&path, &Arc::new(Ring::new(8))).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

/// As many are connected as the kernel lets wait.
#[test]
fn an_agent_that_takes_nobody_in_is_not_waited_for_in_vain() {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = SocketAddrUnix::new(&path).unwrap();
    let socket = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listening = socket(SocketFlags::CLOEXEC);
    bind(&listening, &address).unwrap();
    listen(&listening, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        if connect(&one, &address).is_err() {
            break;
        }
        waiting.push(one);
    }
    let request = PodRequest {
        namespace: "shop".to_owned(),
        name: "a".to_owned(),
        uid: None,
        interface: None,
        addresses: BTreeSet::new(),
        wait_ms: 100,
    };
    let error = client::pod(&path, request).unwrap_err();
    let ClientError::Io { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
}
