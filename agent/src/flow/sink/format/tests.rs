//! Records in the words of others.

use serde_json::{Value, json};

use super::*;
use crate::flow::{record::hostile::hostile, sink::tests::between};

/// A denied flow with all that people may have written into it.
fn denied() -> std::sync::Arc<Line> {
    between(
        "deny",
        7,
        r#","policy":{"kind":"NetworkPolicy","namespace":"shop","name":"a|b\\c=d\ne","rule":"egress[0]","rule_id":3},"policy_revision":4,
        "drop_reason":"deny-rule","endpoint":"edge/gateway","community_id":"1:x",
        "process":{"pid":9,"comm":"cu|r=l\n\\","exe":"/bin/curl","uid":1000,"cgroup_id":2,
        "container_id":"0a"},"rtt_us":87"#,
    )
}

fn object(format: Format, line: &Line) -> Value {
    let mut text = Vec::new();
    format.put(line, &mut text);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    assert!(text.as_bytes().starts_with(format.begin()), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn cef(line: &Line) -> String {
    let mut text = Vec::new();
    Message::Cef.put(line, &mut text);
    String::from_utf8(text).unwrap()
}

fn loss() -> Line {
    Line::parse(
        r#"{"schema_version":1,"node":"n","kind":"loss","stage":"sink","reason":"queue-full","count":17,
        "first":"2026-11-23T02:21:00.000000000Z","last":"2026-11-23T02:21:05.000000000Z"}"#,
    )
    .unwrap()
}

fn tampering() -> Line {
    Line::parse(
        r#"{"schema_version":1,"seq":41,"node":"n","kind":"tampering","how":"written","what":"map POLICY",
        "count":2,"at":"2026-11-23T02:21:07.000000000Z","restored":true}"#,
    )
    .unwrap()
}

#[test]
fn a_denied_flow_in_ecs() {
    let object = object(Format::Ecs, &denied());
    assert_eq!(object["@timestamp"], "2023-11-14T22:13:20.000000000Z");
    let event = &object["event"];
    // The record is of kind start.
    assert_eq!(event["type"], json!(["connection", "start", "denied"]));
    assert_eq!(event["category"], json!(["network"]));
    assert_eq!(
        (&event["reason"], &event["sequence"]),
        (&json!("deny-rule"), &json!(7))
    );
    assert_eq!(object["source"]["ip"], "10.0.0.2");
    assert_eq!(object["source"]["address"], "edge/gateway");
    assert_eq!(object["destination"]["port"], 2);
    assert_eq!(object["network"]["direction"], "egress");
    assert_eq!(object["network"]["iana_number"], "6");
    assert_eq!(object["network"]["community_id"], "1:x");
    assert_eq!(object["rule"]["id"], "3");
    assert_eq!(object["rule"]["version"], "4");
    assert_eq!(object["process"]["name"], "cu|r=l\n\\");
    assert_eq!(object["process"]["executable"], "/bin/curl");
    assert_eq!(object["container"]["id"], "0a");
    assert_eq!(object["ringfence"]["rtt_us"], 87);
    assert_eq!(object["user"]["id"], "1000");
    let labels = &object["ringfence"]["source"]["labels"];
    assert_eq!(labels, &json!(["app=gateway", "tier=front"]));
}

#[test]
fn a_flow_that_policy_would_deny_in_ecs_and_ocsf() {
    let line = between(
        "allow",
        8,
        r#","would_be":[{"view":"audit","verdict":"deny","reason":"default-deny"}]"#,
    );
    assert_eq!(
        object(Format::Ecs, &line)["event"]["action"],
        "policy_audit"
    );
    let ocsf = object(Format::Ocsf, &line);
    assert_eq!(
        (&ocsf["action_id"], &ocsf["disposition_id"]),
        (&json!(3), &json!(15))
    );
}

#[test]
fn a_denied_flow_that_a_staged_policy_would_permit_is_denied() {
    let line = between(
        "deny",
        8,
        r#","would_be":[{"view":"staged","verdict":"allow","reason":"rule"}]"#,
    );
    assert_eq!(object(Format::Ecs, &line)["event"]["action"], "flow_start");
    let ocsf = object(Format::Ocsf, &line);
    assert_eq!(
        (&ocsf["action_id"], &ocsf["disposition_id"]),
        (&json!(2), &json!(2))
    );
}

