//! What the program at an interface makes of packets that get past weaker ones, one by one, without a network. What
//! the kernel can send of it, is on real interfaces in `spoofing`, `scans`, `reverse` and `forms`.

#[path = "testbed/pod.rs"]
mod pod;

use agent_common::{
    flow::tcp::{ACK, FIN, RST, SYN},
    protocol::{ICMP, ICMPV6, TCP},
    table::Direction::{self, Egress, Ingress},
    testing::{
        PacketBuilder,
        packet::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING},
    },
    verdict::Reason,
};
use anyhow::{Result, ensure};
use ringfence::datapath::testbed::Hook;

use crate::pod::{ID, Pod};

const PORT: u16 = 8080;
const OTHER: u16 = 9090;
const PEER_PORT: u16 = 40_000;

/// Everybody may ask the pod's port, over TCP and UDP, and the pod nobody.
const POLICY: &str = r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: shop, name: pod, labels: {app: pod}}
spec: {addresses: [10.0.0.1, 'fd00::1']}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: pod}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]}]
";

/// A packet at one of the hooks, and the reason that it is dropped for.
type Step = (Direction, PacketBuilder, Option<Reason>);

/// The two ends of a family.
#[derive(Clone, Copy)]
struct Ends {
    between: fn(bool) -> PacketBuilder,
}

impl Ends {
    const ALL: [Self; 2] = [
        Self {
            between: |sends| {
                let (pod, peer) = ([10, 0, 0, 1], [10, 0, 0, 2]);
                if sends {
                    PacketBuilder::v4(pod, peer)
                } else {
                    PacketBuilder::v4(peer, pod)
                }
            },
        },
        Self {
            between: |sends| {
                let (mut pod, mut peer) = ([0; 16], [0; 16]);
                (pod[0], pod[15]) = (0xfd, 1);
                (peer[0], peer[15]) = (0xfd, 2);
                if sends {
                    PacketBuilder::v6(pod, peer)
                } else {
                    PacketBuilder::v6(peer, pod)
                }
            },
        },
    ];

    fn out(self) -> PacketBuilder {
        (self.between)(true)
    }

    fn back(self) -> PacketBuilder {
        (self.between)(false)
    }
}

fn dropped(pod: &Pod, reason: Reason) -> Result<u64> {
    let counters = pod.bed.counters(ID)?;
    Ok(counters.get(&reason).map_or(0, |counter| counter.packets))
}

/// Goes through the steps, for a pod that has no flows yet.
fn takes(name: &str, steps: impl Fn(Ends) -> Vec<Step>) -> Result<()> {
    let mut pod = Pod::new(name, POLICY)?;
    // To these it is the same: the pod's node has no address here.
    let made_here = !pod.bed.can_arrive()?;
    for ends in Ends::ALL {
        pod.bed.flush_flows()?;
        for (at, (direction, packet, reason)) in steps(ends).into_iter().enumerate() {
            let before = reason.map(|reason| dropped(&pod, reason)).transpose()?;
            let hook = Hook::Interface(direction);
            let ran = pod.bed.run(hook, &packet.frame(), made_here, 1)?;
            let what = format!("step {at}, {direction:?}, {packet:?}");
            ensure!(ran.passes == reason.is_none(), "{what}: {ran:?}");
            if let Some((reason, before)) = reason.zip(before) {
                let now = dropped(&pod, reason)?;
                ensure!(now == before + 1, "{what}: not because of {reason:?}");
            }
        }
    }
    Ok(())
}

const DENIED: Option<Reason> = Some(Reason::DefaultDeny);
const MALFORMED: Option<Reason> = Some(Reason::Malformed);
const FRAGMENT: Option<Reason> = Some(Reason::Fragment);
const PASSES: Option<Reason> = None;

/// Of TCP; the last one is of none.
const FLAGS: [u8; 6] = [ACK, RST, RST | ACK, SYN | ACK, FIN, 0];

#[test]
fn the_peers_address_is_not_the_pods() -> Result<()> {
    takes("spoofed", |ends| {
        let spoofed = |packet| (Egress, packet, Some(Reason::SpoofedSource));
        vec![
            spoofed(ends.back().tcp(PEER_PORT, PORT, SYN)),
            spoofed(ends.back().udp(PEER_PORT, PORT)),
            spoofed(ends.back().protocol(47, vec![0; 12])),
        ]
    })
}

/// Linux takes what its own address of the link sends over a wire in IPv6, and what 0.0.0.0 sends to itself.
#[test]
fn the_routers_address_is_not_the_pods_even_where_it_is_both_ends() -> Result<()> {
    takes("router", |_| {
        let mut router = [0; 16];
        (router[0], router[1], router[15]) = (0xfe, 0x80, 1);
        let gateway = [169, 254, 1, 1];
        let spoofed = |packet| (Egress, packet, Some(Reason::SpoofedSource));
        [
            PacketBuilder::v6(router, router),
            PacketBuilder::v4(gateway, gateway),
            PacketBuilder::v4([0; 4], [0; 4]),
        ]
        .map(|packet| spoofed(packet.udp(PEER_PORT, PORT)))
        .to_vec()
    })
}

#[test]
fn a_scan_finds_no_closed_port() -> Result<()> {
    takes("scan", |ends| {
        let scan = |flags| (Ingress, ends.back().tcp(PEER_PORT, OTHER, flags), DENIED);
        FLAGS.map(scan).to_vec()
    })
}

#[test]
fn an_open_port_is_no_source_of_segments() -> Result<()> {
    takes("reverse", |ends| {
        let sent = |flags| (Egress, ends.out().tcp(PORT, PEER_PORT, flags), DENIED);
        let mut steps = FLAGS.map(sent).to_vec();
        steps.push(sent(SYN));
        steps
    })
}

