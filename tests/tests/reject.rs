//! Who is denied is told at once where policy says `reject`, and hears nothing where it does not.

#[path = "reject/frames.rs"]
mod frames;
#[path = "testbed/pod.rs"]
mod pod;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::kernel::detach_link;
use ringfence_lab::lab::{Lab, Netns, Peer, Wiring};
use ringfence_lab::manifest;
use ringfence_lab::options::unacknowledged;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::eventually;
use serde_json::Value;

/// For what takes no time on a machine that is not busy.
const SOON: Duration = Duration::from_secs(20);

/// Answers that may be sent at once, and in each second after.
const BURST: u64 = 100;
/// Packets of a scan.
const SCANNED: u16 = 3000;

/// The same policy, whose denied senders are told.
fn rejecting(policy: &str) -> String {
    policy.replace(
        "name: server}",
        "name: server, annotations: {ringfence.io/denied: reject}}",
    )
}

/// An error unless a sender is told at once, in the words that the kernel has for it.
fn is_refused(from: &Netns, protocol: Protocol, to: SocketAddr) -> Result<()> {
    let seen = from.probe(protocol, to);
    let expected = match (protocol, to) {
        (Protocol::Tcp, _) => libc::ECONNREFUSED,
        // "Communication administratively prohibited", as Linux maps it for either family.
        (Protocol::Udp, SocketAddr::V4(_)) => libc::EHOSTUNREACH,
        (Protocol::Udp, SocketAddr::V6(_)) => libc::EACCES,
    };
    let expected = std::io::Error::from_raw_os_error(expected).to_string();
    ensure!(
        seen == Outcome::Refused(expected.clone()),
        "{} to {to} {protocol}: {seen}, expected: {expected}",
        from.name()
    );
    Ok(())
}

fn rejections(agent: &Agent) -> Result<[u64; 2]> {
    let status = agent.status()?;
    let sums = ["sent", "suppressed"].map(|what| status["rejections"][what].as_u64());
    let [Some(sent), Some(suppressed)] = sums else {
        bail!("no rejections in {status:#}");
    };
    Ok([sent, suppressed])
}

/// What a peer sends to the endpoint.
fn peers_are_told(wiring: Wiring) -> Result<()> {
    let scene = Scene::wired(wiring, &rejecting(FRIEND_ONLY))?;
    let world = scene.lab.outside("world")?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
            is_refused(&scene.stranger, protocol, to)?;
            is_refused(&world, protocol, to)?;
        }
        for to in scene.server.at(OTHER_PORT) {
            is_refused(&scene.friend, protocol, to)?;
        }
    }
    let [sent, suppressed] = rejections(&agent)?;
    ensure!(
        sent >= 12 && suppressed == 0,
        "sent {sent}, suppressed {suppressed}"
    );
    let status = agent.status()?;
    let endpoints = status["endpoints"].as_array().cloned().unwrap_or_default();
    let by_name = |name: &str| {
        let found = endpoints.iter().find(|endpoint| endpoint["name"] == name);
        found.and_then(|endpoint| endpoint["rejections"]["sent"].as_u64())
    };
    ensure!(by_name("shop/server") == Some(sent), "{status:#}");
    ensure!(by_name("shop/friend") == Some(0), "{status:#}");
    Ok(())
}

#[test]
fn who_sends_to_an_endpoint_is_told_on_a_bridge() -> Result<()> {
    peers_are_told(Wiring::Bridged)
}

#[test]
fn who_sends_to_an_endpoint_is_told_over_routed_links() -> Result<()> {
    peers_are_told(Wiring::Routed)
}

/// What the endpoint itself sends. Its ingress is open, so that an answer could be taken for a flow.
fn the_endpoint_is_told(wiring: Wiring) -> Result<()> {
    let scene = Scene::wired(wiring, &rejecting(TO_FRIEND_ONLY))?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.friend.at(PORT) {
            scene.server.reaches(protocol, to)?;
        }
        let denied = scene.friend.at(OTHER_PORT).into_iter();
        for to in denied.chain(scene.stranger.at(PORT)) {
            is_refused(&scene.server, protocol, to)?;
        }
    }
    let [sent, suppressed] = rejections(&agent)?;
    ensure!(
        sent >= 8 && suppressed == 0,
        "sent {sent}, suppressed {suppressed}"
    );
    // An answer is nobody's flow.
    let records = agent.flows(1000)?;
    let of_answers = records.iter().filter(|record| {
        let port = record["src"]["port"].as_u64();
        record["verdict"] == "allow" && port == Some(u64::from(OTHER_PORT))
    });
    ensure!(of_answers.count() == 0, "{records:#?}");
    Ok(())
}

