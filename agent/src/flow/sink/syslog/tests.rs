//! Against servers of syslog that refuse, close and come back.

mod tls;

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener},
    thread,
};

use super::*;
use crate::flow::{
    record::{Fragment, Kind},
    sink::{
        DEFAULT_QUEUE, Destination, Sink,
        tests::{between, eventually, line, settings},
    },
};

fn to(address: SocketAddr, transport: Transport) -> SyslogSettings {
    SyslogSettings {
        to: Remote::parse(&address.to_string()).unwrap(),
        transport,
        facility: Facility::Local0,
        message: Message::Ringfence,
        tls: None,
    }
}

/// What one connection carries, as messages.
fn messages(stream: &mut impl io::Read) -> Vec<String> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let mut rest = all.as_slice();
    let mut messages = Vec::new();
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length: usize = str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
        let (message, next) = rest[space + 1..].split_at(length);
        messages.push(String::from_utf8(message.to_vec()).unwrap());
        rest = next;
    }
    assert!(rest.is_empty(), "half a message: {rest:?}");
    messages
}

#[test]
fn a_message_has_the_form_of_rfc_5424() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = to(server.local_addr().unwrap(), Transport::Udp);
    let mut syslog = Syslog::new(settings, &"node 1\u{e9}".into());
    let record = between("deny", 7, "");
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    let mut datagram = vec![0; 65_536];
    let length = server.recv(&mut datagram).unwrap();
    let text = str::from_utf8(&datagram[..length]).unwrap();
    let pid = std::process::id();
    // Facility local0, severity warning.
    let head = format!("<132>1 2023-11-14T22:13:20.000000Z node?1? ringfence {pid} start - ");
    let message = text.strip_prefix(&head).unwrap_or_else(|| panic!("{text}"));
    let mut expected = Vec::new();
    record.write(&mut expected);
    assert_eq!(message, str::from_utf8(&expected).unwrap().trim_end());
}

/// Whose source has so many labels, and so long a name.
fn of_workload(labels: usize, name: usize) -> Arc<Line> {
    let labels = (0..labels).map(|number| (format!("label-{number}"), "x".repeat(63)));
    let workload = WorkloadRef {
        namespace: "shop".to_owned(),
        name: "n".repeat(name),
        kind: "Pod".into(),
        owner: None,
        labels: Arc::new(labels.collect()),
        json: Fragment::default(),
    };
    let mut line = Line::clone(&line(Kind::Deny));
    let Line::Flow(record) = &mut line else {
        panic!("a flow");
    };
    record.src.workload = Some(Arc::new(workload));
    Arc::new(line)
}

#[test]
fn a_record_that_no_datagram_has_room_for_goes_without_labels_or_is_lost() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    for message in [
        Message::Ringfence,
        Message::Ecs,
        Message::Ocsf,
        Message::Cef,
    ] {
        let settings = SyslogSettings {
            message,
            ..to(server.local_addr().unwrap(), Transport::Udp)
        };
        let mut syslog = Syslog::new(settings, &"node-1".into());
        let lines =
            [(3, 8), (2_000, 8), (0, 70_000)].map(|(labels, name)| of_workload(labels, name));
        let lines = lines.each_ref().map(|line| Cow::Borrowed(&**line));
        let settled = syslog.write(&lines).unwrap();
        let lost = settled.lost[Kind::Deny as usize];
        assert_eq!((settled.exported, lost), (2, 1), "{message:?}");
        let mut datagram = vec![0; 65_536];
        for has_labels in [true, false] {
            let length = server.recv(&mut datagram).unwrap();
            let text = str::from_utf8(&datagram[..length]).unwrap();
            assert!(text.contains("nnnnnnnn"), "{text}");
            let Some(at) = text.find('{').filter(|_| message != Message::Cef) else {
                continue;
            };
            let json: serde_json::Value = serde_json::from_str(&text[at..]).unwrap();
            let text = json.to_string();
            assert_eq!(text.contains("label-1"), has_labels, "{message:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_costs_no_record_when_it_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let destination = Destination::Syslog(to(address, Transport::Tcp));
    let (sink, task) = Sink::start(settings(destination), "node-1".into(), DEFAULT_QUEUE).unwrap();
    let counts = sink.counts();
    for _ in 0..1000 {
        sink.offer(&[line(Kind::Start)]);
    }
    // It has met nobody by then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listener = TcpListener::bind(address).unwrap();
    let server = thread::spawn(move || messages(&mut listener.accept().unwrap().0));
    eventually("all records", || counts.get().exported == 1000).await;
    drop(sink);
    task.await.unwrap();
    assert_eq!(server.join().unwrap().len(), 1000);
    assert_eq!((counts.get().seen, counts.get().lost), (1000, 0));
}

#[test]
fn a_connection_that_the_server_has_closed_is_not_written_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = to(listener.local_addr().unwrap(), Transport::Tcp);
    let mut syslog = Syslog::new(settings, &"node-1".into());
    let record = line(Kind::Start);
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    let (mut first, _) = listener.accept().unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    first.shutdown(std::net::Shutdown::Both).unwrap();
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    let (mut second, _) = listener.accept().unwrap();
    drop(syslog);
    assert_eq!(messages(&mut second).len(), 1);
}

#[tokio::test]
async fn an_agent_that_ends_does_not_wait_for_ever_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let destination = Destination::Syslog(to(address, Transport::Tcp));
    let (sink, task) = Sink::start(settings(destination), "node-1".into(), DEFAULT_QUEUE).unwrap();
    let counts = sink.counts();
    for _ in 0..1000 {
        sink.offer(&[line(Kind::Deny)]);
    }
    drop(sink);
    task.await.unwrap();
    let counts = counts.get();
    assert_eq!((counts.seen, counts.exported, counts.lost), (1000, 0, 1000));
}
