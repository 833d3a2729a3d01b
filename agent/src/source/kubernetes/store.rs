//! All objects of the API, and where the pods of this node are.
//!
//! Of each object the last version without errors counts. What is wrong *between* objects takes down no more
//! than one of them, or of a pod one address.

mod beside;
mod cluster;
mod compose;
mod conflicts;
mod progress;
mod shared;
mod shown;
mod slices;
mod staying;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use agent_policy::model::{Change, EndpointSpec, ObjectName, World};
use tokio::sync::{Notify, watch};

pub(crate) use self::summary::Standing;
use self::{
    beside::FirstSeen, cluster::Cluster, progress::Progress, shared::Shared, slices::Slices,
    summary::Versions,
};
use super::{
    kept::Kept,
    kind::{Key, Kind},
    object::Observed,
    placement::Placement,
    report::Summary,
};

/// Shared by the watchers, who fill it, by who finds pods, and by the controller, who is woken.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Told of each change.
    changed: Notify,
    /// Told when what is heard is of another cluster.
    other: Notify,
    /// The node enforces what is here.
    enforced: AtomicBool,
    /// What of it the node enforces.
    standing: watch::Sender<Standing>,
}

struct Inner {
    /// The name of this node.
    node: String,
    cluster: Cluster,
    /// That of its namespace `kube-system`, once it is known.
    cluster_uid: Option<Arc<str>>,
    objects: BTreeMap<Key, Entry>,
    /// By the UID of the pod.
    placements: BTreeMap<String, Placement>,
    /// What each had when it was first seen where it is.
    first_seen: BTreeMap<String, FirstSeen>,
    pods: BTreeMap<Arc<str>, Key>,
    /// Who says that an address is its own.
    claims: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// Who says that it is to be held there.
    points: BTreeMap<EndpointSpec, BTreeSet<Key>>,
    slices: Slices,
    /// What each object adds to the world.
    in_force: BTreeMap<Key, Vec<Change>>,
    /// What is wrong between objects.
    conflicts: BTreeMap<Key, Vec<String>>,
    shared: Shared,
    /// Objects that may add something else now.
    dirty: BTreeSet<Key>,
    /// What was kept of an earlier run, until it is part of the world.
    kept: Vec<Change>,
    /// The world of files that was looked at last.
    files: Arc<World>,
    /// Where the API is: as its clients reach it, where its servers are, and where it was in an earlier run.
    servers: [BTreeSet<SocketAddr>; 3],
    progress: BTreeMap<Kind, Progress>,
    /// What was kept of an earlier run is there.
    was_kept: bool,
    /// The node was looked through for its pods.
    has_looked: bool,
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
    points: Box<[EndpointSpec]>,
    /// Of a policy.
    versions: Option<Box<Versions>>,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) key: Key,
    pub(super) uid: Arc<str>,
    pub(super) message: String,
    /// Every agent of the cluster sees it.
    pub(super) is_everybodys: bool,
}

/// What is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// As JSON.
    pub(crate) objects: Vec<Arc<str>>,
    /// That the API has no more, and that stay until their sandboxes are gone.
    pub(crate) gone: Vec<Arc<str>>,
    pub(crate) servers: BTreeSet<SocketAddr>,
}