#[test]
fn an_endpoint_is_told_on_a_bridge() -> Result<()> {
    the_endpoint_is_told(Wiring::Bridged)
}

#[test]
fn an_endpoint_is_told_over_routed_links() -> Result<()> {
    the_endpoint_is_told(Wiring::Routed)
}

#[test]
fn nobody_is_told_where_policy_does_not_say_so() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.stranger.is_dropped_to(protocol, to)?;
        }
    }
    ensure!(rejections(&agent)? == [0, 0], "{:?}", rejections(&agent)?);
    // From now on it does.
    scene.policy(&rejecting(FRIEND_ONLY))?;
    let to = scene.server.v4(PORT);
    let is_told = || matches!(scene.stranger.tcp(to), Outcome::Refused(_));
    ensure!(eventually(SOON, is_told), "{}", agent.log());
    Ok(())
}

/// Sends a datagram to so many ports of the address in turn.
fn scan(from: &Netns, to: IpAddr) -> Result<()> {
    from.within(|| {
        let any: IpAddr = match to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        for port in 20_000..20_000 + SCANNED {
            socket.send_to(b"x", SocketAddr::new(to, port))?;
        }
        anyhow::Ok(())
    })
}

#[test]
fn a_scan_is_answered_so_often_and_no_more() -> Result<()> {
    let scene = Scene::with(&rejecting(FRIEND_ONLY))?;
    let agent = scene.enforced()?;
    let begin = Instant::now();
    for to in scene.server.addresses() {
        scan(&scene.stranger, to)?;
    }
    let all = 2 * u64::from(SCANNED);
    let counted = eventually(SOON, || {
        rejections(&agent).is_ok_and(|[sent, suppressed]| sent + suppressed == all)
    });
    // No longer than that, as they were counted when they were sent.
    let most = BURST + begin.elapsed().as_secs() * BURST + BURST;
    let [sent, suppressed] = rejections(&agent)?;
    ensure!(counted, "sent {sent}, suppressed {suppressed}, of {all}");
    ensure!(
        sent >= BURST && sent <= most,
        "sent {sent}, at most {most} were due"
    );
    // What the endpoint sends itself has a limit of its own.
    scene.policy(&rejecting(TO_FRIEND_ONLY))?;
    let to = scene.stranger.v4(PORT);
    let is_told = || matches!(scene.server.tcp(to), Outcome::Refused(_));
    ensure!(eventually(SOON, is_told), "{}", agent.log());
    let shown = agent.call(&["status", "--socket", &agent.socket().display().to_string()])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("REJECTIONS sent "), "{shown}");
    Ok(())
}

const FOR_A_GROUP: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: host, name: service, annotations: {ringfence.io/denied: reject}}
spec:
  podSelector: {matchLabels: {app: service}}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// A group of the host that may reach a friend. Dropped in order.
struct Group {
    agent: Agent,
    cgroup: Cgroup,
    _services: Vec<ringfence_lab::serve::Service>,
    friend: Peer,
    lab: Lab,
}

impl Group {
    fn new(policy: &str) -> Result<Self> {
        let lab = Lab::bridged()?;
        let friend = lab.peer("friend", 2)?;
        let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
        let mut services = Vec::new();
        for protocol in Protocol::ALL {
            for port in [PORT, OTHER_PORT] {
                services.push(friend.serve(protocol, port)?);
            }
        }
        let inventory = [
            manifest::interface(&friend, "shop", &[("app", "friend")]),
            manifest::cgroup(group.name(), "host", "service", &[("app", "service")]),
        ];
        lab.write("policies/inventory.yaml", &inventory.concat())?;
        lab.write("policies/policy.yaml", policy)?;
        let agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
        Ok(Self {
            agent,
            cgroup: group,
            _services: services,
            friend,
            lab,
        })
    }

    fn probe(&self, protocol: Protocol, to: SocketAddr) -> Result<Outcome> {
        self.cgroup.probe(self.lab.host(), protocol, to)
    }

    fn denied(&self) -> Result<u64> {
        let status = self.agent.status()?;
        Ok(status["drops"]["default-deny"].as_u64().unwrap_or(0))
    }

    /// Records of denials.
    fn denials(&self) -> Result<Vec<Value>> {
        let mut records = self.agent.flows(1000)?;
        records.retain(|record| record["verdict"] == "deny");
        Ok(records)
    }
}

/// The peer's port as an IPv6 socket names an IPv4 address.
fn mapped(peer: &Peer, port: u16) -> Result<SocketAddr> {
    match peer.v4(port).ip() {
        IpAddr::V4(address) => Ok((address.to_ipv6_mapped(), port).into()),
        IpAddr::V6(_) => bail!("not IPv4"),
    }
}

fn forbidden() -> Outcome {
    Outcome::Refused(std::io::Error::from_raw_os_error(libc::EPERM).to_string())
}

