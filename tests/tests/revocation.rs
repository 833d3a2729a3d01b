//! What is no longer permitted ends for both of its ends, at once; all else goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::options::unacknowledged;
use ringfence_lab::wait::eventually;

/// The friend's port that is closed, and the one that stays open.
const CLOSED: u16 = 7070;
const SPARED: u16 = 7071;
/// A port of the pod's own.
const SERVED: u16 = 7072;

/// For a changed file to be in force and its sockets to be ended, on a busy machine. Without that,
/// nobody hears of anything for as long as it takes.
const ENDED: Duration = Duration::from_secs(20);

/// Flows beside the one that ends.
const FLOWS: u64 = 1 << 16;

/// The pod may reach these ports of the friend, and a network that is not there.
fn policy(ports: &[u16]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .flat_map(|port| {
            ["TCP", "UDP"].map(|protocol| format!("{{protocol: {protocol}, port: {port}}}"))
        })
        .collect();
    format!(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: pod}}
spec:
  podSelector: {{matchLabels: {{app: pod}}}}
  policyTypes: [Egress]
  egress:
    - to: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: friend}}}}}}]
      ports: [{}]
    - to: [{{ipBlock: {{cidr: 198.18.0.0/15}}}}]
",
        ports.join(", ")
    )
}

/// A pod that may reach a friend. Dropped in order.
struct Pair {
    agent: Agent,
    pod: Peer,
    friend: Peer,
    lab: Lab,
}

/// How a workload says where it is.
type Placed = fn(&Peer, &str, manifest::Labels<'_>) -> String;

impl Pair {
    fn new(placed: Placed) -> Result<Self> {
        let lab = Lab::bridged()?;
        let (pod, friend) = (lab.peer("pod", 2)?, lab.peer("friend", 3)?);
        let inventory = [
            placed(&pod, "shop", &[("app", "pod")]),
            placed(&friend, "shop", &[("app", "friend")]),
        ];
        lab.write("policies/inventory.yaml", &inventory.concat())?;
        lab.write("policies/policy.yaml", &policy(&[CLOSED, SPARED]))?;
        let agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
        Ok(Self {
            agent,
            pod,
            friend,
            lab,
        })
    }

    fn policy(&self, ports: &[u16]) -> Result<()> {
        let written = self.lab.write("policies/policy.yaml", &policy(ports));
        written.map(|_| ())
    }
}

/// Takes connections of both families.
fn listener(at: &Peer, port: u16) -> Result<TcpListener> {
    let listener = at.within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    listener.with_context(|| format!("cannot listen on {port}"))
}

/// Both ends of a connection from a peer.
fn connection(from: &Netns, to: SocketAddr, listener: &TcpListener) -> Result<[TcpStream; 2]> {
    let near = from.within(|| TcpStream::connect_timeout(&to, ENDED))?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(ENDED))?;
        stream.set_write_timeout(Some(ENDED))?;
    }
    let mut ends = [near, far];
    speaks(&mut ends)?;
    Ok(ends)
}

/// Both ends hear each other.
fn speaks([near, far]: &mut [TcpStream; 2]) -> Result<()> {
    let mut byte = [0];
    near.write_all(b"a")?;
    far.read_exact(&mut byte)?;
    far.write_all(b"b")?;
    near.read_exact(&mut byte)?;
    Ok(())
}

/// A UDP socket of a peer, of the family of `to`.
fn datagrams(of: &Peer, to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = of.within(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(ENDED))?;
    Ok(socket)
}

fn ends_with(kind: ErrorKind, what: &str, seen: std::io::Result<usize>) -> Result<()> {
    match seen {
        Err(error) if error.kind() == kind => Ok(()),
        other => bail!("{what}: {other:?}, expected: {kind:?}"),
    }
}

