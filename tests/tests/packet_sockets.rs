//! Frames that a process in a confined cgroup makes itself, past the sockets that its hooks see.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent_common::testing::PacketBuilder;
use anyhow::{Context as _, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::lab::{Lab, Netns, Peer};
use ringfence_lab::manifest;
use ringfence_lab::options::{Answer, Caller, Kind, OptionSocket, SocketOption};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::wait::eventually;
use ringfence_lab::wire::{Wire, with_checksums};
use serde_json::Value;

const PORT: u16 = 8080;
const BRIDGE: &str = "br0";
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const SOON: Duration = Duration::from_secs(10);
/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);

/// The service may reach the friend's port.
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: host, name: service}
spec:
  podSelector: {matchLabels: {app: service}}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
      ports: [{protocol: UDP, port: 8080}]
";

/// A service of the host in a group, and two peers. Dropped in order.
struct Host {
    agent: Agent,
    group: Cgroup,
    friend: Peer,
    stranger: Peer,
    lab: Lab,
}

impl Host {
    fn new() -> Result<Self> {
        let mut host = Self::with(POLICY, |_| String::new())?;
        host.agent.start()?;
        Ok(host)
    }

    /// With more inventory; the agent does not run yet.
    fn with(policy: &str, more: impl Fn(&Cgroup) -> String) -> Result<Self> {
        let lab = Lab::bridged()?;
        let (friend, stranger) = (lab.peer("friend", 2)?, lab.peer("stranger", 3)?);
        let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
        let inventory = [
            manifest::interface(&friend, "shop", &[("app", "friend")]),
            manifest::cgroup(group.name(), "host", "service", &[("app", "service")]),
            more(&group),
        ];
        let inventory = lab.write("policies/inventory.yaml", &inventory.concat())?;
        let policy = lab.write("policies/policy.yaml", policy)?;
        let agent = Agent::prepare(&lab, "agent", &[&inventory, &policy])?;
        Ok(Self {
            agent,
            group,
            friend,
            stranger,
            lab,
        })
    }

    /// A datagram from the node to a peer's port, of either family, by hand.
    fn datagram(&self, to: SocketAddr, from_port: u16) -> Result<Vec<u8>> {
        let peer = [&self.friend, &self.stranger];
        let peer = peer
            .into_iter()
            .find(|peer| peer.addresses().contains(&to.ip()));
        let peer = peer.context("nobody has this address")?;
        let [v4, v6] = self.lab.host_addresses();
        let packet = match (v4, v6, to.ip()) {
            (IpAddr::V4(from), _, IpAddr::V4(to)) => PacketBuilder::v4(from.octets(), to.octets()),
            (_, IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::v6(from.octets(), to.octets()),
            _ => anyhow::bail!("the host has an address of each family"),
        };
        let packet = packet
            .udp(from_port, to.port())
            .with_link(self.lab.host().link_address(BRIDGE)?)
            .to_link(peer.link_address("eth0")?);
        Ok(with_checksums(packet.frame()))
    }

    /// Whether what `send` sends by the bridge arrives at the peer, in both families.
    fn arrives(
        &self,
        peer: &Peer,
        port: u16,
        send: impl Fn(&Netns, &[u8]) -> Result<()>,
    ) -> Result<[bool; 2]> {
        let mut arrived = [false; 2];
        for (arrived, (to, kind)) in arrived
            .iter_mut()
            .zip(peer.at(port).into_iter().zip([IPV4, IPV6]))
        {
            let frame = self.datagram(to, 40_000)?;
            let ear = peer.hears_frames("eth0", kind)?;
            send(self.lab.host(), &frame)?;
            *arrived = ear.hears(PATIENCE, |heard| heard == frame)?;
        }
        Ok(arrived)
    }

    fn of_service(&self) -> Result<Value> {
        let status = self.agent.status()?;
        let endpoints = status["endpoints"].as_array().context("no endpoints")?;
        let mut services = endpoints.iter();
        let service = services.find(|endpoint| endpoint["name"] == "host/service");
        service.cloned().context("no service")
    }

    fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.of_service()?["drops"][reason].as_u64().unwrap_or(0))
    }
}

const BOTH: [bool; 2] = [true; 2];
const NEITHER: [bool; 2] = [false; 2];

