//! Records say what the far end is called: what the endpoint was told by the resolver that it asked.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::scene::{OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::{eventually, eventually_some};
use serde_json::Value;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

const DNS: u16 = 53;
const HELPER: &str = env!("CARGO_BIN_EXE_lab-peer");
const RECORDED: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting thread looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// Questions, more than an endpoint's share of the shortest stretch of time there is.
const FLOOD: u64 = 20_000;

/// The server may ask its friend for names, and reach it at one port.
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}, {protocol: TCP, port: 8080}]
";

// === A resolver ===

type Zone = BTreeMap<&'static str, Vec<IpAddr>>;

/// Answers by UDP and TCP until it is dropped.
struct Resolver {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    fn start(netns: &Netns, zone: &Zone) -> Result<Self> {
        let any = (Ipv6Addr::UNSPECIFIED, DNS);
        let udp = netns.within(|| UdpSocket::bind(any))?;
        let tcp = netns.within(|| TcpListener::bind(any))?;
        udp.set_read_timeout(Some(TURN))?;
        tcp.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (for_udp, for_tcp) = (Arc::clone(&stop), Arc::clone(&stop));
        let (zone, of_tcp) = (zone.clone(), zone.clone());
        let by_udp = std::thread::spawn(move || {
            let mut bytes = [0; 1500];
            while !for_udp.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut bytes)
                    && let Some(answer) = answer(&bytes[..length], &zone)
                {
                    let _sent = udp.send_to(&answer, from).is_ok();
                }
            }
        });
        let by_tcp = std::thread::spawn(move || {
            while !for_tcp.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, _)) => drop(converse(stream, &of_tcp)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TURN),
                    Err(_) => return,
                }
            }
        });
        Ok(Self {
            stop,
            threads: vec![by_udp, by_tcp],
        })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join().is_ok();
        }
    }
}

fn converse(mut stream: TcpStream, zone: &Zone) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = framed(&mut stream)?;
    let answer = answer(&question, zone).unwrap_or_default();
    stream.write_all(&frame(&answer))
}

fn framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], message].concat()
}

fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let query = Packet::parse(question).ok()?;
    let asked = query.questions.first()?.clone();
    let name = asked.qname.to_string();
    let mut answer = Packet::new_reply(query.id());
    answer.questions.push(asked.clone());
    for address in zone.get(name.as_str())? {
        let data = match (address, &asked.qtype) {
            (IpAddr::V4(it), QTYPE::TYPE(TYPE::A)) => RData::A(A {
                address: it.to_bits(),
            }),
            (IpAddr::V6(it), QTYPE::TYPE(TYPE::AAAA)) => RData::AAAA(AAAA {
                address: it.to_bits(),
            }),
            _ => continue,
        };
        let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, 300, data);
        answer.answers.push(record);
    }
    answer.build_bytes_vec_compressed().ok()
}

// === Who asks ===

fn question(name: &str, of: IpAddr) -> Result<Vec<u8>> {
    let kind = if of.is_ipv4() { TYPE::A } else { TYPE::AAAA };
    let mut query = Packet::new_query(4711);
    let class = QCLASS::CLASS(CLASS::IN);
    let asked = Question::new(Name::new(name)?, QTYPE::TYPE(kind), class, false);
    query.questions.push(asked);
    Ok(query.build_bytes_vec()?)
}

/// Has a process of the namespace ask for the address that `of` has under this name, until it is told something.
fn asks(
    netns: &Netns,
    protocol: Protocol,
    resolver: SocketAddr,
    name: &str,
    of: IpAddr,
) -> Result<()> {
    let question = question(name, of)?;
    let answer = netns.within(|| -> std::io::Result<Vec<u8>> {
        match protocol {
            Protocol::Udp => {
                let any = if resolver.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(&question, resolver)?;
                let mut answer = vec![0; 1500];
                let (length, _) = socket.recv_from(&mut answer)?;
                answer.truncate(length);
                Ok(answer)
            }
            Protocol::Tcp => {
                let mut stream = TcpStream::connect(resolver)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(&frame(&question))?;
                framed(&mut stream)
            }
        }
    })?;
    let answer = Packet::parse(&answer)?;
    ensure!(!answer.answers.is_empty(), "{name} is not told");
    Ok(())
}

// === What is recorded ===

