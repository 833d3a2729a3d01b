//! `Workload`.

use serde_json::{Value, json};

use super::common::{self, Definition, one_of, reference};
use crate::parse::{choice::PROTOCOLS, endpoint::MAX_PATH};

pub(super) fn spec() -> Value {
    let endpoint = one_of(
        "Where its traffic is judged, on the node where it runs.",
        &json!({
            "interface": {
                "description": "The host side of its interface.",
                "type": "string",
                "minLength": 1,
                "maxLength": 15,
                "pattern": r"^[^/:\s]*$",
                "not": {"enum": [".", ".."]},
            },
            "netns": {
                "description": "Its network namespace, by an absolute path.",
                "type": "string",
                "maxLength": MAX_PATH,
                "pattern": r"^(/[^/]{0,255})+$",
                "not": {"pattern": r"(^|/)\.\.(/|$)"},
            },
            "cgroup": reference("cgroup"),
            "systemdUnit": reference("unit"),
        }),
    );
    json!({
        "type": "object",
        "properties": {
            "addresses": {
                "description": "Those that lead to it alone.",
                "type": "array",
                "items": reference("address"),
                "uniqueItems": true,
            },
            "ports": {
                "description": "Ports that policies may name.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": reference("portName"),
                        "port": reference("port"),
                        "protocol": {"enum": PROTOCOLS.words(), "default": "TCP"},
                    },
                    "required": ["name", "port"],
                    "additionalProperties": false,
                },
            },
            "node": {
                "description": "The node it runs on.",
                "$ref": "#/$defs/name",
            },
            "endpoint": endpoint,
        },
        "additionalProperties": false,
    })
}

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        common::namespaced_metadata(),
        common::name(),
        common::labels(),
        common::label_key(),
        common::label_value(),
        common::port(),
        common::port_name(),
        common::address(),
        common::unit(),
        common::cgroup(),
    ]
}
