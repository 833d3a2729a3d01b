//! Whole records as JSON: the order of fields is part of the format.

use std::collections::BTreeMap;

use agent_common::{event::DenialKey, flow::FlowKey};

use super::*;
use crate::flow::{
    addresses::{Owners, Services},
    clock::{BootTime, WallTime},
    record::{EndReason, Fragment, Loss},
    views::{NoSets, View},
};

fn workload(namespace: &str, name: &str) -> Arc<WorkloadRef> {
    Arc::new(WorkloadRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        kind: Cow::Borrowed("Workload"),
        owner: None,
        labels: Arc::new(BTreeMap::from([("app".to_owned(), name.to_owned())])),
        json: Fragment::default(),
    })
}

fn inventory() -> Inventory {
    let rule = RuleRef {
        kind: Cow::Borrowed("NetworkPolicy"),
        namespace: Some("shop".to_owned()),
        name: "api".to_owned(),
        rule: "ingress[0]".to_owned(),
        rule_id: 7,
        tier: None,
        rule_name: Some("gateways".to_owned()),
        reason: Some("ticket 4711".to_owned()),
        approved_by: None,
        owner: None,
        json: Fragment::default(),
    };
    Inventory {
        since: BootTime(0),
        addresses: Addresses {
            workloads: Arc::new(Owners::from([(
                "10.0.0.2".parse().unwrap(),
                workload("edge", "gateway"),
            )])),
            ..Addresses::default()
        },
        endpoints: HashMap::from([(1, (workload("shop", "api"), "shop/api".into()))]),
        rules: HashMap::from([(7, Arc::new(rule))]),
        revisions: HashMap::from([(7, 3)]),
        generations: HashMap::from([(1, 5)]),
        views: HashMap::new(),
    }
}

fn report() -> FlowReport {
    let key = Key::V4(FlowKey {
        endpoint: 1,
        protocol: TCP,
        zero: 0,
        local_port: 8080,
        remote_port: 40_000,
        local: [10, 0, 0, 1],
        remote: [10, 0, 0, 2],
    });
    FlowReport {
        kind: Kind::End,
        id: FlowId(0xabc),
        key,
        direction: table::Direction::Ingress,
        origin: Flow::INITIATED_BY_PEER,
        opened: BootTime(0),
        at: BootTime(0),
        start: WallTime(1_700_000_000_000_000_000),
        end: Some(WallTime(1_700_000_001_000_000_000)),
        delta: [
            Count {
                packets: 5,
                bytes: 500,
            },
            Count {
                packets: 4,
                bytes: 4000,
            },
        ],
        tcp_flags: [0x1b, 0x13],
        rtt: 0,
        end_reason: Some(EndReason::Fin),
        reason: Reason::Rule as u8,
        rule: 7,
        generation: 3,
        process: Process {
            pid: 812,
            uid: 33,
            started: 1_500_000_000,
            cgroup: 77,
            comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
        },
        ifindex: 9,
    }
}

/// The latest last.
fn of<const N: usize>(all: [Inventory; N]) -> Inventories {
    let mut inventories = Inventories::new(Arc::default());
    for inventory in all {
        inventories.push(Arc::new(inventory));
    }
    inventories
}

fn enricher() -> Enricher {
    Enricher::new(
        ("node-1".into(), None),
        Box::new(NoSets),
        Arc::default(),
        Namer::without_paths(),
        Names::default(),
    )
}

fn json(report: Report) -> String {
    let mut enricher = enricher();
    let line = enricher.line(report, &of([inventory()]));
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(Line::parse(&text).unwrap(), line, "it reads back");
    text
}