#[test]
fn a_denied_flow_in_ocsf() {
    let object = object(Format::Ocsf, &denied());
    assert_eq!(object["class_uid"], 4001);
    assert_eq!(object["type_uid"], 400_101);
    assert_eq!(
        (&object["action_id"], &object["disposition_id"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(object["time"], 1_700_000_000_000_u64);
    assert_eq!(object["connection_info"]["direction_id"], 2);
    assert_eq!(object["src_endpoint"]["name"], "gateway");
    assert_eq!(object["traffic"]["bytes_out"], 60);
    assert_eq!(object["firewall_rule"]["uid"], "3");
    assert_eq!(object["policy"]["version"], "4");
    assert_eq!(object["actor"]["process"]["user"]["uid"], "1000");
    assert_eq!(object["actor"]["process"]["path"], "/bin/curl");
    assert_eq!(object["unmapped"]["process"]["container_id"], "0a");
    assert_eq!(object["unmapped"]["rtt_us"], 87);
    assert_eq!(object["metadata"]["version"], "1.6.0");
}

#[test]
fn no_value_can_begin_another_field_of_cef() {
    let text = cef(&denied());
    let fields: Vec<&str> = text.splitn(8, '|').collect();
    assert_eq!(fields[..3], ["CEF:0", "ringfence", "ringfence"]);
    assert_eq!(fields[4..7], ["start", "Flow started", "1"]);
    let fields = format!(" {}", fields[7]);
    for there in [
        " src=10.0.0.2 spt=1",
        " dst=192.0.2.1 dpt=2",
        " act=deny",
        " deviceDirection=1",
        r" sproc=cu|r\=l\n\\",
        r" cs1Label=policy cs1=shop/a|b\\c\=d\ne egress[0]",
        " reason=deny-rule",
        " cs2=edge/gateway",
    ] {
        assert!(fields.contains(there), "{there} in {fields}");
    }
    assert!(!text.contains('\n'));
}

#[test]
fn a_bar_at_the_end_of_a_value_swallows_no_field_of_cef() {
    let line = between(
        "allow",
        7,
        r#","reason":"rule","process":{"pid":9,"comm":"x|","uid":0,"cgroup_id":2}"#,
    );
    let text = cef(&line);
    assert!(text.contains(" sproc=x| reason=rule "), "{text}");
}

#[test]
fn addresses_of_version_6_have_fields_of_their_own_in_cef() {
    let Line::Flow(mut record) = Line::clone(&between("allow", 9, "")) else {
        panic!("a flow");
    };
    record.src.ip = Some("2001:db8::1".parse().unwrap());
    let text = cef(&Line::Flow(record));
    let expected = " c6a2Label=Source IPv6 Address c6a2=2001:db8::1 spt=1";
    assert!(text.contains(expected) && !text.contains(" src="), "{text}");
}

#[test]
fn what_is_about_no_flow_is_told_in_all_words() {
    let ecs = object(Format::Ecs, &loss());
    assert_eq!(ecs["event"]["kind"], "pipeline_error");
    assert_eq!(ecs["ringfence"]["loss"]["count"], 17);
    assert_eq!(object(Format::Ecs, &tampering())["event"]["kind"], "alert");
    let ocsf = object(Format::Ocsf, &loss());
    assert_eq!(
        (&ocsf["class_uid"], &ocsf["count"]),
        (&json!(0), &json!(17))
    );
    assert_eq!(object(Format::Ocsf, &tampering())["severity_id"], 4);
    assert!(cef(&loss()).contains("|loss|Records lost|5|rt="));
    assert!(cef(&tampering()).contains(" outcome=restored cs1Label=what cs1=map POLICY"));
}

#[test]
fn no_value_however_long_breaks_a_line_or_a_field() {
    let line = hostile(&denied());
    for format in [Format::Ringfence, Format::Ecs, Format::Ocsf] {
        // One line, and a whole object.
        let object = object(format, &line);
        assert!(object.is_object());
    }
    let text = String::from_utf8({
        let mut out = Vec::new();
        Format::Ringfence.put(&line, &mut out);
        out
    });
    assert_eq!(Line::parse(&text.unwrap()).unwrap(), line, "it reads back");
    let text = cef(&line);
    assert!(
        !text
            .chars()
            .any(|letter| letter.is_control() || letter == '\u{2028}')
    );
    // A key is a word behind a blank and before `=`; one within a value has a backslash before its `=`.
    let keys = text
        .match_indices('=')
        .filter(|(at, _)| !text[..*at].ends_with('\\'));
    let known = cef(&denied());
    let known = known
        .match_indices('=')
        .filter(|(at, _)| !known[..*at].ends_with('\\'));
    // Names and workloads that the other has not: shost, dhost, destinationServiceName, cs3 with its label.
    assert_eq!(keys.count(), known.count() + 5);
}
