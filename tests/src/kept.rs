//! What an agent has kept of a Kubernetes API that it does not reach: it enforces that, until the API answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::lab::Lab;

/// The node that pods of [`pod`] are on.
pub const NODE: &str = "node-1";

/// An agent that has heard of these objects and of their namespaces, and hears of nothing more.
pub fn agent(lab: &Lab, objects: &[Value]) -> Result<Agent> {
    agent_beside(lab, objects, &[])
}

/// The same, beside files.
pub fn agent_beside(lab: &Lab, objects: &[Value], files: &[&Path]) -> Result<Agent> {
    let state = lab.folder().join("agent/state");
    fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let header = json!({"version": 1, "server": null, "servers": []});
    let named = objects
        .iter()
        .filter_map(|object| object["metadata"]["namespace"].as_str());
    let named: BTreeSet<&str> = named.collect();
    let namespaces: Vec<Value> = named.into_iter().map(namespace).collect();
    let footer = json!({"objects": namespaces.len() + objects.len()});
    let all = namespaces.iter().chain(objects);
    let lines = [&header].into_iter().chain(all).chain([&footer]);
    let lines: Vec<String> = lines.map(Value::to_string).collect();
    write(&state.join("kubernetes.jsonl"), &(lines.join("\n") + "\n"))?;
    let kubeconfig = lab.write("kubeconfig", &nowhere().to_string())?;
    let kubeconfig = kubeconfig.to_str().context("a path that is no text")?;
    let agent = Agent::prepare(lab, "agent", files)?;
    Ok(agent.with(&["--kubeconfig", kubeconfig, "--node", NODE]))
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A pod of the agent's node, with one label.
pub fn pod(namespace: &str, name: &str, uid: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": uid, "labels": {"app": app},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": NODE},
        "status": {"phase": "Pending"},
    })
}

/// An object that the API had no more when it was kept.
pub fn gone(object: &Value) -> Value {
    json!({"gone": object})
}

/// Nobody reaches pods of this label.
pub fn unreachable(namespace: &str, app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": "unreachable", "uid": "policy-1"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]},
    })
}

/// Of a server that nobody is at.
fn nowhere() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "none", "user": {}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