#[test]
fn a_flow_is_told_from_its_initiator_with_names_on_both_sides() {
    let expected = concat!(
        r#"{"schema_version":1,"seq":1,"node":"node-1","agent_version":"0.1.0","kind":"end","#,
        r#""flow_id":"0000000000000abc","community_id":"1:IHM3YPTZ7HUTvuRDYhLeJClYCV8=","#,
        r#""start":"2023-11-14T22:13:20.000000000Z","#,
        r#""end":"2023-11-14T22:13:21.000000000Z","#,
        r#""src":{"ip":"10.0.0.2","port":40000,"workload":{"namespace":"edge","#,
        r#""name":"gateway","kind":"Workload","labels":{"app":"gateway"}}},"#,
        r#""dst":{"ip":"10.0.0.1","port":8080,"workload":{"namespace":"shop","name":"api","#,
        r#""kind":"Workload","labels":{"app":"api"}}},"#,
        r#""protocol":{"number":6,"name":"tcp"},"direction":"ingress","initiator_known":true,"#,
        r#""forward":{"packets":5,"bytes":500,"tcp_flags":27},"#,
        r#""reverse":{"packets":4,"bytes":4000,"tcp_flags":19},"end_reason":"fin","#,
        r#""verdict":"allow","policy":{"kind":"NetworkPolicy","namespace":"shop","name":"api","#,
        r#""rule":"ingress[0]","rule_id":7,"rule_name":"gateways","reason":"ticket 4711"},"#,
        r#""default_deny":false,"reason":"rule","#,
        r#""ifindex":9,"generation":3,"endpoint":"shop/api","#,
        r#""process":{"pid":812,"start_time":"1970-01-01T00:00:01.500000000Z","comm":"nginx","#,
        r#""uid":33,"cgroup_id":77,"via":"listener"}}"#,
    );
    assert_eq!(json(Report::Flow(report())), expected);
}

/// Closed to everybody.
#[derive(Debug)]
struct Closed;

impl PolicySets for Closed {
    fn ask(
        &self,
        _: &FlowReport,
        _: table::Endpoint,
        _: u32,
    ) -> Option<(Reason, agent_common::verdict::RuleId)> {
        Some((Reason::DenyRule, agent_common::verdict::RuleId(7)))
    }
}

