//! A flow record as one of Hubble's flows.
//!
//! One record is at most one flow. Cilium's datapath tells of the same packet several times: what policy says of it, and what
//! became of it. So a record has more than one [`Shape`], and a client gets the first one that passes its filters:
//! whoever asks for drops gets drops, and nobody gets a denial twice.

use std::net::IpAddr;

use agent_common::verdict::Reason;
use agent_hubble_proto::flow::{
    self as wire, CiliumEventType, DropReason, Emitter, Flow, FlowType, IcmPv4, IcmPv6, Igmp, Ip,
    IpVersion, Layer4, NetworkInterface, Policy, Sctp, Tcp, TcpFlags, TraceObservationPoint,
    TraceReason, TrafficDirection, Udp, Vrrp, layer4,
};
use prost_types::Timestamp;
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
};

use super::{Home, PRODUCT, VERSION, endpoint, summary};
use crate::flow::{
    clock::WallTime,
    record::{Direction, End, Kind, Record, RuleRef, Verdict, WouldBe},
};

/// Numbers of [`CiliumEventType::type`].
const DROP: i32 = 1;
const TRACE: i32 = 4;
const POLICY_VERDICT: i32 = 5;

/// Of traces, as [`CiliumEventType::sub_type`] counts them: other numbers than those of [`TraceObservationPoint`].
const TO_ENDPOINT: i32 = 0;
const TO_NETWORK: i32 = 11;

/// By peer and by port: our rules are about both, though either may be any.
const L3_L4: u32 = 2;

/// Who tells of flows.
#[derive(Debug)]
pub(super) struct Teller {
    home: Home,
    /// With its cluster.
    pub(super) node_name: String,
    /// By which interfaces are asked for their names.
    socket: Option<OwnedFd>,
}

/// As what a record is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// What policy says.
    Verdict,
    /// What policies that decide nothing yet say.
    Audit,
    Drop,
    Trace,
}

/// When it was, as far as the record tells.
pub(super) fn time(record: &Record) -> WallTime {
    record.end.unwrap_or(record.start)
}

pub(super) fn timestamp(time: WallTime) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1_000_000_000),
        nanos: i32::try_from(time.0.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// The first one is told unless it is not asked for.
pub(super) fn shapes(record: &Record) -> &'static [Shape] {
    match record.kind {
        Kind::Deny if is_by_policy(record) => &[Shape::Verdict, Shape::Drop],
        Kind::Deny => &[Shape::Drop],
        Kind::Start | Kind::Update if denial_to_be(record).is_some() => {
            &[Shape::Audit, Shape::Trace]
        }
        // Where no rule has decided, policy has said nothing.
        Kind::Start if is_because(record, Reason::Rule) => &[Shape::Verdict, Shape::Trace],
        Kind::Start | Kind::Update | Kind::End => &[Shape::Trace],
    }
}

impl Teller {
    pub(super) fn new(home: &Home) -> Self {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        );
        Self {
            home: home.clone(),
            node_name: home.node_name(),
            socket: socket.ok(),
        }
    }

    /// What all shapes of a record have in common.
    pub(super) fn flow(&self, record: &Record) -> Flow {
        Flow {
            time: Some(timestamp(time(record))),
            ip: ip(record),
            l4: layer4(record),
            source: Some(endpoint::of(&record.src, &self.home)),
            destination: Some(endpoint::of(&record.dst, &self.home)),
            r#type: FlowType::L3L4.into(),
            node_name: self.node_name.clone(),
            source_names: names(&record.src),
            destination_names: names(&record.dst),
            destination_service: endpoint::service(&record.dst),
            traffic_direction: match record.direction {
                Direction::Ingress => TrafficDirection::Ingress.into(),
                Direction::Egress => TrafficDirection::Egress.into(),
            },
            interface: record.ifindex.map(|index| NetworkInterface {
                index,
                name: self.interface(index),
            }),
            cgroup_id: record.process.as_ref().map_or(0, |it| it.cgroup_id),
            uuid: uuid(record),
            emitter: Some(Emitter {
                name: PRODUCT.to_owned(),
                version: VERSION.to_owned(),
            }),
            policy_log: record.would_be.iter().map(opinion).collect(),
            summary: summary::of(record),
            ..Flow::default()
        }
    }

    /// As it is called now.
    fn interface(&self, index: u32) -> String {
        let socket = self.socket.as_ref();
        let name = socket.map(|socket| netdevice::index_to_name(socket, index));
        name.and_then(Result::ok).unwrap_or_default()
    }
}

