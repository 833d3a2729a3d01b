//! Connections that were there before the agent: those that policy permits go on without a loss, whoever
//! speaks first, and the others are cut.

use std::cell::RefCell;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{PATIENCE, Protocol};
use ringfence_lab::scene::{PORT, TO_FRIEND_ONLY};
use ringfence_lab::stream::retransmitted;
use ringfence_lab::wait::eventually;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};

/// For what passes to arrive, and for a record to be written, on a busy machine.
const ARRIVES: Duration = Duration::from_secs(10);

/// Friends may ask the server and be asked by it, at one port. All else is denied in both directions: the
/// packet of a responder is never permitted by itself.
const FRIENDS: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]
";

/// Anybody may ask the server, which may ask nobody.
const OPEN_SERVER: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{protocol: TCP, port: 8080}]}]
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Initiator,
    Responder,
}

/// Both ends of one connection, which has been used both ways.
#[derive(Debug)]
enum Pair {
    Tcp([TcpStream; 2]),
    /// The last is not connected: it shows that the responder's port is one that is asked.
    Udp(
        [UdpSocket; 2],
        #[expect(dead_code, reason = "it has to be there")] UdpSocket,
    ),
}

impl Pair {
    fn tcp(from: &Netns, at: SocketAddr, listener: &TcpListener) -> Result<Self> {
        let initiator = from.within(|| TcpStream::connect_timeout(&at, PATIENCE))?;
        let (responder, _) = listener.accept()?;
        Self::Tcp([initiator, responder]).used()
    }

    fn udp(from: &Netns, to: &Netns, at: SocketAddr) -> Result<Self> {
        let listener = to.within(|| shared_port(at))?;
        let responder = to.within(|| shared_port(at))?;
        let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let initiator = from.within(|| UdpSocket::bind(any))?;
        initiator.connect(at)?;
        responder.connect(initiator.local_addr()?)?;
        Self::Udp([initiator, responder], listener).used()
    }

    fn used(self) -> Result<Self> {
        self.passes(Side::Initiator)?;
        self.passes(Side::Responder)?;
        Ok(self)
    }

    fn says(&self, side: Side) -> std::io::Result<()> {
        match self {
            Self::Tcp(ends) => (&ends[side as usize]).write_all(b"x"),
            Self::Udp(ends, _) => ends[side as usize].send(b"x").map(|_| ()),
        }
    }

    /// What the other side has said, if it comes in time.
    fn hears(&self, side: Side, patience: Duration) -> std::io::Result<()> {
        match self {
            Self::Tcp(ends) => {
                let mut end = &ends[side as usize];
                end.set_read_timeout(Some(patience))?;
                end.read_exact(&mut [0])
            }
            Self::Udp(ends, _) => {
                let end = &ends[side as usize];
                end.set_read_timeout(Some(patience))?;
                end.recv(&mut [0; 8]).map(|_| ())
            }
        }
    }

    /// What one side sends arrives at the other.
    fn passes(&self, side: Side) -> Result<()> {
        self.says(side)?;
        let came = self.hears(side.other(), ARRIVES);
        came.with_context(|| format!("what the {side:?} sends is lost: {self:?}"))
    }

    /// No segment had to be sent twice.
    fn is_whole(&self) -> Result<()> {
        if let Self::Tcp(ends) = self {
            let again = ends.each_ref().map(retransmitted);
            ensure!(again == [0, 0], "retransmitted {again:?}: {self:?}");
        }
        Ok(())
    }

    fn initiator(&self) -> Result<SocketAddr> {
        Ok(match self {
            Self::Tcp([initiator, _]) => initiator.local_addr()?,
            Self::Udp([initiator, _], _) => initiator.local_addr()?,
        })
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// A UDP port that several sockets may have.
fn shared_port(at: SocketAddr) -> std::io::Result<UdpSocket> {
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &at)?;
    Ok(socket.into())
}

/// Nothing of any of these arrives, whichever side sends.
fn are_cut<'p>(pairs: impl IntoIterator<Item = &'p Pair> + Clone) -> Result<()> {
    for pair in pairs.clone() {
        for side in [Side::Responder, Side::Initiator] {
            // A sender may be told.
            let _told = pair.says(side).is_err();
        }
    }
    let mut patience = PATIENCE;
    for pair in pairs {
        for side in [Side::Responder, Side::Initiator] {
            let came = pair.hears(side, patience);
            ensure!(came.is_err(), "the {side:?} hears what is denied: {pair:?}");
            // The rest has had its time by now.
            patience = Duration::from_millis(1);
        }
    }
    Ok(())
}