/// A pod as the API knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPod {
    pub(crate) name: ObjectName,
    /// As its cgroups have it.
    pub(crate) uid: String,
    pub(crate) host_network: bool,
    /// Those that the API has given it.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Store {
    pub(crate) fn new(node: String) -> Self {
        let progress = Kind::ALL.map(|kind| (kind, Progress::default())).into();
        Self {
            inner: Mutex::new(Inner {
                node,
                cluster: Cluster::default(),
                cluster_uid: None,
                objects: BTreeMap::new(),
                placements: BTreeMap::new(),
                first_seen: BTreeMap::new(),
                pods: BTreeMap::new(),
                claims: BTreeMap::new(),
                points: BTreeMap::new(),
                slices: Slices::default(),
                in_force: BTreeMap::new(),
                conflicts: BTreeMap::new(),
                shared: Shared::default(),
                dirty: BTreeSet::new(),
                kept: Vec::new(),
                files: Arc::default(),
                servers: Default::default(),
                progress,
                was_kept: false,
                has_looked: false,
                keeping: None,
                reached: None,
                summary: Arc::default(),
                is_revised: true,
                publishing: None,
            }),
            wake: OnceLock::new(),
            changed: Notify::new(),
            other: Notify::new(),
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

    /// Interfaces of the node that lead to a pod of which there is no good version, or of whose namespace; and further
    /// ones of a pod whose name a file has given to what has none of them.
    #[cfg(test)]
    pub(crate) fn sandboxes_of_nobody(&self) -> BTreeSet<String> {
        self.lock().sandboxes_of_nobody()
    }

    /// The pod with this UID, if the API has told of it.
    pub(crate) fn pod(&self, uid: &str) -> Option<KnownPod> {
        self.lock().pod(uid)
    }

    /// The pod of this name, if the API has told of it.
    pub(crate) fn pod_named(&self, name: &ObjectName) -> Option<KnownPod> {
        let key = Key {
            kind: Kind::Pod,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        self.lock().known(&key)
    }

    /// An object is new, or is another.
    pub(crate) fn put(&self, observed: Observed) {
        let mut inner = self.lock();
        inner.heard(observed.key.kind);
        let before = inner.cluster;
        let is_taken = inner.is_of_this_cluster(&observed);
        let is_settled = before != inner.cluster;
        let changed = is_taken && inner.put(observed);
        drop(inner);
        if !is_taken {
            self.other.notify_one();
        }
        if changed || is_settled {
            self.tell();
        }
    }

    /// Waits until what is heard is of another cluster than what is here.
    pub(crate) async fn of_another_cluster(&self) {
        // Told of more than once, and asked about after all was begun anew.
        while !self.lock().is_of_another_cluster() {
            self.other.notified().await;
        }
    }

    /// Forgets the cluster of before. What is in force stays so until all of the other one is known.
    pub(crate) fn begin_anew(&self) {
        self.lock().begin_anew();
        self.tell();
    }

    /// An object is no more.
    pub(crate) fn delete(&self, key: &Key) {
        let mut inner = self.lock();
        inner.heard(key.kind);
        inner.delete(key);
        drop(inner);
        self.tell();
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
    pub(crate) fn take_kept(&self, kept: Kept) {
        let Kept {
            objects,
            gone,
            servers,
        } = kept;
        let mut inner = self.lock();
        // Those that are there have the names.
        for object in gone {
            inner.put_gone(object);
        }
        for object in objects {
            // All of one cluster, as they were kept together.
            inner.is_of_this_cluster(&object);
            inner.put(object);
        }
        let [.., kept] = &mut inner.servers;
        *kept = servers;
        inner.was_kept = true;
        // At once: what is heard from here on may be of another cluster, and nothing is put into force then.
        let dirty = mem::take(&mut inner.dirty);
        let (_, added) = inner.follow(dirty);
        inner.kept = added;
    }

    /// Why what is heard is not kept; `None` if it is.
    pub(crate) fn keeping(&self, trouble: Option<String>) {
        self.lock().keeping = trouble;
    }

    /// The last good versions of all objects, once all have been heard of.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let mut inner = self.lock();
        (inner.is_complete() && !inner.is_held()).then(|| {
            let objects = inner.objects.values();
            let objects = objects.filter(|entry| !entry.json.is_empty());
            let of = |is_gone| {
                let objects = objects
                    .clone()
                    .filter(move |entry| entry.is_gone == is_gone);
                objects.map(|entry| Arc::clone(&entry.json)).collect()
            };
            // Not those of an earlier run: one that has moved away since would be reached for ever.
            let [reached, served, _] = &inner.servers;
            Snapshot {
                objects: of(false),
                gone: of(true),
                servers: reached | served,
            }
        })
    }

    /// The world of files with all that the API adds, `None` if it is the one of before; and the interfaces that lead to
    /// a pod which is nobody's in it.
    pub(crate) fn compose(
        &self,
        before: &World,
        files: &Arc<World>,
    ) -> (Option<World>, BTreeSet<String>) {
        let mut inner = self.lock();
        let world = inner.compose(before, files);
        (world, inner.sandboxes_of_nobody())
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
            slice,
            errors,
            version: _,
        } = observed;
        self.shared.share(&mut changes);
        let is_first = key.kind == Kind::Namespace && !self.is_known(&key.name);
        let entry = self.objects.entry(key.clone()).or_insert_with(|| Entry {
            uid: Arc::clone(&uid),
            created,
            is_ending,
            is_gone: false,
            json: Arc::from(""),
            changes: Box::default(),
            errors: Vec::new(),
            claimed: Box::default(),
            points: Box::default(),
            versions: None,
        });
        entry.versions = versions.map(|new| Box::new(new.after(entry.versions.take())));
        entry.is_ending = is_ending;
        entry.is_gone = false;
        if errors.is_empty() {
            entry.json = json;
            entry.changes = changes;
        }
        let is_good = errors.is_empty();
        entry.errors = errors;
        if key.kind == Kind::EndpointSlice {
            return !is_good || self.put_slice(&key, slice);
        }
        if key.kind == Kind::Pod {
            self.pods.entry(uid).or_insert_with(|| key.clone());
        }
        self.claim(&key);
        if is_first {
            let waiting: Vec<Key> = self.members(&key.name).cloned().collect();
            self.dirty.extend(waiting);
        }
        true
    }

    /// Interfaces of the node that lead to a pod of which there is no good version, or of whose namespace; and further
    /// ones of a pod whose name a file has given to what has none of them.
    fn sandboxes_of_nobody(&self) -> BTreeSet<String> {
        let placements = self.placements.iter();
        let nobodys = placements.flat_map(|(uid, placement)| {
            let is_anybodys = self.is_anybodys(uid);
            let own = match &placement.endpoint {
                EndpointSpec::Interface(name) if !is_anybodys => Some(name),
                _ => None,
            };
            let beside = placement.beside.values().map(|beside| &beside.interface);
            let beside = beside.filter(|name| !is_anybodys || !self.is_held_at(name));
            own.into_iter().chain(beside.collect::<Vec<_>>())
        });
        nobodys.cloned().collect()
    }

    /// Whether a sandbox is that of a pod which is known, and part of the world unless nothing new is.
    fn is_anybodys(&self, uid: &str) -> bool {
        let is_in_force = || {
            let key = self.pods.get(uid);
            key.is_some_and(|key| self.in_force.contains_key(key))
        };
        self.pod(uid).is_some() && (!self.is_between_clusters() || is_in_force())
    }

    fn pod(&self, uid: &str) -> Option<KnownPod> {
        self.known(self.pods.get(uid)?)
    }

    fn known(&self, key: &Key) -> Option<KnownPod> {
        let entry = self.objects.get(key)?;
        let Some(Change::Workload(name, Some(workload))) = entry.changes.first() else {
            return None;
        };
        self.is_known(&key.namespace).then(|| KnownPod {
            name: name.clone(),
            uid: entry.uid.to_string(),
            host_network: workload.host_network,
            addresses: workload.addresses.clone(),
        })
    }

    fn servers(&self) -> BTreeSet<SocketAddr> {
        self.servers.iter().flatten().copied().collect()
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

    /// Where a pod is to run, or a workload is; `None` of what is nowhere.
    fn node(&self) -> Option<&String> {
        match self.changes.first()? {
            Change::Workload(_, Some(workload)) => workload.node.as_ref(),
            _ => None,
        }
    }
}

// === impl Store ===

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.lock().objects.len();
        f.debug_struct("Store").field("objects", &objects).finish()
    }
}