/// Hubble's UI leaves out flows that have a name beside a Service.
fn names(end: &End) -> Vec<String> {
    let name = end
        .dns_name
        .iter()
        .filter(|_| endpoint::service(end).is_none());
    name.map(ToString::to_string).collect()
}

impl Shape {
    /// Makes `flow`, which may have had another shape, one of this shape.
    pub(super) fn dress(self, flow: &mut Flow, record: &Record) {
        let denied = denied_because(record);
        let (verdict, kind, sub_kind) = match (self, denied) {
            (Self::Verdict, Some(_)) => (wire::Verdict::Dropped, POLICY_VERDICT, 0),
            (Self::Verdict, None) => (wire::Verdict::Forwarded, POLICY_VERDICT, 0),
            (Self::Audit, _) => (wire::Verdict::Audit, POLICY_VERDICT, 0),
            // Readers take the text from here.
            (Self::Drop, reason) => (wire::Verdict::Dropped, DROP, reason.map_or(0, i32::from)),
            (Self::Trace, _) => (wire::Verdict::Forwarded, TRACE, observed(record).0),
        };
        flow.verdict = verdict.into();
        flow.event_type = Some(CiliumEventType {
            r#type: kind,
            sub_type: sub_kind,
        });
        let reason = denied.unwrap_or(DropReason::Unknown);
        flow.drop_reason_desc = reason.into();
        flow.drop_reason = u32::try_from(flow.drop_reason_desc).unwrap_or_default();
        // What is dropped is no reply to anything, and whoever reads it expects nothing here.
        flow.is_reply = denied.is_none().then_some(false);
        flow.policy_match_type = if self == Self::Verdict && record.policy.is_some() {
            L3_L4
        } else {
            0
        };
        let (point, trace_reason) = if self == Self::Trace {
            (observed(record).1, trace_reason(record))
        } else {
            (TraceObservationPoint::UnknownPoint, TraceReason::Unknown)
        };
        flow.trace_observation_point = point.into();
        flow.trace_reason = trace_reason.into();

        let (allowed, denied) = match self {
            Self::Audit => {
                let rule = denial_to_be(record).and_then(|view| view.policy.as_deref());
                (Vec::new(), rules(rule, record))
            }
            Self::Drop | Self::Verdict if denied.is_some() => {
                (Vec::new(), rules(record.policy.as_deref(), record))
            }
            Self::Drop | Self::Verdict | Self::Trace => {
                (rules(record.policy.as_deref(), record), Vec::new())
            }
        };
        let (ingress, egress) = match record.direction {
            Direction::Ingress => ((allowed, denied), Default::default()),
            Direction::Egress => (Default::default(), (allowed, denied)),
        };
        (flow.ingress_allowed_by, flow.ingress_denied_by) = ingress;
        (flow.egress_allowed_by, flow.egress_denied_by) = egress;
    }
}

fn is_because(record: &Record, reason: Reason) -> bool {
    record.reason.as_deref() == Some(reason.name())
}

fn dropped_because(record: &Record) -> Option<Reason> {
    let name = record.drop_reason.as_deref()?;
    let mut all = Reason::ALL.iter().copied();
    all.find(|reason| reason.name() == name)
}

fn is_by_policy(record: &Record) -> bool {
    matches!(
        dropped_because(record),
        Some(Reason::DefaultDeny | Reason::DenyRule | Reason::Revoked | Reason::StaleSchedule)
    )
}

/// `None` if it was not dropped.
fn denied_because(record: &Record) -> Option<DropReason> {
    if record.kind != Kind::Deny {
        return None;
    }
    Some(match dropped_because(record) {
        // A rule says so.
        Some(Reason::DenyRule) => DropReason::PolicyDeny,
        Some(Reason::Revoked) if record.policy.is_some() => DropReason::PolicyDeny,
        Some(Reason::DefaultDeny | Reason::Revoked | Reason::StaleSchedule) => {
            DropReason::PolicyDenied
        }
        Some(Reason::SpoofedSource | Reason::SpoofedNeighbour) => DropReason::InvalidSourceIp,
        Some(Reason::NoState) => DropReason::UnknownConnectionTrackingState,
        Some(Reason::NotProgrammed) => DropReason::DropEpNotReady,
        Some(Reason::RogueRouter) => DropReason::ForbiddenIcmpv6Message,
        // Of another version.
        Some(_) | None => DropReason::InvalidPacketDropped,
    })
}

/// The first view that would not have let it through.
fn denial_to_be(record: &Record) -> Option<&WouldBe> {
    let mut views = record.would_be.iter();
    views.find(|view| record.verdict == Verdict::Allow && view.verdict == Verdict::Deny)
}

