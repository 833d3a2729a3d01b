//! Our kinds as definitions for a Kubernetes API server, from the same schemas.
//!
//! What an API server takes is less than JSON Schema: no references, no conditions, no look-around in patterns.
//! What is left out here the parsers judge, in the agent, as they do in a file. So nothing that they do not know
//! is dropped on the way: fields without a meaning are kept, and are an error there.

use serde_json::{Map, Value, json};

use super::{API_VERSION, Kind};

/// Words that a choice may have here; there are hundreds of time zones.
const MOST_WORDS: usize = 64;

/// How a kind appears in a cluster. `None` of what only files have.
struct Form {
    plural: &'static str,
    short: &'static str,
    scope: &'static str,
    /// Name, type, path, and whether only wide output has it.
    columns: &'static [(&'static str, &'static str, &'static str, bool)],
    /// Conditions on `spec`, of which old servers take no notice.
    rules: &'static [(&'static str, &'static str)],
}

/// A list of the definitions of all kinds that a cluster may have.
pub fn crds() -> Value {
    let definitions = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some(crd(kind, &form(kind)?)));
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": definitions.collect::<Vec<_>>(),
    })
}

fn form(kind: Kind) -> Option<Form> {
    let form = match kind {
        Kind::RingfencePolicy => Form {
            plural: "ringfencepolicies",
            short: "rfp",
            scope: "Cluster",
            columns: &[
                ("Tier", "string", ".spec.tier", false),
                ("Priority", "integer", ".spec.priority", false),
                ("Mode", "string", ".spec.mode", false),
                ("Owner", "string", ".spec.owner", true),
                ("Reason", "string", ".spec.reason", true),
            ],
            rules: &[
                (
                    "self.tier != 'Quarantine' || (!has(self.ingress) && !has(self.egress))",
                    "a policy of tier Quarantine has no rules",
                ),
                (
                    "self.tier == 'Quarantine' || has(self.priority)",
                    "a policy of this tier needs a priority",
                ),
            ],
        },
        Kind::NameTable => Form {
            plural: "nametables",
            short: "rfn",
            scope: "Cluster",
            columns: &[],
            rules: &[],
        },
        Kind::Workload => Form {
            plural: "workloads",
            short: "rfw",
            scope: "Namespaced",
            columns: &[
                ("Addresses", "string", ".spec.addresses", false),
                ("Node", "string", ".spec.node", false),
            ],
            rules: &[],
        },
        Kind::PolicyTest => return None,
    };
    Some(form)
}

fn crd(kind: Kind, form: &Form) -> Value {
    let Form {
        plural,
        short,
        scope,
        columns,
        rules,
    } = form;
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    let definitions = kind.definitions();
    let whole = kind.object();
    let spec = whole
        .get("properties")
        .and_then(|fields| fields.get("spec"));
    let mut spec = spec.map_or(Value::Null, |spec| structural(spec, &definitions));
    if let (Value::Object(spec), false) = (&mut spec, rules.is_empty()) {
        let rules: Vec<_> = rules
            .iter()
            .map(|(rule, message)| json!({"rule": rule, "message": message}))
            .collect();
        spec.insert("x-kubernetes-validations".to_owned(), rules.into());
    }
    let mut shown: Vec<Value> = columns
        .iter()
        .map(|(name, of, path, is_wide)| {
            json!({"name": name, "type": of, "jsonPath": path, "priority": i32::from(*is_wide)})
        })
        .collect();
    shown.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "kind": kind.name(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.name().to_lowercase(),
                "shortNames": [short],
                "categories": ["ringfence"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": shown,
                "schema": {
                    "openAPIV3Schema": {
                        "description": kind.description(),
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": spec,
                        },
                    },
                },
            }],
        },
    })
}