/// A server that policy selects, with a friend and a stranger.
struct Shop {
    listeners: RefCell<BTreeMap<SocketAddr, TcpListener>>,
    server: Peer,
    friend: Peer,
    stranger: Peer,
    lab: Lab,
}

impl Shop {
    fn with(policy: &str, endpoint: fn(&Peer) -> String) -> Result<Self> {
        let lab = Lab::bridged()?;
        let shop = Self {
            listeners: RefCell::default(),
            server: lab.peer("server", 2)?,
            friend: lab.peer("friend", 3)?,
            stranger: lab.peer("stranger", 4)?,
            lab,
        };
        let peers = [&shop.server, &shop.friend, &shop.stranger];
        let inventory = peers.map(endpoint).concat();
        shop.lab.write("policies/inventory.yaml", &inventory)?;
        shop.lab.write("policies/policy.yaml", policy)?;
        Ok(shop)
    }

    /// It does not run yet.
    fn agent(&self) -> Result<Agent> {
        Agent::prepare(&self.lab, "agent", &[&self.lab.folder().join("policies")])
    }

    fn tcp(&self, from: &Netns, to: &Netns, at: SocketAddr) -> Result<Pair> {
        let mut listeners = self.listeners.borrow_mut();
        let listener = match listeners.entry(at) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(to.within(|| TcpListener::bind(at))?),
        };
        Pair::tcp(from, at, listener)
    }

    /// Connections of the server with a peer, of both protocols and families, begun by either.
    fn pairs(&self, peer: &Peer) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for (from, to) in [(peer, &self.server), (&self.server, peer)] {
            for at in to.at(PORT) {
                pairs.push(self.tcp(from, to, at)?);
                pairs.push(Pair::udp(from, to, at)?);
            }
        }
        Ok(pairs)
    }
}

fn by_interface(peer: &Peer) -> String {
    manifest::interface(peer, "shop", &[("app", peer.role())])
}

fn by_netns(peer: &Peer) -> String {
    manifest::netns(peer, "shop", &[("app", peer.role())])
}

fn what_is_permitted_goes_on(endpoint: fn(&Peer) -> String) -> Result<()> {
    for first in [Side::Responder, Side::Initiator] {
        let shop = Shop::with(FRIENDS, endpoint)?;
        let (mut permitted, denied) = (shop.pairs(&shop.friend)?, shop.pairs(&shop.stranger)?);
        // As a probe of the server's own node, which no policy denies.
        for at in shop.server.at(PORT) {
            permitted.push(shop.tcp(shop.lab.host(), &shop.server, at)?);
        }
        let mut agent = shop.agent()?;
        agent.start()?;
        for pair in &permitted {
            for side in [first, first.other()] {
                pair.passes(side).with_context(|| agent.log())?;
            }
            pair.is_whole()?;
        }
        are_cut(&denied).with_context(|| agent.log())?;
        // Who comes now is judged as ever.
        shop.server
            .is_dropped_to(Protocol::Tcp, shop.stranger.v4(PORT))?;
    }
    Ok(())
}

#[test]
fn behind_an_interface_what_is_permitted_goes_on_and_the_rest_is_cut() -> Result<()> {
    what_is_permitted_goes_on(by_interface)
}

#[test]
fn of_a_namespace_what_is_permitted_goes_on_and_the_rest_is_cut() -> Result<()> {
    what_is_permitted_goes_on(by_netns)
}

#[test]
fn what_talks_while_the_agent_comes_loses_nothing() -> Result<()> {
    let shop = Shop::with(FRIENDS, by_interface)?;
    let _services = [shop.server.serve_tcp(PORT)?, shop.friend.serve_tcp(PORT)?];
    let mut streams = Vec::new();
    for (from, to) in [(&shop.friend, &shop.server), (&shop.server, &shop.friend)] {
        for at in to.at(PORT) {
            streams.push(from.stream(at)?);
        }
    }
    let mut agent = shop.agent()?;
    agent.start()?;
    let most = agent.cost_of_attaching()?;
    for stream in streams {
        stream.advances().with_context(|| agent.log())?;
        let progress = stream.finish();
        let is_whole = progress.unbroken_but_for(most);
        is_whole.with_context(|| agent.log())?;
    }
    Ok(())
}

