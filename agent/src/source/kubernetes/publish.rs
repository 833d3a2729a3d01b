//! Tells in the API what this node has in force of it, so that a cluster can be asked.
//!
//! Nothing depends on it: where it cannot be told, `status` says why.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    pause::{jittered, part},
    report::{MANAGER, Report, Summary, resource},
    store::{Standing, Store},
};

/// How many of these objects are written in a second, by all agents of a cluster together, while policy changes.
const RATE: u32 = 50;

/// Between two of one agent, in a small cluster.
const LEAST: Duration = Duration::from_secs(1);

/// What says nothing new is written again after so long, up to twice that.
const RENEW: Duration = Duration::from_mins(5);

/// After a failure; up to twice that, and each time twice as long, up to four minutes and their double.
const AGAIN: Duration = Duration::from_secs(15);
const DOUBLINGS: u32 = 4;

/// A server that does not answer by then is tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells it for ever: changes soon, and now and then that it is still so.
pub(super) async fn publish(
    client: Client,
    store: Arc<Store>,
    mut definitions: watch::Receiver<u64>,
) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource());
    let mut standing = store.standing();
    let mut told: Option<Standing> = None;
    let mut renewal = Instant::now();
    let mut failures = 0;
    loop {
        until_news(told.as_ref(), &mut standing, renewal).await;
        let (nodes, uid) = store.among_nodes();
        let pause = pause(nodes);
        // What happens meanwhile is told at once.
        sleep(pause.mul_f64(part())).await;
        let now = standing.borrow_and_update().clone();
        definitions.mark_unchanged();
        let trouble = match uid {
            Some(uid) => write(&api, &store.node(), &uid, &now).await.err(),
            None => Some(format!("the API has no node `{}`", store.node())),
        };
        store.publishing(trouble.clone());
        let Some(trouble) = trouble else {
            failures = 0;
            told = Some(now);
            renewal = Instant::now() + jittered(RENEW);
            sleep(pause).await;
            continue;
        };
        tracing::debug!(trouble, "what is in force is not told in the API");
        let again = jittered(AGAIN * 2_u32.pow(failures.min(DOUBLINGS)));
        failures += 1;
        tokio::select! {
            () = sleep(again) => {}
            // The kind may be defined now.
            Ok(()) = definitions.changed() => failures = 0,
        }
    }
}

/// Waits until there is something to tell.
async fn until_news(
    told: Option<&Standing>,
    standing: &mut watch::Receiver<Standing>,
    renewal: Instant,
) {
    loop {
        let is_known = standing.borrow().summary.as_ref() != &Summary::default();
        let is_news = told.is_none_or(|told| is_other(told, &standing.borrow()));
        if is_known && is_news {
            return;
        }
        tokio::select! {
            // The store lives as long as this does.
            _ = standing.changed() => {}
            () = tokio::time::sleep_until(renewal), if is_known => return,
        }
    }
}

/// Whether somebody should hear of it. The generation counts up with each pod.
fn is_other(old: &Standing, new: &Standing) -> bool {
    let old = Standing {
        generation: new.generation,
        ..old.clone()
    };
    old != *new
}

/// Between two of one agent: all of them hear of a change at once.
fn pause(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * nodes / RATE).max(LEAST)
}

async fn write(
    api: &Api<DynamicObject>,
    node: &str,
    uid: &str,
    standing: &Standing,
) -> Result<(), String> {
    let object = object(node, uid, standing);
    let how = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&object);
    match timeout(PATIENCE, api.patch(node, &how, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(format!(
            "the server has no kind `{}`: `ringfence schema --crds` defines it",
            resource().kind
        )),
        Ok(Err(kube::Error::Api(status))) => Err(format!("{} ({})", status.message, status.code)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer after {} s", PATIENCE.as_secs())),
    }
}

/// The node owns it: it goes with the node.
fn object(node: &str, uid: &str, standing: &Standing) -> Value {
    let Standing {
        summary,
        complete,
        enforcing,
        generation,
        refused,
    } = standing;
    let Summary {
        kinds,
        errors,
        held,
    } = &**summary;
    let report = Report {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        enforcing: *enforcing,
        generation: *generation,
        complete: *complete,
        policies: kinds.iter().map(|tally| tally.objects).sum(),
        errors: *errors,
        refused: refused.clone(),
        kinds: kinds.clone(),
        held: held.clone(),
        renewed: jiff::Timestamp::now().to_string(),
    };
    let kind = resource();
    json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": node,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}],
        },
        "status": report,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_cluster_writes_no_faster_than_a_small_one() {
        assert_eq!(pause(0), LEAST);
        assert_eq!(pause(3), LEAST);
        assert_eq!(pause(1000), Duration::from_secs(20));
    }

    #[test]
    fn a_generation_alone_is_no_news() {
        let old = Standing::default();
        let later = Standing {
            generation: 9,
            ..old.clone()
        };
        assert!(!is_other(&old, &later));
        let refused = Standing {
            refused: Some("no room".to_owned()),
            ..later.clone()
        };
        assert!(is_other(&later, &refused));
    }

    #[test]
    fn thousands_of_policies_with_errors_make_no_large_object() {
        use crate::source::kubernetes::{
            kind::Kind,
            report::{HELD, Held, TEXT, Tally},
        };
        let held = Held {
            object: format!("NetworkPolicy/{}/{}", "n".repeat(63), "p".repeat(253)),
            resource_version: u64::MAX.to_string(),
            generation: Some(i64::MAX),
            in_force: Some(u64::MAX.to_string()),
            message: "\u{1F980}".repeat(TEXT),
        };
        let tally = |kind: Kind| Tally {
            kind: kind.name().to_owned(),
            objects: 5000,
            resource_version: Some(u64::MAX.to_string()),
            ..Tally::default()
        };
        let standing = |held: Vec<Held>| Standing {
            summary: Arc::new(Summary {
                kinds: Kind::POLICIES.map(tally).into(),
                errors: 5000,
                held,
            }),
            ..Standing::default()
        };
        let size = |held| object("node", "uid", &standing(held)).to_string().len();
        let (usual, most) = (size(Vec::new()), size(vec![held; HELD]));
        assert!(usual < 1024, "{usual}");
        assert!(most < 48 << 10, "{most}");
    }
}