/// The part of a schema that an API server takes.
fn structural(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let mut out = Map::new();
    let referred = schema.get("$ref").and_then(Value::as_str);
    let referred = referred.and_then(|path| definitions.get(path.strip_prefix("#/$defs/")?));
    if let Some(Value::Object(referred)) = referred.map(|schema| structural(schema, definitions)) {
        out = referred;
    }
    let Value::Object(schema) = schema else {
        return Value::Object(out);
    };
    for (key, value) in schema {
        match key.as_str() {
            "type" | "description" | "format" | "required" | "minimum" | "maximum"
            | "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => {
                out.insert(key.clone(), value.clone());
            }
            "pattern" => out.extend(pattern(value).map(|pattern| (key.clone(), pattern))),
            "enum" => out.extend(words(value)),
            "items" => {
                out.insert(key.clone(), structural(value, definitions));
            }
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                let fields: Map<_, _> = fields
                    .map(|(name, field)| (name.clone(), structural(field, definitions)))
                    .collect();
                if !fields.is_empty() {
                    out.insert(key.clone(), fields.into());
                }
                out.insert(
                    "x-kubernetes-preserve-unknown-fields".to_owned(),
                    true.into(),
                );
            }
            // A map; that no other field is known is for the parsers to say.
            "additionalProperties" if value.is_object() => {
                out.insert(key.clone(), structural(value, definitions));
            }
            // Left to the parsers.
            _ => {}
        }
    }
    Value::Object(out)
}

/// The words of a choice, and their type.
fn words(value: &Value) -> Vec<(String, Value)> {
    let words = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = vec![("type".to_owned(), json!("string"))];
    if words.len() <= MOST_WORDS {
        out.push(("enum".to_owned(), value.clone()));
    }
    out
}

/// As Go has it; `None` if it cannot.
fn pattern(value: &Value) -> Option<Value> {
    let pattern = value.as_str()?;
    let looks_around = ["(?=", "(?!", "(?<"]
        .iter()
        .any(|look| pattern.contains(look));
    (!looks_around).then(|| pattern.replace(r"\u00", r"\x").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema in a schema, with the path to it.
    fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Map<String, Value>)) {
        let schema = schema.as_object().unwrap();
        look(path, schema);
        for (name, field) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            walk(&format!("{path}.{name}"), field, look);
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(inner) {
                walk(&format!("{path}.{inner}"), schema, look);
            }
        }
    }

    #[test]
    fn what_an_api_server_refuses_is_in_no_definition() {
        let crds = crds();
        let crds = crds["items"].as_array().unwrap();
        assert_eq!(crds.len(), 3);
        for crd in crds {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk("", schema, &mut |path, schema| {
                assert!(
                    schema.contains_key("type"),
                    "{path} has no type: {schema:?}"
                );
                let both = schema.contains_key("properties")
                    && schema.contains_key("additionalProperties");
                assert!(!both, "{path}");
                for (key, value) in schema {
                    let known = [
                        "type",
                        "description",
                        "format",
                        "required",
                        "minimum",
                        "maximum",
                        "minLength",
                        "maxLength",
                        "minItems",
                        "maxItems",
                        "minProperties",
                        "maxProperties",
                        "pattern",
                        "enum",
                        "items",
                        "properties",
                        "additionalProperties",
                        "x-kubernetes-preserve-unknown-fields",
                        "x-kubernetes-validations",
                    ];
                    assert!(known.contains(&key.as_str()), "{path}: {key}");
                    if key == "pattern" {
                        assert!(!value.as_str().unwrap().contains("(?"), "{path}: {value}");
                    }
                }
            });
        }
    }

    #[test]
    fn a_policy_shows_its_tier_and_is_found_by_a_short_name() {
        let crds = crds();
        let policy = crds["items"].as_array().unwrap().iter();
        let policy = policy
            .clone()
            .find(|crd| crd["spec"]["names"]["kind"] == "RingfencePolicy")
            .unwrap();
        assert_eq!(policy["metadata"]["name"], "ringfencepolicies.ringfence.io");
        assert_eq!(policy["spec"]["names"]["shortNames"][0], "rfp");
        let version = &policy["spec"]["versions"][0];
        assert_eq!(
            version["additionalPrinterColumns"][0]["jsonPath"],
            ".spec.tier"
        );
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let tiers = spec["properties"]["tier"]["enum"].as_array().unwrap();
        assert!(tiers.contains(&json!("Admin")), "{tiers:?}");
        let rule = &spec["properties"]["ingress"]["items"]["properties"];
        assert_eq!(
            rule["ports"]["items"]["properties"]["tcp"]["properties"]["port"]["maximum"],
            65535
        );
    }
}