#[test]
fn what_policies_in_audit_would_have_done_is_told_with_the_rule() {
    let mut enricher = Enricher::new(
        ("node-1".into(), None),
        Box::new(Closed),
        Arc::default(),
        Namer::without_paths(),
        Names::default(),
    );
    let mut inventory = inventory();
    let audit = Views {
        audit: Some(2),
        ..Views::default()
    };
    inventory.views.insert(1, audit);
    let inventories = of([inventory]);
    let start = FlowReport {
        kind: Kind::Start,
        ..report()
    };
    let Line::Flow(record) = enricher.line(Report::Flow(start), &inventories) else {
        panic!("a flow is a flow");
    };
    let [told] = record.would_be.as_slice() else {
        panic!("{record:?}");
    };
    assert_eq!((told.view, told.verdict), (View::Audit, Verdict::Deny));
    assert_eq!(told.policy.as_ref().map(|rule| rule.rule_id), Some(7));
    let text = serde_json::to_string(told).unwrap();
    assert!(text.starts_with(r#"{"view":"audit","verdict":"deny","policy":{"kind":"#));
    assert!(text.ends_with(r#""reason":"deny-rule"}"#), "{text}");
    let Line::Flow(ended) = enricher.line(Report::Flow(report()), &inventories) else {
        panic!("a flow is a flow");
    };
    assert_eq!(ended.would_be, [], "it is over");
}

#[test]
fn what_is_not_known_is_absent() {
    let mut report = report();
    report.origin |= Flow::ADOPTED;
    report.reason = Reason::Revoked as u8;
    (report.rule, report.ifindex) = (99, 0);
    let record = serde_json::from_str::<serde_json::Value>(&json(Report::Flow(report))).unwrap();
    for field in ["policy", "ifindex", "reason", "drop_reason", "icmp"] {
        assert!(record.get(field).is_none(), "{field}");
    }
    assert_eq!(record["initiator_known"], false);
}

#[test]
fn an_icmp_exchange_has_type_and_code_and_no_ports() {
    let Key::V4(mut key) = report().key else {
        unreachable!()
    };
    (key.protocol, key.local_port) = (ICMP, 8 * 256);
    let report = FlowReport {
        key: Key::V4(key),
        ..report()
    };
    let record = serde_json::from_str::<serde_json::Value>(&json(Report::Flow(report))).unwrap();
    assert_eq!(record["icmp"], serde_json::json!({"type": 8, "code": 0}));
    assert!(record["src"].get("port").is_none() && record["dst"].get("port").is_none());
    assert!(record["forward"].get("tcp_flags").is_none());
}

#[test]
fn summed_up_denials_fold_the_source_port() {
    let key = DenialKey {
        endpoint: 1,
        port: 5432,
        protocol: TCP,
        direction: table::Direction::Egress as u8,
        reason: Reason::DefaultDeny as u8,
        family: 4,
        rule: 0,
        remote: agent_common::protocol::Address::mapped([10, 0, 0, 9]),
    };
    let delta = Count {
        packets: 3,
        bytes: 180,
    };
    let (start, end) = (WallTime(0), WallTime(10_000_000_000));
    let text = json(Report::Denials(DenialReport {
        since: BootTime(0),
        key,
        start,
        end,
        delta,
    }));
    let record = serde_json::from_str::<serde_json::Value>(&text).unwrap();
    assert_eq!(record["src"]["workload"]["name"], "api");
    assert!(record["src"].get("port").is_none() && record["src"].get("ip").is_none());
    assert_eq!(
        record["dst"],
        serde_json::json!({"ip": "10.0.0.9", "port": 5432})
    );
    assert_eq!(record["drop_reason"], "default-deny");
    assert_eq!(record["default_deny"], true);
    assert_eq!(
        record["forward"],
        serde_json::json!({"packets": 3, "bytes": 180})
    );
}

#[test]
fn what_a_rule_denies_names_it_and_is_no_default_deny() {
    let report = FlowReport {
        kind: Kind::Deny,
        reason: Reason::DenyRule as u8,
        ..report()
    };
    let key = DenialKey {
        endpoint: 1,
        port: 5432,
        protocol: TCP,
        direction: table::Direction::Egress as u8,
        reason: Reason::DenyRule as u8,
        family: 4,
        rule: 7,
        remote: [0; 16],
    };
    let sum = DenialReport {
        since: BootTime(0),
        key,
        start: WallTime(0),
        end: WallTime(1),
        delta: Count::default(),
    };
    for report in [Report::Flow(report), Report::Denials(sum)] {
        let record = serde_json::from_str::<serde_json::Value>(&json(report)).unwrap();
        assert_eq!(record["verdict"], "deny");
        assert_eq!(record["drop_reason"], "deny-rule");
        assert_eq!(record["default_deny"], false);
        assert_eq!(record["policy"]["rule_name"], "gateways");
        assert_eq!(record["policy"]["reason"], "ticket 4711");
    }
}

#[test]
fn forged_arp_is_named_though_it_is_no_protocol_of_ip() {
    let key = |reason: Reason| DenialKey {
        endpoint: 1,
        port: 0,
        protocol: 0,
        direction: table::Direction::Egress as u8,
        reason: reason as u8,
        family: 4,
        rule: 0,
        remote: [0; 16],
    };
    let named = |reason| {
        let report = DenialReport {
            since: BootTime(0),
            key: key(reason),
            start: WallTime(0),
            end: WallTime(1),
            delta: Count::default(),
        };
        json(Report::Denials(report)).contains(r#""protocol":{"number":0,"name":"arp"}"#)
    };
    assert!(named(Reason::SpoofedNeighbour));
    assert!(!named(Reason::DefaultDeny));
}

#[test]
fn a_flow_that_is_judged_with_every_packet_has_no_generation() {
    let report = FlowReport {
        generation: Flow::NEVER,
        ..report()
    };
    let record = serde_json::from_str::<serde_json::Value>(&json(Report::Flow(report))).unwrap();
    assert!(record.get("generation").is_none());
}

#[test]
fn a_reason_of_another_version_is_named_as_unknown() {
    let report = FlowReport {
        reason: 77,
        kind: Kind::Deny,
        ..report()
    };
    assert!(json(Report::Flow(report)).contains(r#""drop_reason":"unknown(77)""#));
}

#[test]
fn the_service_is_told_of_whom_an_endpoint_asks_and_not_of_who_asks_it() {
    let mut services = Services::default();
    services.add_cluster(&"shop/web".into(), ([10, 0, 0, 2].into(), TCP, 40_000));
    let mut inventory = inventory();
    inventory.addresses.services = Arc::new(services);
    let inventories = of([inventory]);
    let mut enricher = enricher();
    let mut told = |direction| {
        let report = FlowReport {
            direction,
            ..report()
        };
        let line = enricher.line(Report::Flow(report), &inventories);
        let [src, dst] = line.flow().unwrap().ends().map(|end| end.service.clone());
        (src, dst)
    };
    let web = Some("shop/web".into());
    assert_eq!(told(table::Direction::Egress), (None, web));
    assert_eq!(told(table::Direction::Ingress), (None, None));
}

#[test]
fn a_loss_says_where_and_how_much() {
    let loss = Loss {
        stage: Cow::Borrowed("takeover"),
        reason: Cow::Borrowed("reported-before-unknown"),
        count: 3,
        first: WallTime(0),
        last: WallTime(1_000_000_000),
    };
    let expected = concat!(
        r#"{"schema_version":1,"seq":1,"node":"node-1","kind":"loss","stage":"takeover","#,
        r#""reason":"reported-before-unknown","count":3,"#,
        r#""first":"1970-01-01T00:00:00.000000000Z","last":"1970-01-01T00:00:01.000000000Z"}"#,
    );
    assert_eq!(json(Report::Loss(loss)), expected);
}

#[test]
fn what_happened_before_a_change_is_told_by_who_was_who_then() {
    let mut later = inventory();
    later.since = BootTime(100);
    later.addresses = Addresses::default();
    later.endpoints = HashMap::from([(1, (workload("shop", "new"), "shop/new".into()))]);
    later.rules.clear();
    later.revisions = HashMap::from([(7, 4)]);
    later.generations = HashMap::from([(1, 6)]);
    let inventories = of([inventory(), later]);
    let mut enricher = enricher();
    let mut told = |at: u64| {
        let report = FlowReport {
            at: BootTime(at),
            ..report()
        };
        let line = enricher.line(Report::Flow(report), &inventories);
        let record = line.flow().unwrap();
        let names = record.workloads().map(ToString::to_string);
        let rule = record.policy.as_ref().map(|it| it.rule_id);
        (names.collect::<Vec<_>>(), rule)
    };
    // The rule that permitted it is known for as long as that was so of late.
    assert_eq!(
        told(99),
        (
            vec!["edge/gateway".to_owned(), "shop/api".to_owned()],
            Some(7)
        )
    );
    assert_eq!(told(100), (vec!["shop/new".to_owned()], Some(7)));
    let mut version = |generation, end_reason| {
        let report = FlowReport {
            at: BootTime(100),
            generation,
            end_reason,
            ..report()
        };
        let line = enricher.line(Report::Flow(report), &inventories);
        line.flow().unwrap().policy_revision
    };
    // Whenever it is told.
    assert_eq!(version(5, None), Some(3));
    assert_eq!(version(6, Some(EndReason::Fin)), Some(4));
    assert_eq!(version(6, Some(EndReason::Revoked)), None);
    assert_eq!(version(4, None), None, "of long ago");
}
