//! What several kinds are made of.

use serde_json::{Map, Value, json};

use crate::parse::{
    endpoint::{MAX_PART, MAX_PATH},
    metadata::OF_THE_SERVER,
    selector::OPERATORS,
};

/// A part of a schema and the name that it is referred to by.
pub(super) type Definition = (&'static str, Value);

/// Parts of names, each a regular expression without anchors.
const DNS_PART: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
/// Of a path: the bounds of the kernel count bytes, and these characters.
const PART: &str = "[^/]{1,255}";
const DOMAIN_LABEL: &str = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?";

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// An object of which exactly one field is written.
pub(super) fn one_of(description: &str, properties: &Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
    })
}

/// Text of one line.
pub(super) fn line(description: &str, most: usize) -> Value {
    json!({
        "description": description,
        "type": "string",
        "minLength": 1,
        "maxLength": most,
        "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
    })
}

pub(super) fn cluster_metadata() -> Definition {
    let description = "The object belongs to no namespace.";
    // What an annotation could say is said in `spec`.
    let annotations = json!({
        "type": "object",
        "propertyNames": {"not": {"pattern": "^ringfence\\.io/"}},
        "additionalProperties": {"type": "string"},
    });
    ("clusterMetadata", metadata(description, annotations, None))
}

pub(super) fn namespaced_metadata() -> Definition {
    let namespace = json!({
        "description": "`default` where it is left out.",
        "type": "string",
        "maxLength": 63,
        "pattern": format!("^{DNS_PART}$"),
    });
    let annotations = json!({"type": "object"});
    (
        "namespacedMetadata",
        metadata("Name and labels.", annotations, Some(namespace)),
    )
}

fn metadata(description: &str, annotations: Value, namespace: Option<Value>) -> Value {
    let mut properties = Map::new();
    properties.insert("name".to_owned(), reference("name"));
    properties.extend(namespace.map(|schema| ("namespace".to_owned(), schema)));
    properties.insert("labels".to_owned(), reference("labels"));
    properties.insert("annotations".to_owned(), annotations);
    for field in OF_THE_SERVER {
        properties.insert(field.to_owned(), json!(true));
    }
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": ["name"],
        "additionalProperties": false,
    })
}

pub(super) fn name() -> Definition {
    let schema = json!({
        "type": "string",
        "maxLength": 253,
        "pattern": format!(r"^{DNS_PART}(\.{DNS_PART})*$"),
    });
    ("name", schema)
}

pub(super) fn labels() -> Definition {
    let schema = json!({
        "type": "object",
        "propertyNames": reference("labelKey"),
        "additionalProperties": reference("labelValue"),
    });
    ("labels", schema)
}

pub(super) fn label_key() -> Definition {
    let schema = json!({
        "type": "string",
        "pattern": format!(r"^({DNS_PART}(\.{DNS_PART})*/)?{QUALIFIED}$"),
    });
    ("labelKey", schema)
}

pub(super) fn label_value() -> Definition {
    let schema = json!({"type": "string", "pattern": format!("^({QUALIFIED})?$")});
    ("labelValue", schema)
}

pub(super) fn selector() -> Definition {
    let expression = json!({
        "type": "object",
        "properties": {
            "key": reference("labelKey"),
            "operator": {"enum": OPERATORS},
            "values": {"type": "array", "items": reference("labelValue")},
        },
        "required": ["key", "operator"],
        "additionalProperties": false,
        "if": {"properties": {"operator": {"enum": ["In", "NotIn"]}}},
        "then": {"properties": {"values": {"minItems": 1}}, "required": ["values"]},
        "else": {"properties": {"values": {"maxItems": 0}}},
    });
    let schema = json!({
        "description": "By labels; all parts must hold. Without any, everything.",
        "type": "object",
        "properties": {
            "matchLabels": reference("labels"),
            "matchExpressions": {"type": "array", "items": expression},
        },
        "additionalProperties": false,
    });
    ("selector", schema)
}

pub(super) fn port() -> Definition {
    let schema = json!({"type": "integer", "minimum": 1, "maximum": 65535});
    ("port", schema)
}

pub(super) fn port_name() -> Definition {
    let schema = json!({
        "type": "string",
        "maxLength": 15,
        "pattern": "^(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$",
    });
    ("portName", schema)
}

/// No IPv4 address written as IPv6, in the spelling that is common.
const NOT_MAPPED: &str = r"(?!::[Ff]{4}:([0-9]+\.|[0-9A-Fa-f]+:))";

pub(super) fn address() -> Definition {
    let schema = json!({
        "description": "IPv4 or IPv6.",
        "type": "string",
        "pattern": format!("^{NOT_MAPPED}[0-9A-Fa-f:.]{{2,45}}$"),
    });
    ("address", schema)
}

pub(super) fn prefix() -> Definition {
    let schema = json!({
        "description": "ADDRESS/LENGTH, IPv4 or IPv6.",
        "type": "string",
        "pattern": format!("^{NOT_MAPPED}[0-9A-Fa-f:.]{{2,45}}/(0|[1-9][0-9]{{0,2}})$"),
    });
    ("prefix", schema)
}

pub(super) fn unit() -> Definition {
    let schema = json!({
        "description": "The full name of a unit of systemd.",
        "type": "string",
        "maxLength": MAX_PART,
        "pattern": r"^[^/\s]+\.(service|scope|slice|socket)$",
    });
    ("unit", schema)
}

pub(super) fn cgroup() -> Definition {
    let schema = json!({
        "description": "A path below the cgroup2 root.",
        "type": "string",
        "maxLength": MAX_PATH,
        "pattern": format!(r"^(?!\.\.?(/|$)){PART}(/(?!\.\.?(/|$)){PART})*$"),
    });
    ("cgroup", schema)
}

pub(super) fn workloads() -> Definition {
    let schema = json!({
        "description": "Pods and workloads; a selector that is left out selects all.",
        "type": "object",
        "properties": {
            "namespaceSelector": reference("selector"),
            "selector": reference("selector"),
        },
        "additionalProperties": false,
    });
    ("workloads", schema)
}

pub(super) fn block() -> Definition {
    let schema = json!({
        "type": "object",
        "properties": {
            "block": reference("prefix"),
            "except": {
                "description": "Strictly within `block`.",
                "type": "array",
                "items": reference("prefix"),
            },
        },
        "required": ["block"],
        "additionalProperties": false,
    });
    ("block", schema)
}

pub(super) fn time() -> Definition {
    let schema = json!({
        "description": "RFC 3339.",
        "type": "string",
        "format": "date-time",
        "pattern": concat!(
            "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]",
            r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?",
            "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
        ),
    });
    ("time", schema)
}

/// An object that has no fields.
pub(super) fn empty(description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "properties": {},
        "additionalProperties": false,
    })
}

/// A name of the DNS, with at least two labels.
pub(super) fn domain_pattern() -> String {
    format!(r"({DOMAIN_LABEL}\.)+{DOMAIN_LABEL}\.?")
}