fn both_ends_hear_of_it(placed: Placed) -> Result<()> {
    let pair = Pair::new(placed)?;
    let (closed, spared) = (
        listener(&pair.friend, CLOSED)?,
        listener(&pair.friend, SPARED)?,
    );
    let own = listener(&pair.pod, SERVED)?;
    let echo = pair.friend.serve_udp(CLOSED)?;
    let other_echo = pair.friend.serve_udp(SPARED)?;
    let (mut cut, mut kept, mut told, mut loose) = (vec![], vec![], vec![], vec![]);
    for to in pair.friend.at(CLOSED) {
        cut.push((connection(&pair.pod, to, &closed)?, to));
        let socket = datagrams(&pair.pod, to)?;
        socket.connect(to)?;
        socket.send(b"x")?;
        socket.recv(&mut [0])?;
        told.push((socket, to));
        let socket = datagrams(&pair.pod, to)?;
        socket.send_to(b"x", to)?;
        socket.recv(&mut [0])?;
        loose.push(socket);
    }
    for to in pair.friend.at(SPARED) {
        kept.push(connection(&pair.pod, to, &spared)?);
    }
    for to in pair.pod.at(SERVED) {
        kept.push(connection(&pair.friend, to, &own)?);
    }
    // One that waits for room to write, as the other end does not read.
    let [full, _unread] = &mut connection(&pair.pod, pair.friend.v4(CLOSED), &closed)?;
    full.set_nonblocking(true)?;
    while full.write(&[0; 4096]).is_ok() {}
    full.set_nonblocking(false)?;

    pair.policy(&[SPARED])?;
    let log = || pair.agent.log();
    for ([near, far], to) in &mut cut {
        let what = format!("TCP to {to}");
        ends_with(ErrorKind::ConnectionAborted, &what, near.read(&mut [0])).with_context(log)?;
        let what = format!("the far end of {what}");
        ends_with(ErrorKind::ConnectionReset, &what, far.read(&mut [0])).with_context(log)?;
    }
    let wrote = loop {
        if let Err(error) = full.write(&[0; 4096]) {
            break error;
        }
    };
    // Whichever of its calls comes first has the error; a later one finds the pipe broken.
    let expected = [ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    ensure!(
        expected.contains(&wrote.kind()),
        "a write: {wrote:?}\n{}",
        log()
    );
    for (socket, to) in &told {
        let what = format!("UDP to {to}");
        ends_with(ErrorKind::ConnectionAborted, &what, socket.recv(&mut [0])).with_context(log)?;
    }
    drop(echo);
    for (socket, to) in loose.iter().zip(pair.friend.at(SPARED)) {
        socket.send_to(b"x", to)?;
        socket.recv(&mut [0]).context("a socket without a peer")?;
    }
    drop(other_echo);
    for ends in &mut kept {
        speaks(ends).with_context(log)?;
    }
    // Who listens goes on.
    for to in pair.pod.at(SERVED) {
        connection(&pair.friend, to, &own)?;
    }
    Ok(())
}

#[test]
fn both_ends_of_a_pods_connection_hear_of_it_by_interface() -> Result<()> {
    both_ends_hear_of_it(manifest::interface)
}

#[test]
fn both_ends_of_a_pods_connection_hear_of_it_by_namespace() -> Result<()> {
    both_ends_hear_of_it(manifest::netns)
}

/// A namespace behind the pod's, which is a bridge now, with the pod's addresses.
fn behind(pod: &Peer, lab: &Lab) -> Result<Netns> {
    let inner = Netns::create(format!("{}-inner", lab.prefix()))?;
    let [v4, v6] = pod.addresses();
    pod.ip(&format!(
        "address flush dev eth0\nlink add nested type bridge\nlink set eth0 master nested\n\
         link set nested up\nlink add in type veth peer name eth0 netns {}\n\
         link set in master nested\nlink set in up\n",
        inner.name()
    ))?;
    inner.ip(&format!(
        "link set eth0 up\naddress add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0 nodad\n"
    ))?;
    Ok(inner)
}

/// Nobody knows the link address of who has the connection but the bridges on the way.
#[test]
fn both_ends_of_an_idle_connection_from_further_behind_hear_of_it() -> Result<()> {
    let pair = Pair::new(manifest::interface)?;
    let inner = behind(&pair.pod, &pair.lab)?;
    let (closed, spared) = (
        listener(&pair.friend, CLOSED)?,
        listener(&pair.friend, SPARED)?,
    );
    let (mut cut, mut kept) = (vec![], vec![]);
    for to in pair.friend.at(CLOSED) {
        cut.push((to, connection(&inner, to, &closed)?));
    }
    for to in pair.friend.at(SPARED) {
        kept.push(connection(&inner, to, &spared)?);
    }
    let is_idle = || {
        let mut ends = cut.iter().flat_map(|(_, ends)| ends);
        ends.all(|end| unacknowledged(end).is_ok_and(|segments| segments == 0))
    };
    ensure!(eventually(ENDED, is_idle));
    pair.policy(&[SPARED])?;
    for (to, [near, far]) in &mut cut {
        for (end, stream) in [("far", far), ("near", near)] {
            let what = format!("the {end} end of {to}: {}", pair.agent.log());
            ends_with(ErrorKind::ConnectionReset, &what, stream.read(&mut [0]))?;
        }
    }
    for ends in &mut kept {
        speaks(ends)?;
    }
    let status = pair.agent.status()?;
    let prompted = status["rejections"]["prompted"].as_u64();
    ensure!(prompted.is_some_and(|prompted| prompted >= 2), "{status:#}");
    Ok(())
}

#[test]
fn the_far_end_of_a_groups_connection_hears_of_it() -> Result<()> {
    let lab = Lab::bridged()?;
    let friend = lab.peer("friend", 3)?;
    let group = Cgroup::create(&lab, "pod", env!("CARGO_BIN_EXE_lab-peer"))?;
    let inventory = [
        manifest::cgroup(group.name(), "shop", "pod", &[("app", "pod")]),
        manifest::interface(&friend, "shop", &[("app", "friend")]),
    ];
    lab.write("policies/inventory.yaml", &inventory.concat())?;
    lab.write("policies/policy.yaml", &policy(&[CLOSED]))?;
    let agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    let closed = listener(&friend, CLOSED)?;
    let mut held = Vec::new();
    for to in friend.at(CLOSED) {
        let near = group.hold(lab.host(), to)?;
        let (far, _) = closed.accept()?;
        far.set_read_timeout(Some(ENDED))?;
        held.push((near, far));
    }
    lab.write("policies/policy.yaml", &policy(&[SPARED]))?;
    for (near, mut far) in held {
        let said = near.says(ENDED);
        ensure!(
            said.as_deref() == Some("ConnectionAborted"),
            "{said:?}\n{}",
            agent.log()
        );
        let seen = far.read(&mut [0]);
        ends_with(ErrorKind::ConnectionReset, "the far end", seen).with_context(|| agent.log())?;
    }
    Ok(())
}

/// One datagram to each of so many addresses that nobody has.
fn flood(socket: &UdpSocket) -> Result<()> {
    for number in 0..FLOWS {
        let [.., c, d] = number.to_be_bytes();
        socket.send_to(b"x", (Ipv4Addr::new(198, 18, c, d), 9))?;
    }
    Ok(())
}

fn flows(agent: &Agent) -> u64 {
    let status = agent.status().unwrap_or_default();
    let tables = status["tables"].as_array().cloned().unwrap_or_default();
    let table = tables.iter().find(|table| table["name"] == "flows_v4");
    table
        .and_then(|table| table["used"].as_u64())
        .unwrap_or_default()
}

#[test]
fn one_among_many_flows_ends() -> Result<()> {
    let pair = Pair::new(manifest::interface)?;
    let closed = listener(&pair.friend, CLOSED)?;
    let nowhere = datagrams(&pair.pod, pair.friend.v4(CLOSED))?;
    let networks = ["198.18.0.0/15", "192.0.2.0/24"];
    for (ended, network) in networks.into_iter().enumerate() {
        pair.policy(&[CLOSED])?;
        let opened = eventually(ENDED, || {
            let to = pair.friend.v4(CLOSED);
            pair.pod
                .within(|| TcpStream::connect_timeout(&to, Duration::from_millis(200)))
                .is_ok()
        });
        ensure!(opened, "no connection\n{}", pair.agent.log());
        // What was tried until then waits to be taken.
        closed.set_nonblocking(true)?;
        while closed.accept().is_ok() {}
        closed.set_nonblocking(false)?;
        let [mut near, mut far] = connection(&pair.pod, pair.friend.v4(CLOSED), &closed)?;
        let full = eventually(3 * ENDED, || {
            flood(&nowhere).is_ok() && flows(&pair.agent) >= FLOWS
        });
        ensure!(full, "{} flows\n{}", flows(&pair.agent), pair.agent.log());

        let changed = Instant::now();
        // The second time all of them end at once, of which one has a socket that may be ended.
        let text = policy(&[SPARED]).replace("198.18.0.0/15", network);
        pair.lab.write("policies/policy.yaml", &text)?;
        let seen = near.read(&mut [0]);
        let heard = changed.elapsed();
        ends_with(ErrorKind::ConnectionAborted, "TCP", seen).with_context(|| pair.agent.log())?;
        ends_with(
            ErrorKind::ConnectionReset,
            "its far end",
            far.read(&mut [0]),
        )?;
        let said = || pair.agent.log().matches("no longer permitted").count();
        ensure!(eventually(ENDED, || said() > ended), "{}", pair.agent.log());
        println!("{heard:?} from the file to the error");
        for line in pair.agent.log().lines() {
            if line.contains("no longer permitted") {
                println!("{line}");
            }
        }
    }
    nowhere.send_to(b"x", pair.friend.v4(CLOSED))?;
    Ok(())
}