/// Where what a responder sends would be permitted by itself, it is not taken for a flow of its own.
#[test]
fn a_denied_connection_is_cut_though_the_other_direction_is_open() -> Result<()> {
    let shop = Shop::with(TO_FRIEND_ONLY, by_interface)?;
    let mut pairs = Vec::new();
    for at in shop.stranger.at(PORT) {
        pairs.push(shop.tcp(&shop.server, &shop.stranger, at)?);
        pairs.push(Pair::udp(&shop.server, &shop.stranger, at)?);
    }
    let mut agent = shop.agent()?;
    agent.start()?;
    are_cut(&pairs).with_context(|| agent.log())?;
    // The other direction is open indeed.
    let asked = shop.tcp(&shop.stranger, &shop.server, shop.server.v4(PORT))?;
    asked.passes(Side::Responder)
}

#[test]
fn the_record_says_who_began_and_a_restart_takes_up_nothing() -> Result<()> {
    const TAKEN_UP: &str = "live connections are taken up";
    let shop = Shop::with(FRIENDS, by_interface)?;
    let asked = shop.tcp(&shop.friend, &shop.server, shop.server.v4(PORT))?;
    let asks = shop.tcp(&shop.server, &shop.friend, shop.friend.v6(PORT))?;
    let mut agent = shop.agent()?;
    agent.start()?;
    ensure!(agent.log().contains(TAKEN_UP), "{}", agent.log());
    for pair in [&asked, &asks] {
        pair.passes(Side::Responder)?;
    }
    for (pair, direction) in [(&asked, "ingress"), (&asks, "egress")] {
        let port = pair.initiator()?.port();
        let told = eventually(ARRIVES, || {
            let flows = agent.flows(100).unwrap_or_default();
            flows.iter().any(|record| {
                record["endpoint"] == "shop/server"
                    && record["kind"] == "start"
                    && record["src"]["port"] == port
                    && record["direction"] == direction
                    && record["initiator_known"] == true
                    && record["policy"]["name"] == "server"
            })
        });
        ensure!(told, "no record of {port}: {:#?}", agent.flows(100)?);
    }
    agent.kill()?;
    // Of a time when the programs were there, and the agent was not.
    let late = shop.tcp(&shop.friend, &shop.server, shop.server.v6(PORT))?;
    agent.start()?;
    ensure!(!agent.log().contains(TAKEN_UP), "{}", agent.log());
    for pair in [&asked, &asks, &late] {
        pair.passes(Side::Responder)?;
        pair.is_whole()?;
    }
    Ok(())
}

/// A port that everybody may ask is no way to anybody: neither by what is there, nor by what it says.
#[test]
fn an_acknowledgement_out_of_nothing_does_not_pass() -> Result<()> {
    let shop = Shop::with(OPEN_SERVER, by_interface)?;
    let pair = shop.tcp(&shop.friend, &shop.server, shop.server.v4(PORT))?;
    let heard = shop.stranger.within(raw_tcp)?;
    let forge = shop.server.within(raw_tcp)?;
    let arrives = |patience| -> Result<bool> {
        forge.send_to(&acknowledgement(), shop.stranger.v4(0))?;
        heard.set_read_timeout(Some(patience))?;
        let mut packet = [0; 128];
        Ok(heard.recv(&mut packet).is_ok())
    };
    ensure!(arrives(ARRIVES)?, "it does not arrive before the agent");
    let mut agent = shop.agent()?;
    agent.start()?;
    ensure!(!arrives(PATIENCE)?, "{}", agent.log());
    pair.passes(Side::Responder)?;
    ensure!(!arrives(PATIENCE)?, "{}", agent.log());
    Ok(())
}

/// With an address, std sends and receives on it safely.
fn raw_tcp() -> std::io::Result<UdpSocket> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )?;
    Ok(socket.into())
}

/// A segment from the server's open port, with ACK alone. Who looks at it raw does not sum it up.
fn acknowledgement() -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&PORT.to_be_bytes());
    segment[2..4].copy_from_slice(&4000_u16.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = 16;
    segment
}

