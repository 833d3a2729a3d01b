//! What clients read of records.

use agent_hubble_proto::flow::Verdict as Told;

use super::*;
use crate::hubble::tests::{record, told};

/// Of the first shape: verdict, event type, is it a reply, reason of a drop.
fn seen(change: impl FnOnce(&mut Record)) -> (Told, (i32, i32), Option<bool>, i32) {
    let flow = told(&record(change)).remove(0);
    let event = flow.event_type.unwrap();
    assert_eq!(flow.drop_reason, flow.drop_reason_desc.unsigned_abs());
    (
        flow.verdict(),
        (event.r#type, event.sub_type),
        flow.is_reply,
        flow.drop_reason_desc,
    )
}

fn deny(reason: &'static str) -> impl FnOnce(&mut Record) {
    move |record| {
        record.kind = Kind::Deny;
        record.verdict = Verdict::Deny;
        record.reason = None;
        record.drop_reason = Some(reason.into());
        record.policy = record.policy.take().filter(|_| reason == "deny-rule");
    }
}

#[test]
fn each_kind_of_record_is_told_as_cilium_tells_it() {
    let no_reply = Some(false);
    let kind = |kind| move |record: &mut Record| record.kind = kind;
    assert_eq!(
        seen(kind(Kind::Start)),
        (Told::Forwarded, (5, 0), no_reply, 0)
    );
    assert_eq!(
        seen(kind(Kind::Update)),
        (Told::Forwarded, (4, 0), no_reply, 0)
    );
    assert_eq!(
        seen(kind(Kind::End)),
        (Told::Forwarded, (4, 0), no_reply, 0)
    );
    let by_nobody = |record: &mut Record| {
        record.policy = None;
        record.reason = Some("not-isolated".into());
        record.direction = Direction::Egress;
    };
    assert_eq!(seen(by_nobody), (Told::Forwarded, (4, 11), no_reply, 0));
    for (reason, event, number) in [
        ("default-deny", (5, 0), 133),
        ("deny-rule", (5, 0), 181),
        ("revoked", (5, 0), 133),
        ("stale-schedule", (5, 0), 133),
        ("spoofed-source", (1, 132), 132),
        ("spoofed-neighbour", (1, 132), 132),
        ("no-state", (1, 163), 163),
        ("not-programmed", (1, 203), 203),
        ("rogue-router", (1, 176), 176),
        ("unknown(99)", (1, 134), 134),
    ] {
        assert_eq!(
            seen(deny(reason)),
            (Told::Dropped, event, None, number),
            "{reason}"
        );
    }
}

#[test]
fn a_denial_is_a_verdict_and_a_drop_and_a_start_a_verdict_and_a_trace() {
    let flows = told(&record(deny("deny-rule")));
    let [verdict, drop] = &flows[..] else {
        panic!("{flows:?}")
    };
    assert_eq!(verdict.event_type.unwrap().r#type, 5);
    assert_eq!(drop.event_type.unwrap().r#type, 1);
    assert_eq!(drop.event_type.unwrap().sub_type, 181);
    for flow in [verdict, drop] {
        assert_eq!(flow.ingress_denied_by.len(), 1);
        assert!(flow.ingress_allowed_by.is_empty() && flow.egress_denied_by.is_empty());
    }
    assert_eq!((verdict.policy_match_type, drop.policy_match_type), (2, 0));
    let flows = told(&record(|_| {}));
    let [verdict, trace] = &flows[..] else {
        panic!("{flows:?}")
    };
    assert_eq!(verdict.trace_observation_point, 0);
    // Two ways of counting the same place.
    assert_eq!(trace.event_type.unwrap().sub_type, 0);
    assert_eq!(trace.trace_observation_point, 101);
    assert_eq!(trace.trace_reason, i32::from(TraceReason::New));
    assert_eq!(verdict.uuid, trace.uuid);
}

#[test]
fn what_would_be_denied_is_audited_and_was_forwarded() {
    let flows = told(&record(|record| {
        record.would_be = vec![WouldBe {
            view: crate::flow::views::View::Staged,
            verdict: Verdict::Deny,
            policy: record.policy.clone(),
            reason: "deny-rule".into(),
        }];
        record.policy = None;
    }));
    let [audit, trace] = &flows[..] else {
        panic!("{flows:?}")
    };
    assert_eq!(audit.verdict(), Told::Audit);
    assert_eq!(audit.event_type.unwrap().r#type, 5);
    assert_eq!((audit.is_reply, audit.drop_reason_desc), (Some(false), 0));
    assert_eq!(audit.ingress_denied_by.len(), 1);
    assert_eq!(audit.policy_log, ["staged: deny by shop/api ingress[0]"]);
    assert_eq!(trace.verdict(), Told::Forwarded);
    assert!(trace.ingress_denied_by.is_empty());
    // What is denied now and would not be, is denied now.
    let flows = told(&record(|record| {
        deny("default-deny")(record);
        record.would_be = vec![WouldBe {
            view: crate::flow::views::View::Staged,
            verdict: Verdict::Allow,
            policy: None,
            reason: "not-isolated".into(),
        }];
    }));
    assert_eq!(flows[0].verdict(), Told::Dropped);
    assert_eq!(flows[0].policy_log, ["staged: allow (not-isolated)"]);
}

#[test]
fn a_record_s_fields_are_a_flow_s() {
    let record = record(|record| {
        record.kind = Kind::End;
        record.dst.dns_name = Some("api.example".into());
        record.dst.service = Some("shop/web".into());
    });
    let flow = told(&record).remove(0);
    assert_eq!(flow.destination_names, ["api.example"]);
    assert!(flow.source_names.is_empty());
    // The name of the pod would be shown in the namespace of the Service.
    assert_eq!(flow.destination_service, None);
    let mut to_service = record.clone();
    to_service.dst.workload = None;
    let to_service = told(&to_service).remove(0);
    let service = to_service.destination_service.unwrap();
    assert_eq!((&*service.namespace, &*service.name), ("shop", "web"));
    // Neither the world, nor with a name beside: Hubble's UI leaves those out.
    let destination = to_service.destination.unwrap();
    assert!(destination.identity >= 256);
    assert_eq!(
        (&*destination.namespace, &*destination.pod_name),
        ("shop", "")
    );
    assert!(to_service.destination_names.is_empty());
    let time = flow.time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1_700_000_001, 7));
    assert_eq!(flow.node_name, "east.1/node-1");
    let ip = flow.ip.unwrap();
    assert_eq!(
        (ip.source.as_str(), ip.destination.as_str()),
        ("10.0.0.2", "10.0.0.1")
    );
    assert_eq!(ip.ip_version, i32::from(IpVersion::IPv4));
    let Some(layer4::Protocol::Tcp(tcp)) = flow.l4.unwrap().protocol else {
        panic!("TCP")
    };
    assert_eq!((tcp.source_port, tcp.destination_port), (40_000, 8080));
    assert!(tcp.flags.unwrap().syn && !tcp.flags.unwrap().rst);
    assert_eq!(flow.summary, "TCP Flags: SYN, ACK, FIN");
    let (source, destination) = (flow.source.unwrap(), flow.destination.unwrap());
    assert_eq!(
        (source.namespace.as_str(), source.pod_name.as_str()),
        ("edge", "gateway")
    );
    assert_eq!(destination.labels, ["host:app=api"]);
    assert_eq!(destination.workloads[0].kind, "Workload");
    let [rule] = &flow.ingress_allowed_by[..] else {
        panic!("one rule")
    };
    assert_eq!(
        (
            rule.kind.as_str(),
            rule.namespace.as_str(),
            rule.name.as_str()
        ),
        ("NetworkPolicy", "shop", "api")
    );
    assert_eq!(rule.labels, ["ringfence:rule=ingress[0]"]);
    assert_eq!(rule.revision, 3);
    assert_eq!(flow.emitter.unwrap().name, "ringfence");
    assert!(!flow.reply && flow.r#type == i32::from(FlowType::L3L4));
}

#[test]
fn addresses_are_written_in_one_way_and_what_is_not_known_is_not_made_up() {
    let flow = told(&record(|record| {
        record.src.ip = Some("2001:DB8:0:0:0:0:0:1".parse().unwrap());
        record.src.workload = None;
        record.dst.ip = None;
        record.src.port = None;
        record.forward.tcp_flags = None;
        deny("default-deny")(record);
    }))
    .remove(0);
    let ip = flow.ip.unwrap();
    assert_eq!(
        (ip.source.as_str(), ip.destination.as_str()),
        ("2001:db8::1", "")
    );
    assert_eq!(ip.ip_version, i32::from(IpVersion::IPv6));
    assert_eq!(flow.source.unwrap().identity, 2);
    assert_eq!(flow.summary, "TCP");
    for (number, kind, summary) in [
        (1, 8, "ICMPv4 EchoRequest"),
        (58, 135, "ICMPv6 NeighborSolicitation"),
        (1, 77, "ICMPv4 type 77 code 0"),
        (17, 0, "UDP"),
        (132, 0, "SCTP"),
        (47, 0, "IP protocol 47"),
    ] {
        let flow = told(&record(|record| {
            record.protocol = crate::flow::record::Protocol::new(number);
            record.icmp = (kind != 0).then_some(crate::flow::record::Icmp { kind, code: 0 });
        }))
        .remove(0);
        assert_eq!(flow.summary, summary);
        assert_eq!(flow.l4.is_some(), number != 47);
    }
}

#[test]
fn each_record_has_a_number_of_its_own() {
    let uuid = |flow: u64, seq: u64| {
        super::uuid(&record(|record| {
            record.flow_id.0 = flow;
            record.seq = seq;
        }))
    };
    assert_eq!(
        uuid(0x0123_4567_89ab_cdef, 0xfedc),
        "01234567-89ab-8cde-bc00-00000000fedc"
    );
    assert_ne!(uuid(1, 1), uuid(1, 2));
    assert_ne!(uuid(1, 1), uuid(17, 1));
}