#[test]
fn a_frame_of_a_confined_service_is_judged_by_policy() -> Result<()> {
    let host = Host::new()?;
    let by_service = |netns: &Netns, frame: &[u8]| host.group.sends_frame(netns, BRIDGE, frame);
    ensure!(host.arrives(&host.friend, PORT, by_service)? == BOTH);
    ensure!(host.dropped("default-deny")? == 0);
    ensure!(host.arrives(&host.friend, PORT + 1, by_service)? == NEITHER);
    ensure!(host.arrives(&host.stranger, PORT, by_service)? == NEITHER);
    ensure!(
        host.dropped("default-deny")? == 4,
        "{:#}",
        host.agent.status()?
    );
    let is_recorded = eventually(SOON, || {
        let records = host.agent.flows(1000).unwrap_or_default();
        host.stranger.addresses().iter().all(|address| {
            records.iter().any(|record| {
                record["kind"] == "deny"
                    && record["endpoint"] == "host/service"
                    && record["dst"]["ip"] == address.to_string()
            })
        })
    });
    ensure!(is_recorded, "{:#?}", host.agent.flows(1000)?);
    // Whoever is in no such group does as before.
    let by_node = |netns: &Netns, frame: &[u8]| netns.sends_frame(BRIDGE, frame);
    ensure!(host.arrives(&host.stranger, PORT, by_node)? == BOTH);
    ensure!(host.dropped("default-deny")? == 4);
    Ok(())
}

#[test]
fn a_frame_of_a_confined_service_is_caught_at_every_interface() -> Result<()> {
    let host = Host::new()?;
    // Straight into a pod, past the bridge.
    let into = |peer: &Peer| peer.interface().to_owned();
    for (peer, expected) in [(&host.friend, BOTH), (&host.stranger, NEITHER)] {
        let interface = into(peer);
        let by_service =
            |netns: &Netns, frame: &[u8]| host.group.sends_frame(netns, &interface, frame);
        let seen = host.arrives(peer, PORT, by_service)?;
        ensure!(seen == expected, "{interface}: {seen:?}");
    }
    // At one that appears later.
    let netns = host.lab.host();
    netns.ip(
        "link add late type veth peer name late-peer\nlink set late up\nlink set late-peer up\n",
    )?;
    let frame = host.datagram(host.stranger.v4(PORT), 40_001)?;
    let ear = netns.hears_frames("late-peer", IPV4)?;
    let before = host.dropped("default-deny")?;
    let is_covered = eventually(SOON, || {
        let sent = host.group.sends_frame(netns, "late", &frame);
        sent.is_ok() && host.dropped("default-deny").is_ok_and(|now| now > before)
    });
    ensure!(is_covered, "{:#}", host.agent.status()?);
    // What came through until then is through.
    while ear.hears(PATIENCE, |heard| heard == frame)? {}
    host.group.sends_frame(netns, "late", &frame)?;
    ensure!(!ear.hears(PATIENCE, |heard| heard == frame)?);
    Ok(())
}

#[test]
fn a_confined_service_sends_no_frames_beside_ip() -> Result<()> {
    let host = Host::new()?;
    let [IpAddr::V4(gateway), _] = host.lab.host_addresses() else {
        anyhow::bail!("IPv4 comes first");
    };
    let own = host.lab.host().link_address(BRIDGE)?;
    let arp = PacketBuilder::arp(2, gateway.octets(), [10, 77, 0, 3])
        .patched(8, &own)
        .with_link(own);
    let lldp = PacketBuilder::other(0x88cc).payload(60).with_link(own);
    let beside = [(arp, "spoofed-neighbour"), (lldp, "not-ip")].into_iter();
    let beside = beside.map(|(packet, reason)| (packet.to_link([0xff; 6]).frame(), reason));
    // A datagram that would be permitted, but for the tag of a VLAN before it; to everybody on the bridge, as it
    // is the friend's interface's to drop, too.
    let mut tagged = host.datagram(host.friend.v4(PORT), 40_000)?;
    tagged.splice(..6, [0xff; 6]);
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    for (frame, reason) in beside.chain([(tagged, "not-ip")]) {
        // A receiver sees no outer tag.
        let tail = frame.get(18..).context("it is longer")?;
        let ear = host.stranger.within(|| Wire::everything("eth0"))?;
        let before = host.dropped(reason)?;
        host.group.sends_frame(host.lab.host(), BRIDGE, &frame)?;
        ensure!(
            !ear.hears(PATIENCE, |heard| heard.ends_with(tail))?,
            "{reason}"
        );
        ensure!(
            host.dropped(reason)? == before + 1,
            "{:#}",
            host.agent.status()?
        );
        host.lab.host().sends_frame(BRIDGE, &frame)?;
        ensure!(
            ear.hears(PATIENCE, |heard| heard.ends_with(tail))?,
            "{reason}: of the node"
        );
    }
    Ok(())
}

