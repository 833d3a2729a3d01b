//! All objects of the API, and where the pods of this node are.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agent_policy::model::ObjectName;

use super::placement::Placement;

#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By the UID of the pod.
    placements: BTreeMap<String, Placement>,
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
    /// Says where a pod of this node is, or (`None`) that it is there no more. The pod may be unknown yet: what
    /// is said is remembered, and holds once it is known.
    pub(crate) fn place(&self, uid: &str, placement: Option<Placement>) {
        let mut inner = self.lock();
        match placement {
            Some(placement) => inner.placements.insert(uid.to_owned(), placement),
            None => inner.placements.remove(uid),
        };
    }

    /// The pod with this UID, if the API has told of it.
    pub(crate) fn pod(&self, _uid: &str) -> Option<KnownPod> {
        None
    }

    /// The pod of this name, if the API has told of it.
    pub(crate) fn pod_named(&self, _name: &ObjectName) -> Option<KnownPod> {
        None
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