/// The first record of that kind of what `endpoint` began to an address.
fn went_out(agent: &Agent, endpoint: &str, kind: &str, to: SocketAddr) -> Result<Value> {
    let is_it = |record: &Value| {
        record["kind"] == kind
            && record["endpoint"] == endpoint
            && record["dst"]["ip"] == to.ip().to_string()
            && record["dst"]["port"] == to.port()
    };
    let found = eventually_some(RECORDED, || agent.flows(1000).ok()?.into_iter().find(is_it));
    found.with_context(|| format!("no such record\n{}", agent.log()))
}

fn is_called(record: &Value, name: &str) -> Result<()> {
    ensure!(record["dst"]["dns_name"] == name, "not {name}: {record}");
    ensure!(record["src"].get("dns_name").is_none(), "{record}");
    Ok(())
}

fn zone(friend: &Peer, stranger: &Peer) -> Zone {
    Zone::from([
        ("api.shop.example", friend.addresses().to_vec()),
        ("evil.example", stranger.addresses().to_vec()),
    ])
}

#[test]
fn who_was_asked_for_by_name_has_it_in_all_records_permitted_or_denied() -> Result<()> {
    let scene = Scene::with(POLICY)?;
    let agent = scene.enforced()?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    let _resolver = Resolver::start(friend, &zone(friend, stranger))?;
    for (protocol, resolver) in [
        (Protocol::Udp, friend.v4(DNS)),
        (Protocol::Tcp, friend.v6(DNS)),
    ] {
        for (to, forbidden) in friend.at(PORT).into_iter().zip(stranger.at(OTHER_PORT)) {
            // Of one family by UDP, of the other by TCP.
            if to.is_ipv4() != (protocol == Protocol::Udp) {
                continue;
            }
            asks(server, protocol, resolver, "api.shop.example", to.ip())?;
            asks(server, protocol, resolver, "evil.example", forbidden.ip())?;
            server.reaches(Protocol::Tcp, to)?;
            for kind in ["start", "end"] {
                let record = went_out(&agent, "shop/server", kind, to)?;
                is_called(&record, "api.shop.example")?;
            }
            server.is_dropped_to(Protocol::Tcp, forbidden)?;
            let record = went_out(&agent, "shop/server", "deny", forbidden)?;
            is_called(&record, "evil.example")?;
        }
    }
    // The resolver itself was asked for by nobody, under this name or another; and its record has its own.
    let status = agent.status()?;
    let names = &status["names"];
    ensure!(names["addresses"] == 4 && names["answers"] == 4, "{names}");
    ensure!(names["lost"] == 0 && names["unasked"] == 0, "{names}");
    Ok(())
}

#[test]
fn what_is_said_without_a_question_names_nobody() -> Result<()> {
    let scene = Scene::with(POLICY)?;
    let agent = scene.enforced()?;
    let Scene { server, friend, .. } = &scene;
    // The resolver knows of a question, and answers another; and with another number.
    let resolver = friend.within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DNS)))?;
    resolver.set_read_timeout(Some(PATIENCE))?;
    let socket = server.within(|| UdpSocket::bind("0.0.0.0:0"))?;
    let to = friend.v4(PORT);
    let zone = Zone::from([
        ("other.example", vec![to.ip()]),
        ("right.example", vec![to.ip()]),
    ]);
    socket.send_to(&question("right.example", to.ip())?, friend.v4(DNS))?;
    let mut asked = [0; 1500];
    let (length, from) = resolver.recv_from(&mut asked)?;
    let others = answer(&question("other.example", to.ip())?, &zone).context("no answer")?;
    let mut numbered = answer(&asked[..length], &zone).context("no answer")?;
    numbered[1] ^= 1;
    for message in [others, numbered, vec![0; 100], vec![0xff; 12]] {
        resolver.send_to(&message, from)?;
    }
    server.reaches(Protocol::Tcp, to)?;
    let record = went_out(&agent, "shop/server", "start", to)?;
    ensure!(record["dst"].get("dns_name").is_none(), "{record}");
    let counted = eventually(PATIENCE, || {
        agent.status().is_ok_and(|status| {
            let names = &status["names"];
            names["unasked"] == 2 && names["malformed"] == 1 && names["addresses"] == 0
        })
    });
    ensure!(counted, "{}", agent.status()?["names"]);
    Ok(())
}

