//! What routers and hosts say about an endpoint's packets: it has to hear that, and nothing that is made up.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use agent_common::testing::PacketBuilder;
use anyhow::{Context as _, Result, ensure};
use ringfence_lab::forge::between;
use ringfence_lab::lab::{Netns, Peer, Wiring};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{PORT, Scene};
use ringfence_lab::wait::{eventually, patient};
use ringfence_lab::wire::with_checksums;

/// What is permitted arrives by then, also after the first segments were too long.
const SOON: Duration = Duration::from_secs(10);
/// Nobody is there.
const CLOSED: u16 = 8081;
/// More than one window.
const BYTES: usize = 300_000;
/// Of the last link, and of one that there is not.
const NARROW: &str = "1300";
const MADE_UP: u16 = 1290;
/// Where the stream goes, and an address of the same network at which nobody is.
const FAR: [&str; 2] = ["203.0.113.2", "2001:db8:78::2"];
const NOBODY: [&str; 2] = ["203.0.113.3", "2001:db8:78::3"];

/// The server may reach the far network's ports, and be reached by nobody.
const TO_FAR: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  egress:
    - to: [{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: '2001:db8:78::/64'}}]
      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8081}]
";

/// A scene with a router beyond its host, and a host behind that, at a link that carries less one way: so
/// neither end knows.
struct Path {
    far: Netns,
    router: Peer,
    scene: Scene,
}

impl Path {
    fn new() -> Result<Self> {
        let scene = Scene::wired(Wiring::Routed, TO_FAR)?;
        let router = scene.lab.outside("router")?;
        let far = Netns::create(format!("{}-far", scene.lab.prefix()))?;
        router.sysctl("ipv4/ip_forward", "1")?;
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
        // By addresses of a link a router asks for neighbours on others' behalf, and again after a while.
        for interface in [scene.server.interface(), router.interface()] {
            let own = format!("addr add fe80::1/64 dev {interface} nodad\n");
            scene.lab.host().ip(&own)?;
        }
        router.ip(&format!(
            "link add far type veth peer name eth0 netns {}\n\
             link set far mtu {NARROW} up\n\
             addr add 203.0.113.1/24 dev far\n\
             addr add 2001:db8:78::1/64 dev far nodad\n\
             addr add fe80::1/64 dev far nodad\n\
             addr add fe80::2/64 dev eth0 nodad\n",
            far.name()
        ))?;
        far.ip("link set eth0 up\n\
             addr add 203.0.113.2/24 dev eth0\n\
             addr add 2001:db8:78::2/64 dev eth0 nodad\n\
             route add default via 203.0.113.1\n\
             route add default via 2001:db8:78::1 dev eth0\n")?;
        let [v4, v6] = router.addresses();
        scene.lab.host().ip(&format!(
            "route add 203.0.113.0/24 via {v4}\nroute add 2001:db8:78::/64 via {v6}\n"
        ))?;
        for to in far_at(FAR)? {
            let is_there = || scene.server.ping(to) == Outcome::Allowed;
            ensure!(eventually(SOON, is_there), "no way to {to}");
        }
        Ok(Self { far, router, scene })
    }

    /// How much the server sends there at once, if it knows.
    fn mtu(&self, to: IpAddr) -> Result<Option<String>> {
        let shown = self
            .scene
            .server
            .ask("ip", &["route", "get", &to.to_string()])?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "mtu");
        Ok(words.next().map(str::to_owned))
    }

    /// The router says that what the server has sent there was too long. The server has not.
    fn makes_up(&self, to: IpAddr, quoted: &PacketBuilder) -> Result<()> {
        let Self { router, scene, .. } = self;
        let [v4, v6] = router.addresses();
        let [server_v4, server_v6] = scene.server.addresses();
        let says = if to.is_ipv4() {
            let error = between(v4, server_v4)?.icmp_error(3, 4, quoted, 28);
            error.patched(6, &MADE_UP.to_be_bytes())
        } else {
            let error = between(v6, server_v6)?.icmp_error(2, 0, quoted, 48);
            error.patched(6, &MADE_UP.to_be_bytes())
        };
        let says = says
            .with_link(router.link_address("eth0")?)
            .to_link(scene.lab.host().link_address(router.interface())?);
        router.sends_frame("eth0", &with_checksums(says.frame()))
    }

    /// All of it arrives, in segments that no router may cut.
    fn streams(&self, to: SocketAddr) -> Result<()> {
        let listener = self.far.within(|| TcpListener::bind(to))?;
        let server = &self.scene.server;
        let mut stream = server.within(|| TcpStream::connect_timeout(&to, patient(SOON)))?;
        let (mut end, _) = listener.accept()?;
        end.set_read_timeout(Some(patient(SOON)))?;
        let sent = std::thread::spawn(move || stream.write_all(&vec![0xa5; BYTES]));
        let mut received = Vec::new();
        end.read_to_end(&mut received)
            .with_context(|| format!("{to}: {} of {BYTES} bytes", received.len()))?;
        ensure!(received.len() == BYTES, "{to}: {}", received.len());
        sent.join().ok().context("the sender")??;
        Ok(())
    }
}

fn far_at(addresses: [&str; 2]) -> Result<Vec<IpAddr>> {
    Ok(addresses
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?)
}

/// A packet of the server's that belongs to no flow, and that its kernel believes to have answered with.
fn answer(server: &Peer, to: IpAddr) -> Result<PacketBuilder> {
    let [v4, v6] = server.addresses();
    Ok(match to {
        IpAddr::V4(_) => between(v4, to)?.icmp(0, 0, 7),
        IpAddr::V6(_) => between(v6, to)?.icmp(129, 0, 7),
    })
}

#[test]
fn the_mtu_of_a_path_is_found_and_none_is_made_up() -> Result<()> {
    let path = Path::new()?;
    let server = &path.scene.server;
    for to in far_at(NOBODY)? {
        let quoted = answer(server, to)?;
        let is_believed = eventually(SOON, || {
            let told = path.makes_up(to, &quoted).and_then(|()| path.mtu(to));
            told.is_ok_and(|mtu| mtu == Some(MADE_UP.to_string()))
        });
        ensure!(is_believed, "{to}, no agent: nobody believes this test");
    }

    let agent = path.scene.enforced()?;
    let mut count = 0;
    for to in far_at(FAR)? {
        let own = server.addresses();
        let own = own.into_iter().find(|own| own.is_ipv4() == to.is_ipv4());
        let segment = between(own.context("of this family")?, to)?.tcp(40_000, PORT, 16);
        for quoted in [answer(server, to)?, segment] {
            path.makes_up(to, &quoted)?;
            count += 1;
        }
    }
    agent.has_dropped_at("shop/server", "default-deny", count)?;
    for to in far_at(FAR)? {
        let known = path.mtu(to)?;
        ensure!(known.is_none(), "{to}: {known:?} is made up");
        path.streams(SocketAddr::new(to, PORT))
            .with_context(|| agent.log())?;
        let known = path.mtu(to)?;
        ensure!(known.as_deref() == Some(NARROW), "{to}: {known:?}");
    }
    // No more than what was made up.
    agent.has_dropped_at("shop/server", "default-deny", count)
}

#[test]
fn a_closed_port_is_told_at_once() -> Result<()> {
    let path = Path::new()?;
    let _agent = path.scene.enforced()?;
    let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED).to_string();
    for to in far_at(FAR)? {
        let to = SocketAddr::new(to, CLOSED);
        let seen = path.scene.server.probe(Protocol::Udp, to);
        ensure!(seen == Outcome::Refused(refused.clone()), "{to}: {seen}");
    }
    Ok(())
}
