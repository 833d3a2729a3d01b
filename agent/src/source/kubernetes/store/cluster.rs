//! Which cluster all of this is of: what was kept, or heard, of one says nothing of another.
//!
//! A cluster is known by the UID of its namespace `kube-system`, which each has from its beginning to its end.

use super::{Arc, BTreeSet, Inner, Key, Kind, Observed, Progress, Slices};

const NAMESPACE: &str = "kube-system";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cluster {
    /// All is of the cluster that the API tells of.
    #[default]
    Known,
    /// What is heard is of another cluster than what is here. It is not taken until all is begun anew.
    Other,
    /// Begun anew: what is in force is of the cluster before, until all of this one is known.
    Replacing,
}

impl Inner {
    /// Whether what is heard belongs to what is here.
    pub(super) fn is_of_this_cluster(&mut self, observed: &Observed) -> bool {
        if self.cluster == Cluster::Other {
            return false;
        }
        if observed.key != Key::namespace(NAMESPACE) {
            return true;
        }
        // Remembered by itself: a server that has just begun may list its namespaces before it has made this one.
        let of = self
            .cluster_uid
            .get_or_insert_with(|| Arc::clone(&observed.uid));
        let is_ours = *of == observed.uid;
        if !is_ours {
            self.cluster = Cluster::Other;
        }
        is_ours
    }

    /// Whether what is in force stays, whatever is heard: half of one cluster and half of another is neither.
    pub(super) fn is_held(&mut self) -> bool {
        if self.cluster == Cluster::Replacing && self.is_complete() {
            self.cluster = Cluster::Known;
        }
        self.is_between_clusters()
    }

    /// The same, as it was asked last.
    pub(super) fn is_between_clusters(&self) -> bool {
        matches!(self.cluster, Cluster::Other | Cluster::Replacing)
    }

    pub(super) fn is_of_another_cluster(&self) -> bool {
        self.cluster == Cluster::Other
    }

    /// Forgets everything but what is in force, and where the pods of this node are.
    pub(super) fn begin_anew(&mut self) {
        self.cluster = if self.in_force.is_empty() {
            Cluster::Known
        } else {
            Cluster::Replacing
        };
        self.was_kept = false;
        self.cluster_uid = None;
        let objects = std::mem::take(&mut self.objects);
        let known: BTreeSet<Key> = objects.into_keys().collect();
        self.dirty.extend(known);
        self.dirty.extend(self.in_force.keys().cloned());
        self.pods.clear();
        self.claims.clear();
        self.points.clear();
        self.slices = Slices::default();
        self.is_revised = true;
        let [_, served, kept] = &mut self.servers;
        served.clear();
        kept.clear();
        self.progress = Kind::ALL.map(|kind| (kind, Progress::default())).into();
    }
}
