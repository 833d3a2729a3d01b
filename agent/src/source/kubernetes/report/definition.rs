//! The kind as a definition for an API server.

use serde_json::{Value, json};

use super::{HELD, MANAGER, NAME, PLURAL};
use crate::source::kubernetes::kind::OURS;

/// No `status` of its own (subresource): agents write nothing else, so there is nothing to tell apart.
pub(crate) fn definition() -> Value {
    let (group, version) = OURS;
    let text = || json!({"type": "string"});
    let count = || json!({"type": "integer", "minimum": 0});
    let fields = json!({
        "agentVersion": text(),
        "enforcing": {"type": "boolean"},
        "generation": count(),
        "complete": {"type": "boolean"},
        "policies": count(),
        "errors": count(),
        "refused": text(),
        "renewed": {"type": "string", "format": "date-time"},
        "kinds": {"type": "array", "maxItems": 16, "items": object(&json!({
            "kind": text(),
            "objects": count(),
            "digest": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "resourceVersion": text(),
        }))},
        "held": {"type": "array", "maxItems": HELD, "items": object(&json!({
            "object": text(),
            "resourceVersion": text(),
            "generation": {"type": "integer", "format": "int64"},
            "inForce": text(),
            "message": text(),
        }))},
    });
    let column = |name: &str, of: &str, path: &str, priority: i32| json!({"name": name, "type": of, "jsonPath": path, "priority": priority});
    // By the server's clock, where the node's says when it was written.
    let seen = format!(".metadata.managedFields[?(@.manager==\"{MANAGER}\")].time");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{group}")},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {
                "kind": NAME,
                "listKind": format!("{NAME}List"),
                "plural": PLURAL,
                "singular": NAME.to_lowercase(),
                "shortNames": ["rfa"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    column("Enforcing", "boolean", ".status.enforcing", 0),
                    column("Generation", "integer", ".status.generation", 0),
                    column("Policies", "integer", ".status.policies", 0),
                    column("Errors", "integer", ".status.errors", 0),
                    column("Version", "string", ".status.agentVersion", 0),
                    column("Seen", "date", &seen, 0),
                    column("Refused", "string", ".status.refused", 1),
                    column("Age", "date", ".metadata.creationTimestamp", 1),
                ],
                "schema": {"openAPIV3Schema": {
                    "description": "What the agent of a node has in force. Agents write it; `ringfence status --cluster` reads it.",
                    "type": "object",
                    "required": ["status"],
                    "properties": {
                        "apiVersion": text(),
                        "kind": text(),
                        "metadata": {"type": "object"},
                        "status": object(&fields),
                    },
                }},
            }],
        },
    })
}

/// Agents of other versions say other things, too.
fn object(fields: &Value) -> Value {
    json!({
        "type": "object",
        "properties": fields,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