#[test]
fn a_groups_socket_is_told_when_it_connects() -> Result<()> {
    let host = Group::new(FOR_A_GROUP)?;
    let [v4, v6] = host.friend.at(OTHER_PORT);
    let denied = [v4, v6, mapped(&host.friend, OTHER_PORT)?];
    for to in denied {
        let before = host.denied()?;
        let seen = host.probe(Protocol::Tcp, to)?;
        ensure!(seen == forbidden(), "{to}: {seen}\n{}", host.agent.log());
        // Once, as there was no packet.
        let after = host.denied()?;
        ensure!(after == before + 1, "{to}: {before} became {after}");
    }
    for to in host
        .friend
        .at(PORT)
        .into_iter()
        .chain([mapped(&host.friend, PORT)?])
    {
        let seen = host.probe(Protocol::Tcp, to)?;
        ensure!(
            seen == Outcome::Allowed,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    let told = eventually(SOON, || {
        let ports = |records: Vec<Value>| {
            let denied = |record: &&Value| record["dst"]["port"] == OTHER_PORT;
            records.iter().filter(denied).count()
        };
        // IPv4 by whichever name is one kind.
        host.denials().map(ports).is_ok_and(|count| count == 2)
    });
    ensure!(told, "{:#?}", host.denials()?);
    Ok(())
}

#[test]
fn a_groups_datagrams_are_refused_and_not_its_connected_sockets() -> Result<()> {
    let host = Group::new(FOR_A_GROUP)?;
    for to in host.friend.at(OTHER_PORT) {
        let seen = host.cgroup.connect(host.lab.host(), Protocol::Udp, to)?;
        ensure!(
            seen == Outcome::Allowed,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    ensure!(
        host.denied()? == 0,
        "a socket that was connected is no datagram"
    );
    ensure!(host.denials()?.is_empty(), "{:#?}", host.denials()?);
    for to in host.friend.at(OTHER_PORT) {
        let seen = host.probe(Protocol::Udp, to)?;
        ensure!(seen == forbidden(), "{to}: {seen}\n{}", host.agent.log());
    }
    ensure!(host.denied()? == 2, "{}", host.denied()?);
    Ok(())
}

#[test]
fn a_groups_connection_waits_where_policy_does_not_say_reject() -> Result<()> {
    let host = Group::new(&FOR_A_GROUP.replace("reject", "drop"))?;
    for to in host.friend.at(OTHER_PORT) {
        let seen = host.probe(Protocol::Tcp, to)?;
        ensure!(
            seen == Outcome::TimedOut,
            "{to}: {seen}\n{}",
            host.agent.log()
        );
    }
    Ok(())
}

#[test]
fn what_refuses_a_groups_connections_is_put_back_and_goes_with_the_agent() -> Result<()> {
    let host = Group::new(FOR_A_GROUP)?;
    let links = host.agent.bpffs().join("links");
    let refusing = || -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&links)? {
            found.push(entry?.path());
        }
        // Others note processes.
        found.retain(|path| path.to_string_lossy().contains("/cg-1-connect"));
        Ok(found)
    };
    let pins = refusing()?;
    ensure!(pins.len() == 2, "{pins:?}");
    for pin in &pins {
        let to = if pin.to_string_lossy().ends_with("connect4") {
            host.friend.v4(OTHER_PORT)
        } else {
            host.friend.v6(OTHER_PORT)
        };
        detach_link(pin)?;
        let is_back = || {
            host.probe(Protocol::Tcp, to)
                .is_ok_and(|seen| seen == forbidden())
        };
        ensure!(eventually(SOON, is_back), "{pin:?}\n{}", host.agent.log());
    }
    let counted = || {
        let status = host.agent.status().unwrap_or_default();
        status["tampered"]["detached"].as_u64() >= Some(2)
    };
    ensure!(eventually(SOON, counted), "{}", host.agent.log());
    // Without an agent they stay, and go when it is taken off.
    let mut agent = host.agent;
    agent.kill()?;
    let to = host.friend.v4(OTHER_PORT);
    let ask = || host.cgroup.probe(host.lab.host(), Protocol::Tcp, to);
    ensure!(ask()? == forbidden(), "without an agent: {}", ask()?);
    agent.detach()?;
    ensure!(ask()? == Outcome::Allowed, "detached: {}", ask()?);
    Ok(())
}

/// A Service of which nobody knows who serves it may lead to anybody: only the packet tells.
#[test]
fn a_groups_connection_to_a_service_is_not_refused_before_its_packet() -> Result<()> {
    const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: elsewhere}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ports: [{port: 9090}]
";
    let host = Group::new(FOR_A_GROUP)?;
    // Nothing leads there: it is asked before that is looked for.
    let to: SocketAddr = "10.96.0.10:9090".parse()?;
    let refused = eventually(SOON, || {
        host.probe(Protocol::Tcp, to)
            .is_ok_and(|seen| seen == forbidden())
    });
    ensure!(refused, "without a Service: {}", host.agent.log());
    host.lab.write("policies/service.yaml", SERVICE)?;
    let let_through = eventually(SOON, || {
        host.probe(Protocol::Tcp, to)
            .is_ok_and(|seen| seen != forbidden())
    });
    ensure!(let_through, "with a Service: {}", host.agent.log());
    Ok(())
}

/// Takes connections of both families.
fn listener(at: &Peer, port: u16) -> Result<TcpListener> {
    let listener = at.within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    listener.with_context(|| format!("cannot listen on {port}"))
}

/// Both ends of a connection.
fn connection(from: &Peer, to: SocketAddr, listener: &TcpListener) -> Result<[TcpStream; 2]> {
    let near = from.within(|| TcpStream::connect_timeout(&to, SOON))?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
    }
    let mut ends = [near, far];
    let [near, far] = &mut ends;
    near.write_all(b"a")?;
    far.read_exact(&mut [0])?;
    far.write_all(b"b")?;
    near.read_exact(&mut [0])?;
    Ok(ends)
}

