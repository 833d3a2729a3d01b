//! A flow record as information elements.
//!
//! What a record does not have, its template does not name: groups of elements come and go, and nothing is made up. No text
//! is empty: there are collectors that take a record with such a one for a broken one.
//!
//! The order counts: nfdump takes the last flags of TCP that a template names for those of the way there, so that those of
//! the way back come before them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use agent_common::protocol::ICMPV6;

use super::{
    element::{Element, Get},
    table::{Group, Table, TemplateSet},
};
use crate::flow::{
    record::{
        Direction, End, EndReason, Kind, ProcessRef, Record, RuleRef, Traffic, Verdict, Via,
        WorkloadRef, WouldBe,
    },
    views::View,
};

pub(super) static FLOW: Table<Record> = Table {
    name: "flow",
    set: TemplateSet::Template,
    groups: &[
        Group::of(
            |r| v4(&r.src).is_some(),
            &[Element::iana(
                8,
                "sourceIPv4Address",
                Get::V4(|r| v4(&r.src).unwrap_or(Ipv4Addr::UNSPECIFIED)),
            )],
        ),
        Group::of(
            |r| v6(&r.src).is_some(),
            &[Element::iana(
                27,
                "sourceIPv6Address",
                Get::V6(|r| v6(&r.src).unwrap_or(Ipv6Addr::UNSPECIFIED)),
            )],
        ),
        Group::of(
            |r| v4(&r.dst).is_some(),
            &[Element::iana(
                12,
                "destinationIPv4Address",
                Get::V4(|r| v4(&r.dst).unwrap_or(Ipv4Addr::UNSPECIFIED)),
            )],
        ),
        Group::of(
            |r| v6(&r.dst).is_some(),
            &[Element::iana(
                28,
                "destinationIPv6Address",
                Get::V6(|r| v6(&r.dst).unwrap_or(Ipv6Addr::UNSPECIFIED)),
            )],
        ),
        Group::of(
            |r| r.src.port.is_some(),
            &[Element::iana(
                7,
                "sourceTransportPort",
                Get::U16(|r| r.src.port.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| r.dst.port.is_some(),
            &[Element::iana(
                11,
                "destinationTransportPort",
                Get::U16(|r| r.dst.port.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| r.reverse.tcp_flags.is_some(),
            &[Element::reverse(
                6,
                "reverseTcpControlBits",
                Get::U16(|r| flags(&r.reverse)),
            )],
        ),
        Group::of(
            |r| r.forward.tcp_flags.is_some() || r.reverse.tcp_flags.is_some(),
            &[Element::iana(
                6,
                "tcpControlBits",
                Get::U16(|r| flags(&r.forward)),
            )],
        ),
        Group::of(
            |r| r.icmp.is_some() && r.protocol.number != ICMPV6,
            &[Element::iana(32, "icmpTypeCodeIPv4", Get::U16(icmp))],
        ),
        Group::of(
            |r| r.icmp.is_some() && r.protocol.number == ICMPV6,
            &[Element::iana(139, "icmpTypeCodeIPv6", Get::U16(icmp))],
        ),
        Group::always(&[
            Element::iana(4, "protocolIdentifier", Get::U8(|r, _| r.protocol.number)),
            Element::iana(152, "flowStartMilliseconds", Get::Time(|r| r.start)),
            // Without it, nfdump takes the flow to have ended in 1970.
            Element::iana(
                153,
                "flowEndMilliseconds",
                Get::Time(|r| r.end.unwrap_or(r.start)),
            ),
            Element::iana(61, "flowDirection", Get::U8(|r, _| direction(r.direction))),
            Element::iana(1, "octetDeltaCount", Get::U64(|r| r.forward.bytes)),
            Element::iana(2, "packetDeltaCount", Get::U64(|r| r.forward.packets)),
            Element::reverse(1, "reverseOctetDeltaCount", Get::U64(|r| r.reverse.bytes)),
            Element::reverse(
                2,
                "reversePacketDeltaCount",
                Get::U64(|r| r.reverse.packets),
            ),
            // 0 is arbitrary, 1 by the initiator.
            Element::iana(
                239,
                "biflowDirection",
                Get::U8(|r, _| u8::from(r.initiator_known)),
            ),
            Element::iana(89, "forwardingStatus", Get::U8(|r, _| verdict(r.verdict))),
            Element::iana(233, "firewallEvent", Get::U8(|r, _| event(r.kind))),
            Element::iana(148, "flowId", Get::U64(|r| r.flow_id.0)),
            Element::identifier(1, "ringfenceSchemaVersion", Get::U16(|r| r.schema_version)),
            Element::identifier(2, "ringfenceRecordSequence", Get::U64(|r| r.seq)),
            Element::own(3, "ringfenceNode", Get::Text(|r| (&*r.node).into())),
            Element::own(
                4,
                "ringfenceAgentVersion",
                Get::Text(|r| (&*r.agent_version).into()),
            ),
            Element::own(5, "ringfenceTextLimit", Get::U8(|_, context| context.text)),
            Element::own(10, "ringfenceDefaultDeny", Get::Bool(|r| r.default_deny)),
        ]),
        Group::text(&[Element::own(
            14,
            "ringfenceCluster",
            Get::Text(|r| known(r.cluster.as_ref())),
        )]),
        Group::text(&[Element::own(
            6,
            "ringfenceCommunityId",
            Get::Text(|r| known(r.community_id.as_ref())),
        )]),
        Group::text(&[Element::own(
            7,
            "ringfenceEndpoint",
            Get::Text(|r| known(r.endpoint.as_ref())),
        )]),
        Group::text(&[Element::own(
            8,
            "ringfenceReason",
            Get::Text(|r| known(r.reason.as_ref())),
        )]),
        Group::text(&[Element::own(
            9,
            "ringfenceDropReason",
            Get::Text(|r| known(r.drop_reason.as_ref())),
        )]),
        Group::of(
            |r| r.end_reason.is_some(),
            &[
                Element::iana(
                    136,
                    "flowEndReason",
                    Get::U8(|r, _| r.end_reason.map_or(0, end_reason)),
                ),
                Element::own(
                    11,
                    "ringfenceEndReason",
                    Get::Text(|r| r.end_reason.map_or("", EndReason::name).into()),
                ),
            ],
        ),
        Group::of(
            |r| r.ifindex.is_some() && r.direction == Direction::Ingress,
            &[Element::iana(
                10,
                "ingressInterface",
                Get::U32(|r, _| r.ifindex.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| r.ifindex.is_some() && r.direction == Direction::Egress,
            &[Element::iana(
                14,
                "egressInterface",
                Get::U32(|r, _| r.ifindex.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| r.generation.is_some(),
            &[Element::identifier(
                12,
                "ringfenceGeneration",
                Get::U32(|r, _| r.generation.unwrap_or_default()),
            )],
        ),
        // One flow, and then so many that are passed over.
        Group::of(
            |r| r.sampling.is_some(),
            &[
                Element::iana(396, "samplingFlowInterval", Get::U64(|_| 1)),
                Element::iana(
                    397,
                    "samplingFlowSpacing",
                    Get::U64(|r| r.sampling.map_or(0, |one_in| u64::from(one_in.get()) - 1)),
                ),
            ],
        ),
        Group::of(
            |r| r.rtt_us.is_some(),
            &[Element::own(
                13,
                "ringfenceRoundTripMicroseconds",
                Get::U32(|r, _| r.rtt_us.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| r.policy.is_some(),
            &[
                Element::own(
                    20,
                    "ringfencePolicyKind",
                    Get::Text(|r| rule(r, |it| Some(&it.kind))),
                ),
                Element::own(
                    22,
                    "ringfencePolicyName",
                    Get::Text(|r| rule(r, |it| Some(&it.name))),
                ),
                Element::own(
                    23,
                    "ringfencePolicyRule",
                    Get::Text(|r| rule(r, |it| Some(&it.rule))),
                ),
                Element::identifier(
                    24,
                    "ringfencePolicyRuleId",
                    Get::U32(|r, _| r.policy.as_ref().map_or(0, |it| it.rule_id)),
                ),
            ],
        ),
        Group::text(&[Element::own(
            21,
            "ringfencePolicyNamespace",
            Get::Text(|r| rule(r, |it| it.namespace.as_deref())),
        )]),
        Group::text(&[Element::own(
            25,
            "ringfencePolicyTier",
            Get::Text(|r| rule(r, |it| it.tier.as_deref())),
        )]),
        Group::text(&[Element::own(
            26,
            "ringfencePolicyRuleName",
            Get::Text(|r| rule(r, |it| it.rule_name.as_deref())),
        )]),
        Group::text(&[Element::own(
            27,
            "ringfencePolicyReason",
            Get::Text(|r| rule(r, |it| it.reason.as_deref())),
        )]),
        Group::text(&[Element::own(
            28,
            "ringfencePolicyApprovedBy",
            Get::Text(|r| rule(r, |it| it.approved_by.as_deref())),
        )]),
        Group::text(&[Element::own(
            29,
            "ringfencePolicyOwner",
            Get::Text(|r| rule(r, |it| it.owner.as_deref())),
        )]),
        Group::of(
            |r| r.policy_revision.is_some(),
            &[Element::own(
                66,
                "ringfencePolicyRevision",
                Get::U64(|r| r.policy_revision.unwrap_or_default()),
            )],
        ),
        Group::of(
            |r| opinion(r, View::Audit).is_some(),
            &[
                Element::own(
                    30,
                    "ringfenceAuditStatus",
                    Get::U8(|r, _| opinion_verdict(r, View::Audit)),
                ),
                Element::own(
                    31,
                    "ringfenceAuditReason",
                    Get::Text(|r| opinion_reason(r, View::Audit)),
                ),
            ],
        ),
        Group::text(&[Element::own(
            32,
            "ringfenceAuditPolicy",
            Get::Text(|r| opinion_policy(r, View::Audit)),
        )]),
        Group::of(
            |r| opinion(r, View::Staged).is_some(),
            &[
                Element::own(
                    33,
                    "ringfenceStagedStatus",
                    Get::U8(|r, _| opinion_verdict(r, View::Staged)),
                ),
                Element::own(
                    34,
                    "ringfenceStagedReason",
                    Get::Text(|r| opinion_reason(r, View::Staged)),
                ),
            ],
        ),
        Group::text(&[Element::own(
            35,
            "ringfenceStagedPolicy",
            Get::Text(|r| opinion_policy(r, View::Staged)),
        )]),
        Group::of(
            |r| r.process.is_some(),
            &[
                Element::identifier(
                    40,
                    "ringfenceProcessId",
                    Get::U32(|r, _| process(r, |it| it.pid)),
                ),
                Element::identifier(
                    42,
                    "ringfenceProcessUser",
                    Get::U32(|r, _| process(r, |it| it.uid)),
                ),
                Element::identifier(
                    43,
                    "ringfenceCgroupId",
                    Get::U64(|r| process(r, |it| it.cgroup_id)),
                ),
            ],
        ),
        // It may call itself nothing.
        Group::text(&[Element::own(
            41,
            "ringfenceProcessName",
            Get::Text(|r| known(r.process.as_ref().map(|it| &it.comm))),
        )]),
        Group::text(&[Element::own(
            44,
            "ringfenceCgroup",
            Get::Text(|r| known(r.process.as_ref().and_then(|it| it.cgroup.as_ref()))),
        )]),
        Group::text(&[Element::own(45, "ringfenceProcessVia", Get::Text(via))]),
        Group::text(&[Element::own(
            47,
            "ringfenceProcessExecutable",
            Get::Text(|r| known(r.process.as_ref().and_then(|it| it.exe.as_ref()))),
        )]),
        Group::text(&[Element::own(
            48,
            "ringfenceContainerId",
            Get::Text(|r| known(r.process.as_ref().and_then(|it| it.container_id.as_ref()))),
        )]),
        Group::of(
            |r| r.process.as_ref().is_some_and(|it| it.start_time.is_some()),
            &[Element::own(
                46,
                "ringfenceProcessStart",
                Get::Time(|r| process(r, |it| it.start_time.unwrap_or_default())),
            )],
        ),
        Group::of(
            |r| r.src.workload.is_some(),
            &[
                Element::own(
                    51,
                    "ringfenceSourceName",
                    Get::Text(|r| workload(&r.src, |it| &it.name)),
                ),
                Element::own(
                    52,
                    "ringfenceSourceKind",
                    Get::Text(|r| workload(&r.src, |it| &it.kind)),
                ),
            ],
        ),
        Group::text(&[Element::own(
            50,
            "ringfenceSourceNamespace",
            Get::Text(|r| workload(&r.src, |it| &it.namespace)),
        )]),
        Group::text(&[Element::own(
            53,
            "ringfenceSourceLabels",
            Get::LongText(|r, most| labels(&r.src, most)),
        )]),
        Group::text(&[Element::own(
            55,
            "ringfenceSourceOwner",
            Get::Text(|r| owner(&r.src)),
        )]),
        Group::text(&[Element::own(
            54,
            "ringfenceSourceDnsName",
            Get::Text(|r| known(r.src.dns_name.as_ref())),
        )]),
        Group::of(
            |r| r.dst.workload.is_some(),
            &[
                Element::own(
                    61,
                    "ringfenceDestinationName",
                    Get::Text(|r| workload(&r.dst, |it| &it.name)),
                ),
                Element::own(
                    62,
                    "ringfenceDestinationKind",
                    Get::Text(|r| workload(&r.dst, |it| &it.kind)),
                ),
            ],
        ),
        Group::text(&[Element::own(
            60,
            "ringfenceDestinationNamespace",
            Get::Text(|r| workload(&r.dst, |it| &it.namespace)),
        )]),
        Group::text(&[Element::own(
            63,
            "ringfenceDestinationLabels",
            Get::LongText(|r, most| labels(&r.dst, most)),
        )]),
        Group::text(&[Element::own(
            65,
            "ringfenceDestinationOwner",
            Get::Text(|r| owner(&r.dst)),
        )]),
        Group::text(&[Element::own(
            64,
            "ringfenceDestinationDnsName",
            Get::Text(|r| known(r.dst.dns_name.as_ref())),
        )]),
        Group::text(&[Element::own(
            67,
            "ringfenceDestinationService",
            Get::Text(|r| known(r.dst.service.as_ref())),
        )]),
    ],
};

fn v4(end: &End) -> Option<Ipv4Addr> {
    match end.ip? {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(end: &End) -> Option<Ipv6Addr> {
    match end.ip? {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

fn flags(traffic: &Traffic) -> u16 {
    traffic.tcp_flags.unwrap_or_default().into()
}

fn icmp(record: &Record) -> u16 {
    record
        .icmp
        .map_or(0, |icmp| u16::from_be_bytes([icmp.kind, icmp.code]))
}

fn direction(direction: Direction) -> u8 {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    }
}

/// Forwarded, for a reason that has no number; dropped, by an access list.
fn verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Allow => 64,
        Verdict::Deny => 129,
    }
}

fn event(kind: Kind) -> u8 {
    match kind {
        Kind::Start => 1,
        Kind::End => 2,
        Kind::Deny => 3,
        Kind::Update => 5,
    }
}

fn end_reason(reason: EndReason) -> u8 {
    match reason {
        EndReason::Idle => 1,
        EndReason::Active => 2,
        EndReason::Fin | EndReason::Rst => 3,
        EndReason::Revoked | EndReason::Forced => 4,
    }
}

fn known<T: AsRef<str> + ?Sized>(text: Option<&T>) -> Cow<'_, str> {
    Cow::Borrowed(text.map_or("", AsRef::as_ref))
}

fn rule(record: &Record, get: fn(&RuleRef) -> Option<&str>) -> Cow<'_, str> {
    known(record.policy.as_deref().and_then(get))
}

fn process<T: Default>(record: &Record, get: fn(&ProcessRef) -> T) -> T {
    record.process.as_ref().map(get).unwrap_or_default()
}

fn via(record: &Record) -> Cow<'_, str> {
    let via = record.process.as_ref().and_then(|it| it.via);
    Cow::Borrowed(match via {
        Some(Via::Listener) => "listener",
        None => "",
    })
}

fn workload(end: &End, get: fn(&WorkloadRef) -> &str) -> Cow<'_, str> {
    known(end.workload.as_deref().map(get))
}

fn owner(end: &End) -> Cow<'_, str> {
    known(end.workload.as_ref().and_then(|it| it.owner.as_ref()))
}

/// `KEY=VALUE`, with commas between them; only whole ones, unless there is room for none.
fn labels(end: &End, most: usize) -> String {
    let none = BTreeMap::new();
    let labels = end.workload.as_ref().map_or(&none, |it| &it.labels);
    let mut text = String::new();
    for (key, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let length = comma.len() + key.len() + "=".len() + value.len();
        if !text.is_empty() && text.len() + length > most {
            break;
        }
        for part in [comma, key, "=", value] {
            text.push_str(part);
        }
    }
    text
}

fn opinion(record: &Record, view: View) -> Option<&WouldBe> {
    record.would_be.iter().find(|it| it.view == view)
}

fn opinion_verdict(record: &Record, view: View) -> u8 {
    opinion(record, view).map_or(0, |it| verdict(it.verdict))
}

fn opinion_reason(record: &Record, view: View) -> Cow<'_, str> {
    known(opinion(record, view).map(|it| &it.reason))
}

/// As people read it: its kind, and where it stands.
fn opinion_policy(record: &Record, view: View) -> Cow<'_, str> {
    let policy = opinion(record, view).and_then(|it| it.policy.as_ref());
    policy.map_or(Cow::Borrowed(""), |policy| {
        Cow::Owned(format!("{} {policy}", policy.kind))
    })
}
