use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
};

use jsonschema::Validator;

use super::{
    super::{
        End, Fragment, Icmp, Line, Loss, LossRecord, ProcessRef, Protocol, Record, RuleRef,
        TamperRecord, Tampering, Traffic, WorkloadRef, WouldBe,
    },
    *,
};
use crate::flow::{clock::WallTime, key::FlowId};

const FILE: &str = include_str!("../../../../docs/flow-record.schema.json");
const PAGE: &str = include_str!("../../../../docs/flow-record.md");

/// Every field is there: a new one has to be added here, too.
fn full() -> Record {
    let workload = WorkloadRef {
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
        kind: "Pod".into(),
        owner: Some("Deployment/api".into()),
        labels: Arc::new(BTreeMap::from([("app".to_owned(), "a\u{1b}".to_owned())])),
        json: Fragment::default(),
    };
    let rule = Arc::new(RuleRef {
        kind: "RingfencePolicy".into(),
        namespace: Some("shop".to_owned()),
        name: "api".to_owned(),
        rule: "ingress[0]".to_owned(),
        rule_id: u32::MAX,
        tier: Some("Admin".into()),
        rule_name: Some("let in".to_owned()),
        reason: Some("needed".to_owned()),
        approved_by: Some("it".to_owned()),
        owner: Some("shop".to_owned()),
        json: Fragment::default(),
    });
    let end = End {
        ip: Some("10.0.0.1".parse().unwrap()),
        port: Some(u16::MAX),
        workload: Some(Arc::new(workload)),
        service: Some("shop/api".into()),
        dns_name: Some("api.example.com".into()),
    };
    let traffic = Traffic {
        packets: u64::MAX,
        bytes: 0,
        tcp_flags: Some(u8::MAX),
    };
    Record {
        schema_version: SCHEMA_VERSION,
        seq: 1,
        node: "n".into(),
        cluster: Some("c".into()),
        agent_version: "0.1.0".into(),
        kind: Kind::End,
        flow_id: FlowId(u64::MAX),
        community_id: Some("1:U+8q9Z87Jm2f+iDiR/ncGzLx5ho=".to_owned()),
        start: WallTime(0),
        end: Some(WallTime(i64::MAX)),
        src: end.clone(),
        dst: End {
            ip: Some("fd00::1".parse().unwrap()),
            ..end
        },
        protocol: Protocol::new(1),
        icmp: Some(Icmp { kind: 8, code: 0 }),
        direction: Direction::Ingress,
        initiator_known: false,
        forward: traffic,
        reverse: traffic,
        rtt_us: Some(u32::MAX),
        end_reason: Some(EndReason::Fin),
        verdict: Verdict::Allow,
        policy: Some(Arc::clone(&rule)),
        policy_revision: Some(u64::MAX),
        default_deny: false,
        reason: Some("rule".into()),
        drop_reason: Some("revoked".into()),
        would_be: vec![WouldBe {
            view: View::Audit,
            verdict: Verdict::Deny,
            policy: Some(rule),
            reason: "deny-rule".into(),
        }],
        ifindex: Some(4),
        generation: Some(1),
        endpoint: Some("shop/api".into()),
        process: Some(ProcessRef {
            pid: 1,
            start_time: Some(WallTime(1)),
            comm: "\u{202e}".to_owned(),
            exe: Some("/usr/bin/a b (deleted)".into()),
            uid: 0,
            cgroup_id: u64::MAX,
            cgroup: Some("/shop".into()),
            container_id: Some("0a".into()),
            via: Some(Via::Listener),
        }),
        sampling: NonZeroU32::new(10),
    }
}

/// All that may be absent is.
fn least() -> Record {
    Record {
        cluster: None,
        community_id: None,
        end: None,
        src: End::default(),
        dst: End::default(),
        protocol: Protocol::new(47),
        icmp: None,
        forward: Traffic::default(),
        reverse: Traffic::default(),
        rtt_us: None,
        end_reason: None,
        policy: None,
        policy_revision: None,
        reason: None,
        drop_reason: None,
        would_be: Vec::new(),
        ifindex: None,
        generation: None,
        endpoint: None,
        process: None,
        sampling: None,
        ..full()
    }
}

fn lines() -> Vec<Line> {
    let mut records = vec![full(), least()];
    for &kind in Kind::value_variants() {
        records.push(Record { kind, ..full() });
    }
    for &end_reason in EndReason::value_variants() {
        let end_reason = Some(end_reason);
        records.push(Record {
            end_reason,
            ..full()
        });
    }
    for &view in View::value_variants() {
        let mut record = full();
        record.would_be[0].view = view;
        record.would_be[0].policy = None;
        records.push(record);
    }
    let other = Record {
        direction: Direction::Egress,
        verdict: Verdict::Deny,
        ..full()
    };
    records.push(other);
    let loss = Loss {
        stage: "sink".into(),
        reason: "queue-full".into(),
        count: u64::MAX,
        first: WallTime(0),
        last: WallTime(1),
    };
    let tampering = Tampering {
        how: "written".into(),
        what: "map POLICY".to_owned(),
        count: 2,
        at: WallTime(0),
        restored: false,
    };
    let mut lines: Vec<Line> = records.into_iter().map(Line::Flow).collect();
    lines.extend([
        Line::Loss(LossRecord::new("n".into(), None, loss.clone())),
        Line::Loss(LossRecord::new("n".into(), Some(7), loss)),
        Line::Tampering(TamperRecord::new("n".into(), 8, tampering)),
    ]);
    lines
}

