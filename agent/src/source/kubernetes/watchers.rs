//! One watch for each kind.
//!
//! Listing in pages, resuming with bookmarks and listing anew after 410 are those of `kube::runtime::watcher`; what is
//! heard goes to the store.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    runtime::watcher::{self, Config, Event, watcher},
};
use tokio::sync::watch;

use super::{
    arrived::Arrived,
    kind::{Key, Kind},
    object::{self, Observed},
    store::Store,
};

/// Objects in a page of a list, which is in memory as the server sends it.
const PAGE: u32 = 50;

/// After a failure; up to twice that, and each time twice as long, up to half a minute and its double.
const PAUSE: Duration = Duration::from_millis(500);
const DOUBLINGS: u32 = 6;

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
        follow_defined(kind, client.clone(), &store, patience).await;
        patience = tokio::select! {
            Ok(()) = definitions.changed() => DEFINED,
            () = tokio::time::sleep(jittered(ABSENT)) => Duration::ZERO,
        };
    }
}

/// Not all agents at once.
pub(super) fn jittered(least: Duration) -> Duration {
    least.mul_f64(1.0 + part())
}

/// From 0 to 1, at random.
pub(super) fn part() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u16::try_from(random % 1000).unwrap_or(0)) / 1000.0
}

/// Ends if there is no such kind, after so long.
async fn follow_defined(kind: Kind, client: Client, store: &Store, patience: Duration) {
    let begun = Instant::now();
    let api: Api<Arrived> = Api::all_with(client.clone(), &kind.resource());
    let config = Config::default().page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let mut failures = 0;
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    while let Some(event) = events.next().await {
        match &event {
            // Each new try begins so, and says nothing yet.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => failures = 0,
            Err(_) => failures += 1,
        }
        let has_failed = event.is_err();
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
                    && is_not_found(&error)
                    && is_undefined(&client, kind).await =>
            {
                if store.absent(kind) && begun.elapsed() >= patience {
                    return;
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
                let error = explained(&error);
                tracing::warn!(error, "the watch of {} is disturbed", kind.plural());
                store.failed(kind, error);
            }
        }
        if has_failed {
            // The library's own pauses end with each new try, and so would never grow.
            let doublings = failures.min(DOUBLINGS);
            tokio::time::sleep(jittered(PAUSE * 2_u32.pow(doublings))).await;
        }
    }
}

fn put(store: &Store, kind: Kind, object: Arrived) {
    if let Some(observed) = Observed::read(kind, object) {
        for error in &observed.errors {
            tracing::error!("{error}");
        }
        store.put(observed);
    }
}

/// The kind, and not one object of it.
fn is_not_found(error: &watcher::Error) -> bool {
    use kube::Error::Api;
    match error {
        watcher::Error::InitialListFailed(Api(status))
        | watcher::Error::WatchStartFailed(Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Whether the server says, where it tells of all kinds, that there is no such. What answers 404 may be something that
/// stands in front of a server that is away.
async fn is_undefined(client: &Client, kind: Kind) -> bool {
    let resource = kind.resource();
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
