//! `PolicyTest`.

use serde_json::{Value, json};

use super::common::{self, Definition, empty, line, one_of, reference};
use crate::parse::policy_test::{MAX_END, MAX_NAME, REACHES, VERDICTS, VIEWS};

/// Of a protocol that has neither ports nor types.
const NUMBER: &str = "[Pp][Rr][Oo][Tt][Oo][Cc][Oo][Ll]/[0-9]+";
const TRANSPORT: &str = "([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp])/[0-9]+";
const ICMP: &str = "[Ii][Cc][Mm][Pp]([Vv]6)?(/[0-9]+(/[0-9]+)?)?";

pub(super) fn spec() -> Value {
    let list = |description: &str, items: &str| {
        json!({
            "description": description,
            "type": "array",
            "items": reference(items),
            "minItems": 1,
        })
    };
    json!({
        "type": "object",
        "properties": {
            "at": {
                "description": "The moment that is asked about; left out, that of `--at`, or now.",
                "$ref": "#/$defs/time",
            },
            "view": {
                "description": "Which policies have a say; left out, that of `--view`.",
                "enum": VIEWS.words(),
            },
            "expect": list("How single connections end: `policy test`.", "expectation"),
            "assert": list("What holds for everybody: `policy verify`.", "assertion"),
        },
        "anyOf": [{"required": ["expect"]}, {"required": ["assert"]}],
        "additionalProperties": false,
    })
}

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        common::cluster_metadata(),
        common::name(),
        common::labels(),
        common::label_key(),
        common::label_value(),
        common::selector(),
        common::prefix(),
        common::workloads(),
        common::block(),
        common::time(),
        ("expectation", expectation()),
        ("assertion", assertion()),
        ("ends", ends()),
    ]
}

fn expectation() -> Value {
    json!({
        "type": "object",
        "properties": {
            "from": {
                "description": "NAMESPACE/NAME, node/NAME or an address.",
                "type": "string",
                "maxLength": MAX_END,
            },
            "to": {
                "description": "As `from`, or service/NAMESPACE/NAME.",
                "type": "string",
                "maxLength": MAX_END,
            },
            "ports": {
                "description": "TCP/8080, UDP/53, SCTP/1, ICMP, ICMPv6/TYPE/CODE or \
                                protocol/NUMBER.",
                "type": "array",
                "items": {
                    "type": "string",
                    "pattern": format!("^({TRANSPORT}|{ICMP}|{NUMBER})$"),
                },
                "minItems": 1,
            },
            "verdict": {"enum": VERDICTS.words()},
            "rule": line("What decides at one end: POLICY RULE, or the rule's name.", MAX_NAME),
        },
        "required": ["from", "to", "ports", "verdict"],
        "additionalProperties": false,
    })
}

fn assertion() -> Value {
    let everything = "TCP|UDP|SCTP|ICMP(v6)?/\\*";
    json!({
        "type": "object",
        "properties": {
            "name": line("Shown with what became of it.", MAX_NAME),
            "reach": {
                "description": "Whether nobody of `from` may reach anybody of `to`, or all may.",
                "enum": REACHES.words(),
            },
            "from": reference("ends"),
            "to": reference("ends"),
            "ports": {
                "description": "TCP/443, TCP/8000-8080, UDP or ICMP/*; every port of every \
                                protocol where it is left out.",
                "type": "array",
                "items": {
                    "type": "string",
                    "pattern": format!(
                        "^({everything}|{TRANSPORT}(-[0-9]+)?|{ICMP}|{NUMBER})$"
                    ),
                },
                "minItems": 1,
            },
        },
        "required": ["name", "reach"],
        "additionalProperties": false,
    })
}

fn ends() -> Value {
    let forms = json!({
        "workloads": reference("workloads"),
        "nodes": reference("selector"),
        "cidr": reference("block"),
        "internet": empty("Every public address that nobody of the inventory has."),
        "any": empty("Everybody."),
    });
    json!({
        "description": "Any of these; everybody where it is left out.",
        "type": "array",
        "items": one_of("Exactly one of these.", &forms),
        "minItems": 1,
    })
}
