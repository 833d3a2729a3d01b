//! All objects of the API, and where the pods of this node are.
//!
//! Of each object the last version without errors counts. What is wrong *between* objects takes down no more
//! than one of them, or of a pod one address.

mod compose;
mod conflicts;
mod progress;
mod shared;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use agent_policy::model::{Change, EndpointSpec, ObjectName, Workload, World};
use tokio::sync::{Notify, watch};

pub(crate) use self::summary::Standing;
use self::{progress::Progress, shared::Shared, summary::Versions};
use super::{
    kind::{Key, Kind},
    object::Observed,
    placement::Placement,
    report::Summary,
};
use crate::control::status::KubernetesStatus;

/// Of errors, as many are shown.
const ERRORS: usize = 500;

/// Shared by the watchers, who fill it, by who finds pods, and by the controller, who is woken.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Told of each change.
    changed: Notify,
    /// The node enforces what is here.
    enforced: AtomicBool,
    /// What of it the node enforces.
    standing: watch::Sender<Standing>,
}

struct Inner {
    /// The name of this node.
    node: String,
    objects: BTreeMap<Key, Entry>,
    /// By the UID of the pod.
    placements: BTreeMap<String, Placement>,
    /// The addresses that each had when it was first seen where it is.
    first_seen: BTreeMap<String, BTreeSet<IpAddr>>,
    pods: BTreeMap<Arc<str>, Key>,
    /// Who says that an address is its own.
    claims: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// Who says that it is to be held there.
    points: BTreeMap<EndpointSpec, BTreeSet<Key>>,
    /// What each object adds to the world.
    in_force: BTreeMap<Key, Vec<Change>>,
    /// What is wrong between objects.
    conflicts: BTreeMap<Key, Vec<String>>,
    shared: Shared,
    /// Objects that may add something else now.
    dirty: BTreeSet<Key>,
    /// The world of files that was looked at last.
    files: Arc<World>,
    /// Where the API is: as its clients reach it, where its servers are, and where it was in an earlier run.
    servers: [BTreeSet<SocketAddr>; 3],
    progress: BTreeMap<Kind, Progress>,
    /// What was kept of an earlier run is there.
    was_kept: bool,
    /// Why nothing is kept.
    keeping: Option<String>,
    reached: Option<String>,
    /// What the world that was put together last has of policies; where they have changed since, it is not that any more.
    summary: Arc<Summary>,
    is_revised: bool,
    /// Why nothing is published.
    publishing: Option<String>,
}

/// The last good version of an object, and what is wrong with the last one.
struct Entry {
    uid: Arc<str>,
    created: i64,
    is_ending: bool,
    /// The API has it no more, or its containers have ended; its sandbox is still there.
    is_gone: bool,
    json: Arc<str>,
    changes: Box<[Change]>,
    errors: Vec<String>,
    claimed: Box<[IpAddr]>,
    point: Option<EndpointSpec>,
    /// Of a policy.
    versions: Option<Box<Versions>>,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) key: Key,
    pub(super) uid: Arc<str>,
    pub(super) message: String,
}

/// A pod as the API knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPod {
    pub(crate) name: ObjectName,
    /// As its cgroups have it.
    pub(crate) uid: String,
    pub(crate) host_network: bool,
}

impl Store {
    pub(crate) fn new(node: String) -> Self {
        let progress = Kind::ALL.map(|kind| (kind, Progress::default())).into();
        Self {
            inner: Mutex::new(Inner {
                node,
                objects: BTreeMap::new(),
                placements: BTreeMap::new(),
                first_seen: BTreeMap::new(),
                pods: BTreeMap::new(),
                claims: BTreeMap::new(),
                points: BTreeMap::new(),
                in_force: BTreeMap::new(),
                conflicts: BTreeMap::new(),
                shared: Shared::default(),
                dirty: BTreeSet::new(),
                files: Arc::default(),
                servers: Default::default(),
                progress,
                was_kept: false,
                keeping: None,
                reached: None,
                summary: Arc::default(),
                is_revised: true,
                publishing: None,
            }),
            wake: OnceLock::new(),
            changed: Notify::new(),
            enforced: AtomicBool::new(false),
            standing: watch::Sender::default(),
        }
    }

