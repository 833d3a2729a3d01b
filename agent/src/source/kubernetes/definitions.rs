//! Kinds that are defined while the agent runs.

use futures::StreamExt as _;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::watcher::{Config, Event, watcher},
};
use tokio::sync::watch;

use super::pause::Pauses;

/// Counts up whenever a definition has come, changed or gone.
///
/// Who may not watch definitions tries now and then all the same.
pub(super) async fn follow(client: Client, changed: watch::Sender<u64>) {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let resource = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
    // Their names: a schema can have hundreds of kilobytes.
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let mut events = std::pin::pin!(watcher(api, Config::default()));
    let mut pauses = Pauses::default();
    while let Some(event) = events.next().await {
        let pause = pauses.after(&event);
        match event {
            // Each new try begins so.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => changed.send_modify(|count| *count = count.wrapping_add(1)),
            Err(error) => tracing::debug!(%error, "kinds that are defined later are found slowly"),
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}