fn opinion(view: &WouldBe) -> String {
    let WouldBe {
        view,
        verdict,
        policy,
        reason,
    } = view;
    let (view, verdict) = (view.name(), verdict.name());
    match policy {
        Some(rule) => format!("{view}: {verdict} by {rule}"),
        None => format!("{view}: {verdict} ({reason})"),
    }
}

/// Where the packet went on to: the endpoint, or away from it.
fn observed(record: &Record) -> (i32, TraceObservationPoint) {
    match record.direction {
        Direction::Ingress => (TO_ENDPOINT, TraceObservationPoint::ToEndpoint),
        Direction::Egress => (TO_NETWORK, TraceObservationPoint::ToNetwork),
    }
}

fn trace_reason(record: &Record) -> TraceReason {
    match record.kind {
        // Found in the middle: it is not new.
        Kind::Start if record.initiator_known => TraceReason::New,
        Kind::Start | Kind::Update | Kind::End | Kind::Deny => TraceReason::Established,
    }
}

fn rules(rule: Option<&RuleRef>, record: &Record) -> Vec<Policy> {
    let Some(rule) = rule else { return Vec::new() };
    let said = [
        Some(("rule", &*rule.rule)),
        rule.rule_name.as_deref().map(|name| ("rule-name", name)),
        rule.tier.as_deref().map(|tier| ("tier", tier)),
    ];
    let labels = said.into_iter().flatten();
    vec![Policy {
        name: rule.name.clone(),
        namespace: rule.namespace.clone().unwrap_or_default(),
        labels: labels
            .map(|(key, value)| format!("{PRODUCT}:{key}={value}"))
            .collect(),
        revision: record.generation.unwrap_or_default().into(),
        kind: rule.kind.to_string(),
    }]
}

/// Without one of the addresses where a sum of denials does not say it.
fn ip(record: &Record) -> Option<Ip> {
    let (source, destination) = (record.src.ip, record.dst.ip);
    let version = match source.or(destination)? {
        IpAddr::V4(_) => IpVersion::IPv4,
        IpAddr::V6(_) => IpVersion::IPv6,
    };
    // As RFC 5952 has it, by which clients compare.
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |it| it.to_string());
    Some(Ip {
        source: text(source),
        destination: text(destination),
        ip_version: version.into(),
        ..Ip::default()
    })
}

fn layer4(record: &Record) -> Option<Layer4> {
    let port = |port: Option<u16>| port.unwrap_or_default().into();
    let (source_port, destination_port) = (port(record.src.port), port(record.dst.port));
    let icmp = || record.icmp.map_or((0, 0), |it| (it.kind, it.code));
    let protocol = match record.protocol.number {
        6 => layer4::Protocol::Tcp(Tcp {
            source_port,
            destination_port,
            flags: record.forward.tcp_flags.map(flags),
        }),
        17 => layer4::Protocol::Udp(Udp {
            source_port,
            destination_port,
        }),
        132 => layer4::Protocol::Sctp(Sctp {
            source_port,
            destination_port,
        }),
        1 => layer4::Protocol::IcmPv4(IcmPv4 {
            r#type: icmp().0.into(),
            code: icmp().1.into(),
        }),
        58 => layer4::Protocol::IcmPv6(IcmPv6 {
            r#type: icmp().0.into(),
            code: icmp().1.into(),
        }),
        112 => layer4::Protocol::Vrrp(Vrrp::default()),
        2 => layer4::Protocol::Igmp(Igmp::default()),
        _ => return None,
    };
    Some(Layer4 {
        protocol: Some(protocol),
    })
}

fn flags(bits: u8) -> TcpFlags {
    let has = |bit: u8| bits & bit != 0;
    TcpFlags {
        fin: has(0x01),
        syn: has(0x02),
        rst: has(0x04),
        psh: has(0x08),
        ack: has(0x10),
        urg: has(0x20),
        ece: has(0x40),
        cwr: has(0x80),
        ns: false,
    }
}

/// By RFC 9562, version 8: the flow's number, and that of the record.
fn uuid(record: &Record) -> String {
    let flow = record.flow_id.0;
    let (high, middle, low) = (flow >> 16, flow >> 4 & 0xfff, flow & 0xf);
    let record = record.seq & ((1 << 58) - 1);
    let last = 0b10 << 62 | low << 58 | record;
    format!(
        "{:08x}-{:04x}-8{middle:03x}-{:04x}-{:012x}",
        high >> 16,
        high & 0xffff,
        last >> 48,
        last & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests;