#[test]
fn groups_within_a_group_are_confined_with_it() -> Result<()> {
    let host = Host::new()?;
    let inner = host.group.within("inner")?;
    let by_inner = |netns: &Netns, frame: &[u8]| inner.sends_frame(netns, BRIDGE, frame);
    ensure!(host.arrives(&host.stranger, PORT, by_inner)? == NEITHER);
    ensure!(host.arrives(&host.friend, PORT, by_inner)? == BOTH);
    ensure!(host.dropped("default-deny")? == 2);
    Ok(())
}

#[test]
fn an_endpoint_within_another_sends_no_frames() -> Result<()> {
    // The inner one may do anything, the outer one may not: both would have to be asked.
    let mut host = Host::with(POLICY, |group| {
        let inner = format!("{}/inner", group.name());
        manifest::cgroup(&inner, "host", "inner", &[("app", "inner")])
    })?;
    let inner = host.group.within("inner")?;
    host.agent.start()?;
    let by_inner = |netns: &Netns, frame: &[u8]| inner.sends_frame(netns, BRIDGE, frame);
    ensure!(host.arrives(&host.stranger, PORT, by_inner)? == NEITHER);
    ensure!(host.arrives(&host.friend, PORT, by_inner)? == NEITHER);
    let drops = &host.agent.status()?["drops"];
    ensure!(drops["not-programmed"] == 4, "{drops}");
    // Its sockets do what both may.
    let to = host.friend.v4(PORT);
    let _service = host.friend.serve(Protocol::Udp, PORT)?;
    ensure!(inner.probe(host.lab.host(), Protocol::Udp, to)? == Outcome::Allowed);
    Ok(())
}

#[test]
fn a_raw_socket_of_a_confined_service_is_judged_in_its_group() -> Result<()> {
    let host = Host::new()?;
    for to in host
        .stranger
        .addresses()
        .into_iter()
        .chain(host.friend.addresses())
    {
        let seen = host.group.ping(host.lab.host(), to)?;
        ensure!(seen != Outcome::Allowed, "{to}: {seen}");
        let seen = host.lab.host().ping(to);
        ensure!(seen == Outcome::Allowed, "the node, {to}: {seen}");
    }
    ensure!(host.dropped("default-deny")? == 4);
    Ok(())
}

/// `PACKET_QDISC_BYPASS`.
fn bypass() -> SocketOption {
    option(Kind::Packet, libc::SOL_PACKET, 20, &1_i32.to_ne_bytes())
}

fn option(kind: Kind, level: i32, name: i32, value: &[u8]) -> SocketOption {
    SocketOption {
        kind,
        level,
        name,
        value: value.to_vec(),
    }
}

const PERMISSION: Answer = Answer::Refused(libc::EPERM);

#[test]
fn a_confined_service_cannot_have_its_frames_pass_the_hooks() -> Result<()> {
    let host = Host::new()?;
    let netns = host.lab.host();
    let sets = |option: &SocketOption| host.group.sets(netns, Caller::Of64Bits, option);
    let seen = sets(&bypass())?;
    ensure!(seen == PERMISSION, "{seen:?}");
    // Likewise in a group within it, and whatever the value.
    let inner = host.group.within("inner")?;
    let off = option(Kind::Packet, libc::SOL_PACKET, 20, &0_i32.to_ne_bytes());
    let seen = inner.sets(netns, Caller::Of64Bits, &off)?;
    ensure!(seen == PERMISSION, "{seen:?}");
    ensure!(host.dropped("bypass")? == 2, "{:#}", host.of_service()?);
    // By an XDP socket, where the kernel has them, it may receive.
    let ring = |name| option(Kind::Xdp, libc::SOL_XDP, name, &64_u32.to_ne_bytes());
    if OptionSocket::new(Kind::Xdp).is_ok() {
        let seen = sets(&ring(libc::XDP_TX_RING))?;
        ensure!(seen == PERMISSION, "{seen:?}");
        let seen = sets(&ring(libc::XDP_RX_RING))?;
        ensure!(matches!(seen, Answer::Set(_)), "{seen:?}");
        ensure!(host.dropped("bypass")? == 3);
    }
    // Whoever is in no such group does as before.
    let interface = host.stranger.interface();
    let by_node = |netns: &Netns, frame: &[u8]| {
        netns.within(|| {
            let wire = Wire::open(interface)?;
            wire.bypass()?;
            wire.send(frame)
        })
    };
    ensure!(host.arrives(&host.stranger, PORT, by_node)? == BOTH);
    // Nor is it a matter of the service alone: without it, nothing is refused.
    host.lab.write(
        "policies/inventory.yaml",
        &manifest::interface(&host.friend, "shop", &[("app", "friend")]),
    )?;
    let is_free = || sets(&bypass()).is_ok_and(|seen| matches!(seen, Answer::Set(_)));
    ensure!(eventually(SOON, is_free));
    Ok(())
}