    /// Has this called with each change, from now on.
    pub(crate) fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        if self.wake.set(Box::new(wake)).is_err() {
            tracing::warn!("changes of the API are told of already");
        }
    }

    /// Waits until something has changed since this returned last.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says that the node enforces what is here.
    pub(crate) fn enforced(&self) {
        self.enforced.store(true, Relaxed);
    }

    pub(crate) fn is_enforced(&self) -> bool {
        self.enforced.load(Relaxed)
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> String {
        self.lock().node.clone()
    }

    /// Says where a pod of this node is, or (`None`) that it is there no more. The pod may be unknown yet: what
    /// is said is remembered, and holds once it is known.
    pub(crate) fn place(&self, uid: &str, placement: Option<Placement>) {
        let mut inner = self.lock();
        let old = if let Some(placement) = placement {
            inner.see(uid, &placement);
            let old = inner.placements.insert(uid.to_owned(), placement);
            if old.as_ref() == inner.placements.get(uid) {
                return;
            }
            old
        } else {
            inner.first_seen.remove(uid);
            inner.placements.remove(uid)
        };
        let Some(key) = inner.pods.get(uid).cloned() else {
            drop((inner, old));
            // It is held for nobody, until somebody knows whose it is.
            self.tell();
            return;
        };
        let is_gone = inner.objects.get(&key).is_some_and(|entry| entry.is_gone);
        if is_gone && !inner.placements.contains_key(uid) {
            inner.remove(&key);
        } else {
            inner.claim(&key);
        }
        drop((inner, old));
        self.tell();
    }

    /// Interfaces of the node that lead to a pod of which there is no good version.
    pub(crate) fn sandboxes_of_nobody(&self) -> BTreeSet<String> {
        let inner = self.lock();
        let placements = inner.placements.iter();
        placements
            .filter_map(|(uid, placement)| match &placement.endpoint {
                EndpointSpec::Interface(name) => Some((uid, name)),
                _ => None,
            })
            .filter(|(uid, _)| {
                let key = inner.pods.get(uid.as_str());
                let entry = key.and_then(|key| inner.objects.get(key));
                entry.is_none_or(|entry| entry.changes.is_empty())
            })
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The pod with this UID, if the API has told of it.
    pub(crate) fn pod(&self, uid: &str) -> Option<KnownPod> {
        let inner = self.lock();
        let key = inner.pods.get(uid)?;
        known(inner.objects.get(key)?)
    }

    /// The pod of this name, if the API has told of it.
    pub(crate) fn pod_named(&self, name: &ObjectName) -> Option<KnownPod> {
        let key = Key {
            kind: Kind::Pod,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        known(self.lock().objects.get(&key)?)
    }

    /// An object is new, or is another.
    pub(crate) fn put(&self, observed: Observed) {
        let mut inner = self.lock();
        inner.heard(observed.key.kind);
        let changed = inner.put(observed);
        drop(inner);
        if changed {
            self.tell();
        }
    }

    /// An object is no more.
    pub(crate) fn delete(&self, key: &Key) {
        let mut inner = self.lock();
        inner.heard(key.kind);
        inner.delete(key);
        drop(inner);
        self.tell();
    }

    /// All there is of a kind is being told, in no order.
    pub(crate) fn lists(&self, kind: Kind) {
        let mut inner = self.lock();
        inner.progress(kind).lists();
        inner.is_revised = true;
    }

    /// All there is of a kind has been told.
    pub(crate) fn listed(&self, kind: Kind, seen: &BTreeSet<Key>) {
        let mut inner = self.lock();
        inner.heard(kind);
        inner.retain(kind, |key| seen.contains(key));
        inner.progress(kind).listed();
        inner.is_revised = true;
        drop(inner);
        self.tell();
    }

    /// The server says that there is no such kind. What was there of it stays for a while: a server that has just
    /// started may not know its kinds yet.
    ///
    /// Whether it is taken for absent now.
    pub(crate) fn absent(&self, kind: Kind) -> bool {
        let mut inner = self.lock();
        let has_objects = inner.objects.keys().any(|key| key.kind == kind);
        if has_objects && !inner.progress(kind).is_gone_for_long() {
            return false;
        }
        inner.retain(kind, |_| false);
        inner.progress(kind).absent();
        drop(inner);
        self.tell();
        true
    }

    /// The watch of a kind is disturbed.
    pub(crate) fn failed(&self, kind: Kind, error: String) {
        self.lock().progress(kind).failed(error);
    }

    /// Something was heard from the server, be it that nothing has happened.
    pub(crate) fn heard(&self, kind: Kind) {
        self.lock().heard(kind);
    }

    /// Where its clients reach the API; not known (none) is what it was before.
    pub(crate) fn reached_at(&self, name: String, addresses: BTreeSet<SocketAddr>) {
        let mut inner = self.lock();
        inner.reached = Some(name);
        let [reached, ..] = &mut inner.servers;
        let is_other = !addresses.is_empty() && *reached != addresses;
        if is_other {
            *reached = addresses;
        }
        drop(inner);
        if is_other {
            self.tell();
        }
    }

    /// Where the servers of the API are, behind all addresses that clients use.
    pub(crate) fn served_at(&self, addresses: BTreeSet<SocketAddr>) {
        let mut inner = self.lock();
        let [_, served, kept] = &mut inner.servers;
        let is_other = *served != addresses;
        *served = addresses;
        kept.clear();
        drop(inner);
        if is_other {
            self.tell();
        }
    }

    /// Takes what was kept of an earlier run for the state of the API, until that is heard.
    pub(crate) fn take_kept(&self, objects: Vec<Observed>, servers: BTreeSet<SocketAddr>) {
        let mut inner = self.lock();
        for object in objects {
            inner.put(object);
        }
        let [.., kept] = &mut inner.servers;
        *kept = servers;
        inner.was_kept = true;
    }

    /// Why what is heard is not kept; `None` if it is.
    pub(crate) fn keeping(&self, trouble: Option<String>) {
        self.lock().keeping = trouble;
    }

    /// The last good versions of all objects, once all have been heard of.
    pub(crate) fn snapshot(&self) -> Option<(Vec<Arc<str>>, BTreeSet<SocketAddr>)> {
        let inner = self.lock();
        inner.is_complete().then(|| {
            let objects = inner.objects.values().filter(|entry| !entry.is_gone);
            let objects = objects.filter(|entry| !entry.changes.is_empty());
            let objects = objects.map(|entry| Arc::clone(&entry.json)).collect();
            (objects, inner.servers())
        })
    }

    /// Whether there is a state of the API that can be enforced: all of it as it is now, or as it was kept.
    pub(crate) fn is_ready(&self) -> bool {
        let inner = self.lock();
        inner.was_kept || inner.is_complete()
    }

    /// Kinds that have not been listed yet, and why.
    pub(crate) fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        let missing = inner.progress.iter().filter(|(_, of)| !of.is_known());
        missing
            .map(|(kind, progress)| match progress.error() {
                Some(error) => format!("{}: {error}", kind.plural()),
                None => format!("{}: no answer yet", kind.plural()),
            })
            .collect()
    }

    pub(crate) fn status(&self) -> KubernetesStatus {
        let inner = self.lock();
        let now = Instant::now();
        let count = |kind| {
            let of_kind = |key: &&Key| key.kind == kind;
            inner.objects.keys().filter(of_kind).count()
        };
        KubernetesStatus {
            server: inner.reached.clone(),
            complete: inner.is_complete(),
            from_kept: inner.was_kept && !inner.is_complete(),
            not_kept: inner.keeping.clone(),
            not_published: inner.publishing.clone(),
            watches: inner
                .progress
                .iter()
                .map(|(kind, progress)| progress.status(*kind, count(*kind), now))
                .collect(),
            errors: inner.errors(),
        }
    }

    /// What is wrong, object by object.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let inner = self.lock();
        let of = |(key, entry): (&Key, &Entry)| {
            let between = inner.conflicts.get(key).into_iter().flatten();
            let messages = entry.errors.iter().chain(between);
            let messages = messages.map(|message| Trouble {
                key: key.clone(),
                uid: Arc::clone(&entry.uid),
                message: message.clone(),
            });
            messages.collect::<Vec<_>>()
        };
        inner.objects.iter().flat_map(of).collect()
    }

    /// The world of files with all that the API adds; `None` if it is the one of before.
    pub(crate) fn compose(&self, before: &World, files: &Arc<World>) -> Option<World> {
        self.lock().compose(before, files)
    }

    fn tell(&self) {
        self.changed.notify_one();
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Remembers what a sandbox has at first.
    fn see(&mut self, uid: &str, placement: &Placement) {
        let before = self.placements.get(uid);
        let is_same = before.is_some_and(|before| before.endpoint == placement.endpoint);
        let known = self.first_seen.get(uid);
        if !is_same || known.is_none_or(BTreeSet::is_empty) {
            self.first_seen
                .insert(uid.to_owned(), placement.addresses.clone());
        }
    }

    fn progress(&mut self, kind: Kind) -> &mut Progress {
        self.progress.entry(kind).or_default()
    }

    fn heard(&mut self, kind: Kind) {
        self.progress(kind).heard();
    }

    fn is_complete(&self) -> bool {
        self.progress.values().all(Progress::is_known)
    }

    fn put(&mut self, observed: Observed) -> bool {
        let key = observed.key.clone();
        self.is_revised |= key.kind.is_policy();
        let old = self.objects.get_mut(&key);
        if let Some(old) = old {
            if old.uid != observed.uid {
                // Another one of that name: the one before is gone.
                self.leave(&key);
            } else if old.is_as(&observed) {
                // Of another version all the same.
                old.is_of(&observed);
                return false;
            }
        }
        if observed.has_ended {
            self.delete(&key);
            return true;
        }
        let versions = Versions::of(&observed);
        let Observed {
            key: _,
            uid,
            created,
            is_ending,
            has_ended: _,
            json,
            mut changes,
            errors,
            version: _,
        } = observed;
        self.shared.share(&mut changes);
        let entry = self.objects.entry(key.clone()).or_insert_with(|| Entry {
            uid: Arc::clone(&uid),
            created,
            is_ending,
            is_gone: false,
            json: Arc::from(""),
            changes: Box::default(),
            errors: Vec::new(),
            claimed: Box::default(),
            point: None,
            versions: None,
        });
        entry.versions = versions.map(|new| Box::new(new.after(entry.versions.take())));
        entry.is_ending = is_ending;
        entry.is_gone = false;
        if errors.is_empty() {
            entry.json = json;
            entry.changes = changes;
        }
        entry.errors = errors;
        if key.kind == Kind::Pod {
            self.pods.entry(uid).or_insert_with(|| key.clone());
        }
        self.claim(&key);
        true
    }

    /// A pod whose sandbox is still there stays what it was.
    fn delete(&mut self, key: &Key) {
        self.is_revised |= key.kind.is_policy();
        let Some(entry) = self.objects.get_mut(key) else {
            return;
        };
        let is_placed = self.placements.contains_key(&*entry.uid);
        if is_placed && self.pods.get(&entry.uid) == Some(key) {
            entry.is_gone = true;
            self.claim(key);
        } else {
            self.remove(key);
        }
    }

    /// Makes room for another object of the same name. What is there of the old one goes by another name.
    fn leave(&mut self, key: &Key) {
        self.delete(key);
        let Some(mut entry) = self.objects.remove(key) else {
            return;
        };
        self.unclaim(key, &entry);
        let aside = Key {
            name: format!("{}.{}", key.name, entry.uid),
            ..key.clone()
        };
        for change in &mut entry.changes {
            if let Change::Workload(name, Some(workload)) = change {
                let mut other = Workload::clone(workload);
                other.name.name.clone_from(&aside.name);
                *name = other.name.clone();
                *workload = Arc::new(other);
            }
        }
        self.pods.insert(Arc::clone(&entry.uid), aside.clone());
        self.objects.insert(aside.clone(), entry);
        self.claim(&aside);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.objects.remove(key) {
            self.unclaim(key, &entry);
            if self.pods.get(&entry.uid) == Some(key) {
                self.pods.remove(&entry.uid);
            }
        }
    }

    /// Takes away what is not to stay of a kind.
    fn retain(&mut self, kind: Kind, is_there: impl Fn(&Key) -> bool) {
        let gone = self.objects.iter();
        let gone = gone.filter(|(key, entry)| key.kind == kind && !entry.is_gone && !is_there(key));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.delete(&key);
        }
    }

    fn servers(&self) -> BTreeSet<SocketAddr> {
        self.servers.iter().flatten().copied().collect()
    }

    /// Said where the API has nodes, and none of this name: pods are held all the same, where they are found.
    fn other_name(&self) -> Option<String> {
        let of = |name: &str| Key {
            kind: Kind::Node,
            namespace: String::new(),
            name: name.to_owned(),
        };
        let node = &self.node;
        let mut nodes = self.objects.range(of("")..);
        let has_nodes = nodes.next().is_some_and(|(key, _)| key.kind == Kind::Node);
        let is_known = self.objects.contains_key(&of(node));
        (has_nodes && !is_known)
            .then(|| format!("the API has no node `{node}`: say by --node what it calls this one"))
    }

    /// What is wrong, object by object, as far as anybody reads it.
    fn errors(&self) -> Vec<String> {
        let objects = self.objects.iter();
        let own = objects.flat_map(|(_, entry)| entry.errors.iter().cloned());
        let between = self.conflicts.iter().flat_map(|(key, messages)| {
            let of = move |message| format!("kubernetes:{key}: {message}");
            messages.iter().map(of)
        });
        let mut all = self.other_name().into_iter().chain(own).chain(between);
        let mut errors: Vec<String> = all.by_ref().take(ERRORS).collect();
        let more = all.count();
        if more > 0 {
            errors.push(format!("and {more} more"));
        }
        errors
    }
}

impl Entry {
    /// Whether nothing that counts has changed: most of what the API tells of is none of it.
    fn is_as(&self, observed: &Observed) -> bool {
        self.json == observed.json && self.errors == observed.errors && !self.is_gone
    }

    /// Takes another version of the same.
    fn is_of(&mut self, observed: &Observed) {
        let new = Versions::of(observed);
        self.versions = new.map(|new| Box::new(new.after(self.versions.take())));
    }
}

fn known(entry: &Entry) -> Option<KnownPod> {
    let Some(Change::Workload(name, Some(workload))) = entry.changes.first() else {
        return None;
    };
    Some(KnownPod {
        name: name.clone(),
        uid: entry.uid.to_string(),
        host_network: workload.host_network,
    })
}

// === impl Store ===

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.lock().objects.len();
        f.debug_struct("Store").field("objects", &objects).finish()
    }
}
