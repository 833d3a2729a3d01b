//! A port that others may ask is no way to them: neither over TCP, nor over UDP, nor in the name of a
//! connection that has been.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use agent_common::flow::tcp::{ACK, FIN, RST, SYN};
use agent_common::testing::PacketBuilder;
use anyhow::{Context as _, Result, ensure};
use ringfence_lab::lab::Peer;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::patient;

/// What a permitted packet needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
/// No service of a scene is there.
const FREE: u16 = 8081;
const SERVER: &str = "shop/server";

/// Anybody may ask the server's port, and it may ask nobody.
const OPEN_SERVER: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{protocol: TCP, port: 8080}]}]
";

/// The friend may ask the server's free port, and the server nobody.
fn answers_only() -> String {
    let policy = FRIEND_ONLY.replace("port: 8080", &format!("port: {FREE}"));
    policy.replace("ingress:", "policyTypes: [Ingress, Egress]\n  ingress:")
}

/// Segments of each kind from the server's port to one that nobody has asked from.
fn out_of_nothing(from: &Peer, to: &Peer) -> Result<Vec<PacketBuilder>> {
    let kinds = [ACK, RST, RST | ACK, SYN | ACK, FIN | ACK, FIN, 0];
    let packets = from.packets_to(to)?.into_iter();
    let packets = packets.flat_map(|packet| {
        let to_port = |flags| packet.clone().tcp(PORT, 40_000, flags);
        kinds.map(to_port)
    });
    Ok(packets.collect())
}

#[test]
fn an_open_port_of_tcp_sends_nothing_that_was_not_asked_for() -> Result<()> {
    let scene = Scene::with(OPEN_SERVER)?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    for to in [friend, stranger] {
        let arrived = server.gets_through(to, &out_of_nothing(server, to)?)?;
        ensure!(!arrived.contains(&false), "no agent: {arrived:?}");
    }
    let agent = scene.enforced()?;
    let mut count = 0;
    for to in [friend, stranger] {
        let forged = out_of_nothing(server, to)?;
        let arrived = server.gets_through(to, &forged)?;
        ensure!(!arrived.contains(&true), "{}: {arrived:?}", to.role());
        count += forged.len();
    }
    agent.has_dropped_at(SERVER, "default-deny", count)?;
    for to in server.at(PORT) {
        friend.reaches(Protocol::Tcp, to)?;
        stranger.reaches(Protocol::Tcp, to)?;
    }
    Ok(())
}

fn bound(at: &Peer, like: IpAddr, port: u16) -> Result<UdpSocket> {
    let any: IpAddr = match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = at.within(|| UdpSocket::bind(SocketAddr::new(any, port)))?;
    socket.set_read_timeout(Some(patient(PATIENCE)))?;
    Ok(socket)
}

fn hears(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 8]).is_ok()
}

/// What arrives of datagrams from the server's port: the answer, one that the friend did not ask for from this
/// port, and one for the stranger.
fn by_udp(scene: &Scene, to: SocketAddr) -> Result<[bool; 3]> {
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = scene;
    let service = bound(server, to.ip(), to.port())?;
    let [asks, silent, strange] = [friend, friend, stranger].map(|peer| bound(peer, to.ip(), 0));
    let (asks, silent, strange) = (asks?, silent?, strange?);
    let place = |peer: &Peer, socket: &UdpSocket| -> Result<SocketAddr> {
        let port = socket.local_addr()?.port();
        let mut at = peer.at(port).into_iter();
        let at = at.find(|at| at.is_ipv4() == to.is_ipv4());
        at.context("a peer has addresses of both families")
    };
    let unasked = [place(friend, &silent)?, place(stranger, &strange)?];
    // Before it is asked, and after.
    let mut heard = [false; 3];
    for _ in 0..2 {
        for to in unasked {
            service.send_to(b"unasked", to)?;
        }
        heard[1] |= hears(&silent);
        heard[2] |= hears(&strange);
        asks.send_to(b"?", to)?;
        let (_, from) = service.recv_from(&mut [0; 8])?;
        service.send_to(b"!", from)?;
        heard[0] |= hears(&asks);
    }
    Ok(heard)
}

#[test]
fn a_servers_udp_port_starts_nothing() -> Result<()> {
    let scene = Scene::with(&answers_only())?;
    for to in scene.server.at(FREE) {
        ensure!(by_udp(&scene, to)? == [true; 3], "{to}, no agent");
    }
    let agent = scene.enforced()?;
    for to in scene.server.at(FREE) {
        let heard = by_udp(&scene, to)?;
        ensure!(heard == [true, false, false], "{to}: {heard:?}");
    }
    // Two each, twice, in both families.
    agent.has_dropped_at(SERVER, "default-deny", 8)
}

/// A connection that has served.
struct Connection {
    asks: TcpStream,
    answers: TcpStream,
}

impl Connection {
    fn new(scene: &Scene, to: SocketAddr) -> Result<Self> {
        let listener = scene.server.within(|| TcpListener::bind(to))?;
        let asks = scene
            .friend
            .within(|| TcpStream::connect_timeout(&to, patient(PATIENCE)))?;
        let (answers, _) = listener.accept()?;
        let connection = Self { asks, answers };
        connection.serves()?;
        Ok(connection)
    }

    fn serves(&self) -> Result<()> {
        let (mut asks, mut answers) = (&self.asks, &self.answers);
        for end in [asks, answers] {
            end.set_read_timeout(Some(patient(PATIENCE)))?;
        }
        asks.write_all(b"?")?;
        answers.read_exact(&mut [0])?;
        answers.write_all(b"!")?;
        asks.read_exact(&mut [0])?;
        Ok(())
    }

    /// Each end closes, the initiator first, and hears that of the other.
    fn ends(self) -> Result<()> {
        let Self { asks, answers } = self;
        asks.shutdown(std::net::Shutdown::Write)?;
        (&answers).read_to_end(&mut Vec::new())?;
        drop(answers);
        (&asks).read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

/// A begin from the responder's end of a connection to its initiator's.
fn begins_back(scene: &Scene, connection: &Connection) -> Result<PacketBuilder> {
    let at = connection.asks.local_addr()?;
    let [v4, v6] = scene.server.packets_to(&scene.friend)?;
    let packet = if at.is_ipv4() { v4 } else { v6 };
    Ok(packet.tcp(FREE, at.port(), SYN))
}

#[test]
fn who_answered_begins_nothing_with_the_ports_of_the_connection() -> Result<()> {
    let scene = Scene::with(&answers_only())?;
    let Scene { server, friend, .. } = &scene;
    for to in server.at(FREE) {
        let connection = Connection::new(&scene, to)?;
        let begin = begins_back(&scene, &connection)?;
        ensure!(server.gets_through(friend, &[begin])? == [true], "no agent");
    }
    let agent = scene.enforced()?;
    for to in server.at(FREE) {
        let connection = Connection::new(&scene, to)?;
        let begin = begins_back(&scene, &connection)?;
        let arrived = server.gets_through(friend, std::slice::from_ref(&begin))?;
        ensure!(arrived == [false], "{to}: while the connection lives");
        connection.serves()?;
        connection.ends()?;
        let arrived = server.gets_through(friend, &[begin])?;
        ensure!(arrived == [false], "{to}: when it has ended");
    }
    agent.has_dropped_at(SERVER, "default-deny", 4)
}