#[test]
fn a_udp_port_answers_and_starts_nothing() -> Result<()> {
    takes("udp", |ends| {
        let answer = |port| ends.out().udp(PORT, port);
        vec![
            (Egress, answer(PEER_PORT), DENIED),
            (Ingress, ends.back().udp(PEER_PORT, PORT), PASSES),
            (Egress, answer(PEER_PORT), PASSES),
            (Egress, answer(PEER_PORT + 1), DENIED),
        ]
    })
}

#[test]
fn who_answered_begins_nothing_with_the_ports_of_the_connection() -> Result<()> {
    takes("reuse", |ends| {
        let asks = |flags| (Ingress, ends.back().tcp(PEER_PORT, PORT, flags), PASSES);
        let answers = |flags| (Egress, ends.out().tcp(PORT, PEER_PORT, flags), PASSES);
        let begins = (Egress, ends.out().tcp(PORT, PEER_PORT, SYN), DENIED);
        vec![
            asks(SYN),
            begins.clone(),
            answers(SYN | ACK),
            asks(ACK),
            begins.clone(),
            answers(ACK),
            asks(FIN | ACK),
            answers(FIN | ACK),
            asks(ACK),
            begins,
            // The peer may use its port again.
            asks(SYN),
            answers(SYN | ACK),
        ]
    })
}

#[test]
fn ports_are_found_behind_whatever_stands_before_them() -> Result<()> {
    takes("forms", |ends| {
        let to = |port| ends.back().udp(PEER_PORT, port);
        let mut shapes: Vec<fn(PacketBuilder) -> PacketBuilder> = vec![
            |packet| packet.options(1),
            |packet| packet.options(10),
            |packet| packet.fragment(0, false),
        ];
        shapes.extend([
            (|packet| packet.extension(HOP_BY_HOP, 1)) as fn(PacketBuilder) -> PacketBuilder,
            |packet| packet.extension(ROUTING, 1).extension(ROUTING, 0),
            |packet| {
                let packet = packet.extension(HOP_BY_HOP, 0);
                packet.extension(AUTHENTICATION, 1).extension(ROUTING, 1)
            },
            |packet| (0..4).fold(packet, |packet, _| packet.extension(DESTINATION_OPTIONS, 2)),
        ]);
        let judged = shapes.into_iter().flat_map(|shape| {
            [
                (Ingress, shape(to(PORT)), PASSES),
                (Ingress, shape(to(OTHER)), DENIED),
            ]
        });
        judged.collect()
    })
}

#[test]
fn a_fifth_extension_header_is_too_many() -> Result<()> {
    let mut pod = Pod::new("extensions", POLICY)?;
    let [_, ends] = Ends::ALL;
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION] {
        let packet = ends.back().udp(PEER_PORT, PORT);
        let packet = (0..5).fold(packet, |packet, _| packet.extension(kind, 0));
        let before = dropped(&pod, Reason::ExtensionHeader)?;
        let ran = pod
            .bed
            .run(Hook::Interface(Ingress), &packet.frame(), false, 1)?;
        ensure!(!ran.passes, "{packet:?}");
        ensure!(dropped(&pod, Reason::ExtensionHeader)? == before + 1);
    }
    Ok(())
}

#[test]
fn what_is_no_packet_is_dropped() -> Result<()> {
    takes("malformed", |ends| {
        let to = || ends.back().udp(PEER_PORT, PORT);
        let segment = || ends.back().tcp(PEER_PORT, PORT, SYN);
        // Test runs take no packet that ends within its network header (6.17 and later).
        let transport = 14 + to().packet().len() - 8;
        vec![
            (Ingress, to().version_and_length(0x75), MALFORMED),
            (Ingress, to().version_and_length(0x05), MALFORMED),
            (Ingress, to().cut(transport + 3), MALFORMED),
            (Ingress, segment().cut(transport + 13), MALFORMED),
        ]
    })
}

#[test]
fn another_protocol_needs_a_rule_of_its_own() -> Result<()> {
    takes("protocols", |ends| {
        let inner = ends.back().udp(PEER_PORT, PORT).packet();
        let is_v4 = inner[0] >> 4 == 4;
        let of_other = if is_v4 { ICMPV6 } else { ICMP };
        let mut numbers = vec![4, 41, 47, of_other];
        if is_v4 {
            numbers.extend([0, AUTHENTICATION]);
        }
        let carries = |number| ends.back().protocol(number, inner.clone());
        let steps = numbers
            .into_iter()
            .map(|number| (Ingress, carries(number), DENIED));
        steps.collect()
    })
}

#[test]
fn no_piece_replaces_what_the_first_one_said() -> Result<()> {
    takes("pieces", |ends| {
        let to = |port, number| {
            let packet = ends.back().udp(PEER_PORT, port).payload(16);
            packet.numbered(number)
        };
        let tiny = ends.back().protocol(TCP, vec![0; 8]);
        vec![
            (Ingress, to(PORT, 1).fragment(3, false), FRAGMENT),
            (Ingress, to(PORT, 1).fragment(0, true), PASSES),
            (Ingress, to(OTHER, 1).fragment(1, true), FRAGMENT),
            (Ingress, to(OTHER, 1).fragment(0, true), DENIED),
            (Ingress, to(OTHER, 1).fragment(3, false), PASSES),
            (Ingress, to(OTHER, 2).fragment(0, true), DENIED),
            (Ingress, to(PORT, 2).fragment(3, false), FRAGMENT),
            (Ingress, tiny.fragment(0, true), MALFORMED),
        ]
    })
}
