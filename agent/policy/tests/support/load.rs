//! From API objects to the world, the way that every command takes.

use agent_policy::{
    load::{InputFile, load},
    model::World,
};
use serde_json::{Value, json};

/// The world of these documents. Nothing in the vectors may be in error.
pub(crate) fn world(documents: &[Value]) -> World {
    let text: Vec<String> = documents.iter().map(complete).collect();
    let file = InputFile {
        name: "vectors".into(),
        bytes: text.join("\n---\n").into_bytes(),
    };
    let loaded = load([file]);
    let errors: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    loaded.world
}

/// Some policies of cyclonus came without their kind, which its own client fills in.
fn complete(document: &Value) -> String {
    let mut document = document.clone();
    if document["kind"].is_null() {
        document["kind"] = json!("NetworkPolicy");
    }
    if document["apiVersion"].is_null() {
        document["apiVersion"] = json!("networking.k8s.io/v1");
    }
    document.to_string()
}