#[test]
fn who_is_behind_an_interface_may_stay_unknown_and_status_says_so() -> Result<()> {
    let shop = Shop::with(FRIENDS, by_interface)?;
    shop.lab
        .host()
        .ip("link add veth-lone type veth peer name veth-mirror\n")?;
    let lone = r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: shop, name: lone}
spec: {addresses: [10.77.0.9], endpoint: {interface: veth-lone}}
";
    shop.lab.write("policies/lone.yaml", lone)?;
    let mut agent = shop.agent()?;
    agent.start()?;
    let status = agent.status()?;
    let endpoints = status["endpoints"].as_array().context("endpoints")?;
    for endpoint in endpoints {
        let is_told = endpoint["message"]
            .as_str()
            .is_some_and(|message| message.contains("not taken up"));
        ensure!(endpoint["state"] == "attached", "{endpoint}");
        ensure!(is_told == (endpoint["name"] == "shop/lone"), "{endpoint}");
    }
    Ok(())
}

#[test]
fn of_a_group_what_is_permitted_goes_on_and_the_rest_ends_for_its_owner() -> Result<()> {
    let lab = Lab::bridged()?;
    let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
    let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
    let policy = FRIENDS.replace("namespace: shop", "namespace: host");
    let inventory = [
        manifest::interface(&friend, "shop", &[("app", "friend")]),
        manifest::interface(&stranger, "shop", &[("app", "stranger")]),
        manifest::cgroup(group.name(), "host", "server", &[("app", "server")]),
    ];
    lab.write("policies/inventory.yaml", &inventory.concat())?;
    lab.write("policies/policy.yaml", &policy)?;

    // The group asks: what comes next is of the responder.
    let mut held = Vec::new();
    for (peer, ends) in [(&friend, "closed"), (&stranger, "ConnectionAborted")] {
        for at in peer.at(PORT) {
            let listener = peer.within(|| TcpListener::bind(at))?;
            let datagrams = peer.within(|| UdpSocket::bind(at))?;
            let by_tcp = group.hold_over(Protocol::Tcp, lab.host(), at)?;
            let (stream, _) = listener.accept()?;
            let by_udp = group.hold_over(Protocol::Udp, lab.host(), at)?;
            datagrams.set_read_timeout(Some(ARRIVES))?;
            let (_, from) = datagrams.recv_from(&mut [0; 8])?;
            datagrams.connect(from)?;
            held.push((by_tcp, by_udp, stream, datagrams, ends));
        }
    }
    // And is asked.
    let _server = group.serve(lab.host(), Protocol::Tcp, PORT)?;
    let mut asking = Vec::new();
    for (peer, is_permitted) in [(&friend, true), (&stranger, false)] {
        for address in lab.host_addresses() {
            let stream = asks(peer, address)?;
            asking.push((stream, is_permitted));
        }
    }

    let mut agent = Agent::prepare(&lab, "agent", &[&lab.folder().join("policies")])?;
    agent.start()?;
    for (stream, is_permitted) in &asking {
        if *is_permitted {
            echoes(stream).with_context(|| agent.log())?;
            ensure!(retransmitted(stream) == 0, "{stream:?}");
        }
    }
    for (by_tcp, by_udp, stream, datagrams, ends) in &held {
        let _told = (&*stream).write_all(b"x").is_err();
        let _told = datagrams.send(b"x").is_err();
        for held in [by_tcp, by_udp] {
            let said = held.says(ARRIVES);
            let log = || format!("{stream:?}: {said:?}, expected {ends}\n{}", agent.log());
            ensure!(said.as_deref() == Some(*ends), log());
        }
        ensure!(
            retransmitted(stream) == 0 || *ends != "closed",
            "{stream:?}"
        );
    }
    for (stream, is_permitted) in &asking {
        stream.set_read_timeout(Some(PATIENCE))?;
        ensure!(
            echoes(stream).is_ok() == *is_permitted,
            "{stream:?}\n{}",
            agent.log()
        );
    }
    Ok(())
}

fn asks(peer: &Peer, address: IpAddr) -> Result<TcpStream> {
    let at = SocketAddr::new(address, PORT);
    let stream = peer.within(|| TcpStream::connect_timeout(&at, PATIENCE))?;
    stream.set_read_timeout(Some(ARRIVES))?;
    echoes(&stream)?;
    Ok(stream)
}

fn echoes(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}
