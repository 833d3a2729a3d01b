//! The taint that keeps pods off a node until the agent enforces there.
//!
//! Whoever sets up nodes registers them with it (`kubelet --register-with-taints=ringfence.io/not-ready=:NoSchedule`); the
//! agent takes it off when it enforces, and never puts it on.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::store::Store;

const NOT_READY: &str = "ringfence.io/not-ready";

/// Until the first look, and between two while it cannot be taken off.
const LOOK: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(30);

/// Takes it off once the node enforces; returns when it is off, if it was there at all.
pub(super) async fn remove(client: Client, store: Arc<Store>) {
    while !store.is_enforced() {
        tokio::time::sleep(LOOK).await;
    }
    let (nodes, name) = (Api::<Node>::all(client), store.node());
    loop {
        match try_remove(&nodes, &name).await {
            Ok(was_there) => {
                if was_there {
                    tracing::info!(node = name, "the node takes pods: {NOT_READY} is removed");
                }
                return;
            }
            // Somebody else has changed the node meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            // The name may be another's, and then there is nothing to remove.
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => {
                tracing::warn!(node = name, %error, "cannot remove the taint {NOT_READY}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Whether it was there.
async fn try_remove(nodes: &Api<Node>, name: &str) -> kube::Result<bool> {
    let node = nodes.get(name).await?;
    let Some(patch) = without(&node) else {
        return Ok(false);
    };
    let (how, patch) = (PatchParams::default(), Patch::Merge(patch));
    nodes.patch(name, &how, &patch).await.map(|_| true)
}

/// What makes a node one without the taint, as long as it is this version of it; `None` if it has none.
fn without(node: &Node) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let kept: Vec<&Taint> = taints
        .iter()
        .filter(|taint| taint.key != NOT_READY)
        .collect();
    let version = &node.metadata.resource_version;
    (kept.len() < taints.len())
        .then(|| json!({"metadata": {"resourceVersion": version}, "spec": {"taints": kept}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(taints: &Value) -> Node {
        let node = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}});
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn only_our_taint_goes_and_only_of_the_version_that_was_seen() {
        let other = json!({"key": "a", "effect": "NoExecute"});
        let ours = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let patch = without(&node(&json!([other, ours]))).unwrap();
        let expected = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}});
        assert_eq!(patch, expected);
        assert_eq!(without(&node(&json!([other]))), None);
        assert_eq!(without(&Node::default()), None);
    }
}