#[test]
fn what_refuses_options_is_put_back_and_goes_with_the_agent() -> Result<()> {
    let mut host = Host::new()?;
    let links = host.agent.bpffs().join("links");
    let ask = |host: &Host| {
        host.group
            .sets(host.lab.host(), Caller::Of64Bits, &bypass())
    };
    let mut pins = std::fs::read_dir(links)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    // A security module's, where there is one, refuses meanwhile.
    pins.retain(|pin| pin.to_string_lossy().ends_with("-setsockopt"));
    let [pin] = pins.as_slice() else {
        anyhow::bail!("one for the service: {pins:?}");
    };
    ringfence_lab::kernel::detach_link(pin)?;
    let is_told = host.agent.status_eventually(SOON, |status| {
        status["tampered"]["detached"].as_u64() == Some(1)
    });
    ensure!(is_told, "{:#}", host.agent.status()?);
    ensure!(ask(&host)? == PERMISSION);
    host.agent.kill()?;
    ensure!(ask(&host)? == PERMISSION, "without an agent");
    host.agent.start()?;
    ensure!(ask(&host)? == PERMISSION, "with the next one");
    host.agent.terminate()?;
    host.agent.detach()?;
    let seen = ask(&host)?;
    ensure!(matches!(seen, Answer::Set(_)), "detached: {seen:?}");
    Ok(())
}

#[test]
fn other_options_of_a_confined_service_are_set_as_ever() -> Result<()> {
    let host = Host::new()?;
    let padded = |text: &str, length| {
        let mut value = text.as_bytes().to_vec();
        value.resize(length, 0);
        value
    };
    let no_delay = 1_i32.to_ne_bytes();
    let version = 1_i32.to_ne_bytes();
    let options = [
        option(Kind::Tcp, libc::IPPROTO_TCP, libc::TCP_NODELAY, &no_delay),
        option(Kind::Tcp, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo"),
        // Longer than what a program of the kernel's is shown.
        option(
            Kind::Tcp,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            &padded("lo", 4096),
        ),
        option(
            Kind::Tcp,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            &padded("lo", 20_000),
        ),
        option(
            Kind::Packet,
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            &version,
        ),
        // Nobody's.
        option(Kind::Tcp, libc::SOL_PACKET, 21, &version),
    ];
    for asked in &options {
        for caller in [Caller::Of64Bits, Caller::Of32Bits] {
            let by_service = host.group.sets(host.lab.host(), caller, asked)?;
            let socket = OptionSocket::new(asked.kind)?;
            let set = match caller {
                Caller::Of64Bits => socket.set(asked.level, asked.name, &asked.value),
                Caller::Of32Bits => socket.set_by_32_bits(asked.level, asked.name, &asked.value),
            };
            let expected = match set {
                Ok(()) => Answer::Set(format!("{:02x?}", socket.get(asked.level, asked.name)?)),
                Err(error) => Answer::Refused(error.raw_os_error().unwrap_or_default()),
            };
            ensure!(
                by_service == expected,
                "{} {} {} of {} bytes, {caller:?}: {by_service:?}, elsewhere {expected:?}",
                asked.kind,
                asked.level,
                asked.name,
                asked.value.len(),
            );
        }
    }
    ensure!(host.dropped("bypass")? == 0);
    Ok(())
}

#[test]
fn what_may_still_go_past_every_hook_is_said() -> Result<()> {
    let mut host = Host::with(POLICY, |_| String::new())?;
    let interface = host.stranger.interface().to_owned();
    let to = host.stranger.v4(PORT);
    let frame = host.datagram(to, 40_002)?;
    // Made before the agent came.
    let netns = host.lab.host();
    let there = host.group.poises_frame_past(netns, &interface, &frame)?;
    let bridged = host.group.poises_frame_past(netns, BRIDGE, &frame)?;
    host.agent.start()?;
    let told = host.of_service()?["unjudged"].to_string();
    ensure!(
        told.contains("before it was refused"),
        "{:#}",
        host.of_service()?
    );
    // Should a hook come to see it, what is said is to change.
    let ear = host.stranger.hears_frames("eth0", IPV4)?;
    there.send()?;
    ensure!(ear.hears(PATIENCE, |heard| heard == frame)?);
    ensure!(host.dropped("default-deny")? == 0);
    // Past one interface is not past the next.
    bridged.send()?;
    ensure!(!ear.hears(PATIENCE, |heard| heard == frame)?);
    ensure!(host.dropped("default-deny")? == 1);
    // A cgroup's program is not told of the calls of 32 bits, a security module's is.
    let seen = host
        .group
        .sets(host.lab.host(), Caller::Of32Bits, &bypass())?;
    let is_said = told.contains("32 bits");
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has_ours = modules.trim().split(',').any(|module| module == "bpf");
    ensure!(
        has_ours != is_said || told.contains("refused the program"),
        "{modules}: {told}"
    );
    match seen {
        Answer::Set(_) => ensure!(is_said, "{told}"),
        Answer::Refused(libc::ENOSYS) => eprintln!("not asked: the kernel has no such calls"),
        seen @ Answer::Refused(_) => {
            ensure!(seen == PERMISSION, "{seen:?}");
            ensure!(!is_said, "{told}");
            ensure!(host.dropped("bypass")? == 1);
        }
    }
    Ok(())
}

/// Interfaces whose way out is watched.
fn watched(host: &Host) -> usize {
    let links = host.agent.bpffs().join("links");
    let entries = std::fs::read_dir(links).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("out-"))
        .count()
}