fn is_reset(what: &str, stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => bail!("{what}: {other:?}, expected a reset"),
    }
}

/// Whether its owner hears of a reset by that: it has come before, as the end was asked to speak.
fn hears_by_speaking(stream: &mut TcpStream) -> Result<bool> {
    match stream.write_all(b"x") {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Which end speaks first after the change.
#[derive(Clone, Copy)]
enum First {
    Near,
    Far,
    Neither,
}

/// Where nobody may enter the namespace to end a socket, packets tell both ends; `reject` or not.
fn both_ends_are_told(first: First) -> Result<()> {
    const CLOSED: u16 = 7070;
    let listened = |port: u16| FRIEND_ONLY.replace("8080", &port.to_string());
    let scene = Scene::with(&listened(CLOSED))?;
    let mut agent = scene.agent()?.started_by(&[
        "setpriv",
        "--inh-caps=-all",
        "--bounding-set=-all,+bpf,+net_admin,+perfmon,+dac_override",
    ]);
    agent.start()?;
    let taken = listener(&scene.server, CLOSED)?;
    let mut held = Vec::new();
    for to in scene.server.at(CLOSED) {
        held.push((to, connection(&scene.friend, to, &taken)?));
    }
    // What acknowledges the last word is a word too.
    let is_idle = || {
        let mut ends = held.iter().flat_map(|(_, ends)| ends);
        ends.all(|end| unacknowledged(end).is_ok_and(|segments| segments == 0))
    };
    ensure!(eventually(SOON, is_idle));
    let before = agent.status()?["generation"].clone();
    scene.policy(&listened(1))?;
    // An attempt that fails is no proof: a machine may be slow.
    let in_force = agent.status_eventually(SOON, |status| status["generation"] != before);
    ensure!(in_force, "{}", agent.log());
    let refused = scene.friend.tcp(scene.server.v4(CLOSED));
    ensure!(refused == Outcome::TimedOut, "{refused:?}: {}", agent.log());
    for (to, [friend, server]) in &mut held {
        // The endpoint is the server's, and the far end the friend's.
        let (has_heard, speaker) = match first {
            First::Near => ([false, hears_by_speaking(server)?], "the endpoint's end"),
            First::Far => ([hears_by_speaking(friend)?, false], "the far end"),
            First::Neither => ([false; 2], "neither end"),
        };
        let ends = [("the far end", friend), ("the endpoint's end", server)];
        for ((end, stream), has_heard) in ends.into_iter().zip(has_heard) {
            if !has_heard {
                is_reset(
                    &format!("{end} at {to}, where {speaker} has spoken"),
                    stream,
                )
                .with_context(|| agent.log())?;
            }
        }
    }
    if matches!(first, First::Neither) {
        let status = agent.status()?;
        let prompted = status["rejections"]["prompted"].as_u64().unwrap_or(0);
        ensure!(prompted >= 2, "{}", agent.log());
    }
    Ok(())
}

#[test]
fn both_ends_of_a_cut_connection_hear_of_it_when_the_endpoint_speaks() -> Result<()> {
    both_ends_are_told(First::Near)
}

#[test]
fn both_ends_of_a_cut_connection_hear_of_it_when_the_peer_speaks() -> Result<()> {
    both_ends_are_told(First::Far)
}

#[test]
fn both_ends_of_a_cut_connection_hear_of_it_when_neither_speaks() -> Result<()> {
    both_ends_are_told(First::Neither)
}
