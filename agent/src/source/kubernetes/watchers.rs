//! One watch for each kind.
//!
//! Listing in pages, resuming with bookmarks and listing anew after 410 are those of `kube::runtime::watcher`; what is
//! heard goes to the store.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::watcher::{self, Config, Event, watcher},
};
use tokio::sync::watch;

use super::{
    arrived::Arrived,
    kind::{Key, Kind},
    object::{self, Observed},
    pause::{Pauses, jittered},
    store::Store,
};

/// Objects in a page of a list, which is in memory as the server sends it.
const PAGE: u32 = 50;

/// Between two looks for a kind that there is not, where no definition tells of it; up to twice that.
const ABSENT: Duration = Duration::from_mins(2);

/// From a definition until the server knows its kind.
const DEFINED: Duration = Duration::from_secs(20);

/// Follows a kind for ever. One that there is not is looked for when a definition changes, and now and then.
pub(super) async fn follow(
    kind: Kind,
    client: Client,
    store: Arc<Store>,
    mut definitions: watch::Receiver<u64>,
) {
    let mut patience = Duration::ZERO;
    loop {
        definitions.mark_unchanged();
        let resource = chosen(&client, kind).await;
        let ended = follow_defined(kind, resource, client.clone(), &store, patience).await;
        if ended == Ended::OtherVersion {
            continue;
        }
        patience = tokio::select! {
            Ok(()) = definitions.changed() => DEFINED,
            () = tokio::time::sleep(jittered(ABSENT)) => Duration::ZERO,
        };
    }
}

/// Why a watch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// There is no such kind.
    Absent,
    /// The server has it in another version than that which was watched.
    OtherVersion,
}

/// The kind in the version that the server has; the newer one where it has both, or neither.
async fn chosen(client: &Client, kind: Kind) -> ApiResource {
    let first = kind.resource();
    match kind.older_resource() {
        Some(older) if is_undefined(client, &first).await && is_defined(client, &older).await => {
            older
        }
        _ => first,
    }
}

/// Ends if there is no such kind, after so long.
async fn follow_defined(
    kind: Kind,
    resource: ApiResource,
    client: Client,
    store: &Store,
    patience: Duration,
) -> Ended {
    let begun = Instant::now();
    let api: Api<Arrived> = Api::all_with(client.clone(), &resource);
    let config = Config::default().page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let mut pauses = Pauses::default();
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    while let Some(event) = events.next().await {
        let pause = pauses.after(&event);
        match event {
            Ok(Event::Init) => {
                store.lists(kind);
                seen.clear();
            }
            Ok(Event::InitApply(object)) => {
                seen.extend(object::key(kind, &object));
                put(store, kind, object);
            }
            Ok(Event::InitDone) => {
                store.listed(kind, &seen);
                seen.clear();
            }
            Ok(Event::Apply(object)) => put(store, kind, object),
            Ok(Event::Delete(object)) => {
                if let Some(key) = object::key(kind, &object) {
                    store.delete(&key);
                }
            }
            Err(error)
                if kind.may_be_absent()
                    && code(&error) == Some(404)
                    && is_undefined(&client, &resource).await =>
            {
                if chosen(&client, kind).await.version != resource.version {
                    return Ended::OtherVersion;
                }
                if store.absent(kind) && begun.elapsed() >= patience {
                    return Ended::Absent;
                }
            }
            Err(watcher::Error::WatchFailed(kube::Error::SerdeError(error))) => {
                // What has happened is lost, unless everything is listed anew.
                tracing::warn!(%error, "the watch of {} is begun anew", kind.plural());
                store.failed(kind, error.to_string());
                let config = Config::default().page_size(PAGE);
                events.set(watcher(api.clone(), config));
            }
            Err(error) => {
                let told = explained(&error);
                tracing::warn!(error = told, "the watch of {} is disturbed", kind.plural());
                if code(&error) == Some(403) {
                    store.forbidden(kind, told);
                } else {
                    store.failed(kind, told);
                }
            }
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    Ended::Absent
}

fn put(store: &Store, kind: Kind, object: Arrived) {
    if let Some(observed) = Observed::read(kind, object) {
        for error in &observed.errors {
            tracing::error!("{error}");
        }
        store.put(observed);
    }
}

/// What the server has answered about the kind, and not about one object of it.
fn code(error: &watcher::Error) -> Option<u16> {
    use kube::Error::Api;
    match error {
        watcher::Error::InitialListFailed(Api(status))
        | watcher::Error::WatchStartFailed(Api(status)) => Some(status.code),
        _ => None,
    }
}

/// Whether the server says, where it tells of all kinds, that there is no such. What answers 404 may be something that
/// stands in front of a server that is away.
async fn is_undefined(client: &Client, resource: &ApiResource) -> bool {
    let Ok(groups) = client.list_api_groups().await else {
        return false;
    };
    let mut versions = groups.groups.iter().flat_map(|group| &group.versions);
    if !versions.any(|version| version.group_version == resource.api_version) {
        return true;
    }
    let listed = client.list_api_group_resources(&resource.api_version).await;
    listed.is_ok_and(|list| {
        list.resources
            .iter()
            .all(|other| other.name != resource.plural)
    })
}

async fn is_defined(client: &Client, resource: &ApiResource) -> bool {
    let listed = client.list_api_group_resources(&resource.api_version).await;
    listed.is_ok_and(|list| {
        let mut kinds = list.resources.iter();
        kinds.any(|known| known.name == resource.plural)
    })
}

/// With what has caused it, and without what the library adds.
fn explained(error: &watcher::Error) -> String {
    use kube::Error::Api;
    match error {
        watcher::Error::InitialListFailed(Api(status))
        | watcher::Error::WatchStartFailed(Api(status))
        | watcher::Error::WatchFailed(Api(status))
        | watcher::Error::WatchError(status) => {
            format!("{} ({})", status.message, status.code)
        }
        error => {
            let mut told = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                let inner_told = inner.to_string();
                if !told.contains(&inner_told) {
                    told = format!("{told}: {inner_told}");
                }
                cause = inner.source();
            }
            told
        }
    }
}
