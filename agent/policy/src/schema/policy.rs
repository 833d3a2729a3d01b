//! `RingfencePolicy`.

mod rule;
mod when;

use serde_json::{Value, json};

use super::common::{self, Definition, line, one_of, reference};
use crate::parse::{
    choice::{DENIED, MODES, TIERS},
    terms::MAX_TEXT,
    tier::MAX_PRIORITY,
};

pub(super) fn spec() -> Value {
    json!({
        "type": "object",
        "properties": {
            "tier": {
                "description": "Quarantine denies everything but the failsafe; Admin is above \
                                NetworkPolicy, Baseline below.",
                "enum": TIERS.words(),
            },
            "priority": {
                "description": "Within the tier; the lower the earlier.",
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_PRIORITY,
            },
            "subject": subject(),
            "mode": {
                "description": "Whether it decides, or only reports what it would deny (audit) or \
                                change (staged).",
                "enum": MODES.words(),
                "default": "enforce",
            },
            "denied": {
                "description": "What a denied peer gets.",
                "enum": DENIED.words(),
                "default": "drop",
            },
            "when": reference("when"),
            "reason": line("Why it is there. Shown wherever it decides.", MAX_TEXT),
            "approvedBy": line("Who approved it.", MAX_TEXT),
            "owner": line("Who answers for it.", MAX_TEXT),
            "ingress": {
                "description": "The first rule that matches decides.",
                "type": "array",
                "items": reference("ingressRule"),
            },
            "egress": {
                "description": "The first rule that matches decides.",
                "type": "array",
                "items": reference("egressRule"),
            },
        },
        "required": ["tier", "subject"],
        "additionalProperties": false,
        "if": {"properties": {"tier": {"const": "Quarantine"}}},
        "then": {"properties": {"ingress": false, "egress": false}},
        "else": {"required": ["priority"]},
    })
}

/// A list without order.
fn set(items: &str) -> Value {
    json!({
        "type": "array",
        "items": reference(items),
        "minItems": 1,
        "uniqueItems": true,
    })
}

fn subject() -> Value {
    one_of(
        "Who the policy is about.",
        &json!({
            "workloads": reference("workloads"),
            "units": set("unit"),
            "cgroups": set("cgroup"),
            "nodes": {"description": "Whole nodes.", "$ref": "#/$defs/selector"},
        }),
    )
}

pub(super) fn definitions() -> Vec<Definition> {
    let mut definitions = vec![
        common::cluster_metadata(),
        common::name(),
        common::labels(),
        common::label_key(),
        common::label_value(),
        common::selector(),
        common::port(),
        common::port_name(),
        common::prefix(),
        common::unit(),
        common::cgroup(),
        common::workloads(),
        common::block(),
        common::time(),
    ];
    definitions.extend(when::definitions());
    definitions.extend(rule::definitions());
    definitions
}