/// As it is written, not as `Serialize` has it.
fn written(line: &Line) -> Value {
    let mut text = Vec::new();
    line.write(&mut text);
    serde_json::from_slice(&text).unwrap()
}

fn validator(schema: &Value) -> Validator {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(schema).unwrap()
}

/// The same, and no key but those that are described.
fn strict() -> Value {
    let mut schema = schema();
    for name in [
        "flow",
        "loss",
        "tampering",
        "end",
        "workload",
        "traffic",
        "rule",
        "wouldBe",
        "process",
    ] {
        schema["$defs"][name]["additionalProperties"] = false.into();
    }
    for name in ["protocol", "icmp"] {
        schema["$defs"]["flow"]["properties"][name]["additionalProperties"] = false.into();
    }
    schema
}

/// Each key, with those of the objects it leads to.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{path}.{key}");
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, path, found)),
        _ => {}
    }
}

/// Likewise of what a schema describes.
fn described_keys(schema: &Value, of: &Value, path: &str, found: &mut BTreeSet<String>) {
    let of = match of["$ref"].as_str() {
        Some(reference) => &schema["$defs"][reference.trim_start_matches("#/$defs/")],
        None => of,
    };
    for (key, value) in of["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        described_keys(schema, value, &path, found);
        found.insert(path);
    }
    if of["items"].is_object() {
        described_keys(schema, &of["items"], path, found);
    }
}

#[test]
fn every_line_holds_and_has_no_key_that_is_not_described() {
    let (schema, strict) = (validator(&schema()), validator(&strict()));
    for line in lines() {
        let value = written(&line);
        for validator in [&schema, &strict] {
            let errors: Vec<_> = validator
                .iter_errors(&value)
                .map(|it| it.to_string())
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{value}");
        }
    }
}

#[test]
fn what_is_described_is_written() {
    let schema = schema();
    let mut described = BTreeSet::new();
    described_keys(&schema, &schema["$defs"]["flow"], "", &mut described);
    let mut written_keys = BTreeSet::new();
    keys(&written(&Line::Flow(full())), "", &mut written_keys);
    written_keys.retain(|path| !path.contains(".labels."));
    assert_eq!(described, written_keys);
}

#[test]
fn what_is_required_is_in_the_least_and_nothing_else_is() {
    let value = written(&Line::Flow(least()));
    let keys: BTreeSet<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let schema = schema();
    let required = schema["$defs"]["flow"]["required"].as_array().unwrap();
    let required: BTreeSet<&str> = required.iter().filter_map(Value::as_str).collect();
    assert_eq!(keys, required);
}

#[test]
fn what_is_no_record_does_not_hold() {
    let validator = validator(&schema());
    let right = written(&Line::Flow(full()));
    for (key, value) in [
        ("schema_version", json!(2)),
        ("seq", json!(0)),
        ("kind", json!("open")),
        ("flow_id", json!(12)),
        ("start", json!("2023-11-14T22:13:20Z")),
        ("start", json!("2023-14-14T22:13:20.000000000Z")),
        ("src", json!({"ip": "10.0.0.256"})),
        ("src", json!({"port": 65536})),
        ("direction", json!("in")),
        ("end", Value::Null),
        ("would_be", json!([])),
        ("process", json!({"pid": 1})),
        ("sampling", json!(0)),
    ] {
        let mut wrong = right.clone();
        wrong[key] = value;
        assert!(!validator.is_valid(&wrong), "{key}: {}", wrong[key]);
    }
    for key in ["node", "verdict", "forward"] {
        let mut wrong = right.clone();
        wrong.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&wrong), "without {key}");
    }
    let mut newer = right;
    newer["thread"] = json!("/usr/bin/x");
    newer["drop_reason"] = json!("a-new-one");
    assert!(validator.is_valid(&newer), "new keys and words may come");
}

#[test]
fn the_file_is_what_the_command_prints() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
    let file: Value = serde_json::from_str(FILE).unwrap();
    let how = "ringfence schema --flow-record >agent/docs/flow-record.schema.json";
    assert!(file == schema(), "{how}");
}

/// The page and the schema say the same.
#[test]
fn the_page_knows_every_key_and_its_examples_hold() {
    let schema = schema();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for key in definition["properties"].as_object().into_iter().flatten() {
            let key = key.0;
            assert!(PAGE.contains(&format!("`{key}`")), "{name}: {key}");
        }
    }
    let validator = validator(&schema);
    let blocks = PAGE.split("```json\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| rest.split_once("```")).collect();
    assert_eq!(blocks.len(), 3);
    for (block, _) in blocks {
        let value = serde_json::from_str(block).unwrap();
        validator.validate(&value).unwrap();
    }
}