#[test]
fn a_group_is_told_as_an_interface_is() -> Result<()> {
    let lab = Lab::bridged()?;
    let friend = lab.peer("friend", 2)?;
    let _service = friend.serve_tcp(PORT)?;
    let to = friend.v4(PORT);
    let zone = Zone::from([("api.shop.example", vec![to.ip()])]);
    let _resolver = Resolver::start(&friend, &zone)?;
    let group = Cgroup::create(&lab, "service", HELPER)?;
    let inventory = manifest::cgroup(group.name(), "host", "service", &[("app", "service")]);
    let inventory = lab.write("policies/inventory.yaml", &inventory)?;
    let agent = Agent::enforcing(&lab, &[&inventory])?;
    // A socket of the group's, of which the question goes out.
    let puppet = Puppet::inside(&group, lab.host())?;
    puppet.makes(Protocol::Udp, friend.v4(DNS))?;
    let socket = UdpSocket::from(OwnedFd::from(puppet.gives(Protocol::Udp)?));
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&question("api.shop.example", to.ip())?, friend.v4(DNS))?;
    socket.recv_from(&mut [0; 1500])?;
    ensure!(group.probe(lab.host(), Protocol::Tcp, to)? == Outcome::Allowed);
    let record = went_out(&agent, "host/service", "start", to)?;
    is_called(&record, "api.shop.example")
}

#[test]
fn settings_say_who_is_believed_and_whether_anybody_is() -> Result<()> {
    for (settings, name) in [
        ("dns: {resolvers: [10.77.0.3]}", Some("api.shop.example")),
        ("dns: {resolvers: [10.77.0.9]}", None),
        ("dns: {names: false}", None),
    ] {
        let scene = Scene::with(POLICY)?;
        let path = scene.lab.write("settings.yaml", settings)?;
        let agent = Agent::prepare(&scene.lab, "agent", &[&scene.policies()])?;
        let mut agent = agent.with(&["--config", &path.display().to_string()]);
        agent.start()?;
        let Scene { server, friend, .. } = &scene;
        let to = friend.v4(PORT);
        let zone = Zone::from([("api.shop.example", vec![to.ip()])]);
        let _resolver = Resolver::start(friend, &zone)?;
        asks(
            server,
            Protocol::Udp,
            friend.v4(DNS),
            "api.shop.example",
            to.ip(),
        )?;
        server.reaches(Protocol::Tcp, to)?;
        let record = went_out(&agent, "shop/server", "start", to)?;
        ensure!(
            record["dst"]["dns_name"].as_str() == name,
            "{settings}: {record}"
        );
    }
    Ok(())
}

#[test]
fn who_floods_its_resolver_loses_its_own_names_and_nobody_a_record() -> Result<()> {
    let scene = Scene::with(POLICY)?;
    let agent = scene.enforced()?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    let socket = server.within(|| UdpSocket::bind("0.0.0.0:0"))?;
    let question = question("api.shop.example", friend.v4(PORT).ip())?;
    for _ in 0..FLOOD {
        socket.send_to(&question, friend.v4(DNS))?;
    }
    let status = agent.status()?;
    let told = status["names"]["questions"].as_u64().unwrap_or(0);
    let lost = status["names"]["lost"].as_u64().unwrap_or(0);
    ensure!(lost > 0 && told < FLOOD, "{}", status["names"]);
    ensure!(status["events"]["lost"] == 0, "{}", status["events"]);
    // Another stretch of time begins within three seconds, and the table of questions has room after ten.
    let _resolver = Resolver::start(friend, &zone(friend, stranger))?;
    let to = friend.v4(PORT);
    let is_named = || -> Result<bool> {
        asks(
            server,
            Protocol::Udp,
            friend.v4(DNS),
            "api.shop.example",
            to.ip(),
        )?;
        server.reaches(Protocol::Tcp, to)?;
        let records = agent.flows(1000)?;
        let mut of_peer = records
            .iter()
            .filter(|record| record["dst"]["port"] == PORT);
        Ok(of_peer.any(|record| record["dst"]["dns_name"] == "api.shop.example"))
    };
    let named = eventually(RECORDED, || is_named().unwrap_or(false));
    ensure!(named, "{}", agent.status()?["names"]);
    Ok(())
}
