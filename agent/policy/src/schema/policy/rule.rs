//! Rules, their peers and their ports.

use serde_json::{Value, json};

use super::{
    Definition,
    common::{domain_pattern, empty},
    line, one_of, reference, set,
};
use crate::{
    model::Direction,
    parse::{
        choice::ACTIONS,
        tier::{MAX_NAME, side},
    },
};

pub(super) fn definitions() -> [Definition; 7] {
    [
        ("ingressRule", rule(Direction::Ingress)),
        ("egressRule", rule(Direction::Egress)),
        ("ingressPeer", peer(Direction::Ingress)),
        ("egressPeer", peer(Direction::Egress)),
        ("ports", ports()),
        ("transport", transport()),
        ("icmp", icmp()),
    ]
}

fn rule(direction: Direction) -> Value {
    let peers = json!({
        "description": "Any of these; every peer where it is left out.",
        "type": "array",
        "items": reference(match direction {
            Direction::Ingress => "ingressPeer",
            Direction::Egress => "egressPeer",
        }),
        "minItems": 1,
    });
    let mut rule = json!({
        "type": "object",
        "properties": {
            "name": line("Shown wherever the rule decides.", MAX_NAME),
            "action": {
                "description": "Pass leaves the tier.",
                "enum": ACTIONS.words(),
            },
            side(direction): peers,
            "ports": {
                "description": "Any of these; every port and protocol where it is left out.",
                "type": "array",
                "items": reference("ports"),
                "minItems": 1,
            },
            "when": reference("when"),
        },
        "required": ["action"],
        "additionalProperties": false,
    });
    if let (Direction::Egress, Value::Object(rule)) = (direction, &mut rule) {
        // Names are for allow-lists: what a name stands for can be more than is known.
        let conditions = json!({
            "if": {"properties": {"action": {"const": "Allow"}}},
            "else": {"properties": {"to": {"items": {"properties": {"domain": false}}}}},
        });
        if let Value::Object(conditions) = conditions {
            rule.extend(conditions);
        }
    }
    rule
}

fn peer(direction: Direction) -> Value {
    let mut properties = json!({
        "workloads": reference("workloads"),
        "cidr": reference("block"),
        "nodes": {"description": "Every address of these nodes.", "$ref": "#/$defs/selector"},
        "ownNode": empty("The node that the subject runs on."),
        "local": local(),
    });
    if let (Direction::Egress, Value::Object(properties)) = (direction, &mut properties) {
        let domain = json!({
            "description": "A name of the DNS; `*.` stands for one or more labels.",
            "type": "string",
            "maxLength": 256,
            "pattern": format!(r"^(\*\.)?{}$", domain_pattern()),
        });
        properties.insert("domain".to_owned(), domain);
    }
    one_of("Exactly one of these.", &properties)
}

fn local() -> Value {
    one_of(
        "Whose socket it is, over the loopback of the subject's node: exactly one of these.",
        &json!({
            "workloads": reference("workloads"),
            "units": set("unit"),
            "cgroups": set("cgroup"),
        }),
    )
}

fn ports() -> Value {
    let octet = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let mut protocol = json!({"description": "All of a protocol, by its number."});
    if let (Value::Object(protocol), Value::Object(octet)) = (&mut protocol, octet) {
        protocol.extend(octet);
    }
    one_of(
        "Exactly one of these.",
        &json!({
            "tcp": reference("transport"),
            "udp": reference("transport"),
            "sctp": reference("transport"),
            "icmp": reference("icmp"),
            "icmpv6": reference("icmp"),
            "protocol": protocol,
            "name": {
                "description": "A port by the name that the destination gives it.",
                "$ref": "#/$defs/portName",
            },
        }),
    )
}

fn transport() -> Value {
    json!({
        "description": "A port, a range, a name, or every port.",
        "type": "object",
        "properties": {
            "port": reference("port"),
            "endPort": {"description": "The last of a range.", "$ref": "#/$defs/port"},
            "name": reference("portName"),
        },
        "dependentRequired": {"endPort": ["port"]},
        "dependentSchemas": {"name": {"properties": {"port": false}}},
        "additionalProperties": false,
    })
}

fn icmp() -> Value {
    json!({
        "description": "A type and a code, or every one.",
        "type": "object",
        "properties": {
            "type": {"type": "integer", "minimum": 0, "maximum": 255},
            "code": {"type": "integer", "minimum": 0, "maximum": 255},
        },
        "dependentRequired": {"code": ["type"]},
        "additionalProperties": false,
    })
}
