//! `NameTable`.

use serde_json::{Value, json};

use super::common::{self, Definition, reference};

pub(super) fn spec() -> Value {
    json!({
        "type": "object",
        "properties": {
            "names": {
                "description": "Addresses by name. Several tables add up.",
                "type": "object",
                "propertyNames": {
                    "maxLength": 254,
                    "pattern": format!("^{}$", common::domain_pattern()),
                },
                "additionalProperties": {
                    "type": "array",
                    "items": reference("address"),
                    "uniqueItems": true,
                },
            },
        },
        "required": ["names"],
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
        common::address(),
    ]
}