fn all_are_watched(host: &Host) -> Result<()> {
    let all = || host.lab.host().ask("ip", &["-o", "link", "show"]);
    let are = || all().is_ok_and(|shown| shown.lines().count() == watched(host));
    ensure!(eventually(SOON, are), "{} of {}", watched(host), all()?);
    Ok(())
}

#[test]
fn ways_out_are_watched_only_while_a_service_is_confined() -> Result<()> {
    let mut host = Host::with(POLICY, |_| String::new())?;
    let path = host.lab.folder().join("policies/inventory.yaml");
    let with_service = std::fs::read_to_string(path)?;
    let without = manifest::interface(&host.friend, "shop", &[("app", "friend")]);
    host.lab.write("policies/inventory.yaml", &without)?;
    host.agent.start()?;
    ensure!(watched(&host) == 0);
    host.lab.write("policies/inventory.yaml", &with_service)?;
    // The loopback interface, the bridge, and the way into either pod.
    all_are_watched(&host)?;
    let before = watched(&host);
    ensure!(before >= 4);
    host.lab
        .host()
        .ip("link add gone type veth peer name gone-peer\n")?;
    all_are_watched(&host)?;
    host.lab.host().ip("link delete gone\n")?;
    all_are_watched(&host)?;
    ensure!(watched(&host) == before);
    host.lab.write("policies/inventory.yaml", &without)?;
    ensure!(eventually(SOON, || watched(&host) == 0));
    let tampered = &host.agent.status()?["tampered"];
    ensure!(tampered.is_null(), "{tampered}");
    Ok(())
}

#[test]
fn ways_out_stay_watched_without_an_agent_and_are_left_by_detach() -> Result<()> {
    let mut host = Host::new()?;
    let by_service = |host: &Host| {
        let send = |netns: &Netns, frame: &[u8]| host.group.sends_frame(netns, BRIDGE, frame);
        host.arrives(&host.stranger, PORT, send)
    };
    host.agent.kill()?;
    ensure!(by_service(&host)? == NEITHER);
    host.agent.start()?;
    ensure!(by_service(&host)? == NEITHER);
    host.agent.terminate()?;
    host.agent.detach()?;
    ensure!(by_service(&host)? == BOTH);
    let qdiscs = host.lab.host().ask("tc", &["qdisc", "show"])?;
    ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
    Ok(())
}

#[test]
fn a_program_that_is_taken_off_a_way_out_is_put_back() -> Result<()> {
    let host = Host::new()?;
    let shown = host
        .lab
        .host()
        .ask("ip", &["-o", "link", "show", "dev", BRIDGE])?;
    let index = shown.split(':').next().context("no index")?;
    let pin = host.agent.bpffs().join(format!("links/out-{index}"));
    if !pin.is_file() {
        eprintln!("skipped: filters of this kernel have no pin to cut off");
        return Ok(());
    }
    ringfence_lab::kernel::detach_link(&pin)?;
    let is_told = host.agent.status_eventually(SOON, |status| {
        status["tampered"]["detached"].as_u64() == Some(1)
    });
    ensure!(is_told, "{:#}", host.agent.status()?);
    let by_service = |netns: &Netns, frame: &[u8]| host.group.sends_frame(netns, BRIDGE, frame);
    ensure!(host.arrives(&host.stranger, PORT, by_service)? == NEITHER);
    Ok(())
}
