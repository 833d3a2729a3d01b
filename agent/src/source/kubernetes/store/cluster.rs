//! Which cluster all of this is of: what was kept, or heard, of one says nothing of another.
//!
//! A cluster is known by the UID of its namespace `kube-system`, which each has from its beginning to its end.

use super::{BTreeSet, Inner, Key, Kind, Observed, Progress, Slices};

const NAMESPACE: &str = "kube-system";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cluster {
    /// All is of the cluster that the API tells of.
    #[default]
    Known,
    /// What was kept of an earlier run, and nothing was heard yet.
    Kept,
    /// Something was heard beside it, and not yet of which cluster.
    Doubtful,
    /// What is heard is of another cluster than what is here. It is not taken until all is begun anew.
    Other,
    /// Begun anew: what is in force is of the cluster before, until all of this one is known.
    Replacing,
}

impl Inner {
    pub(super) fn kept_of_a_cluster(&mut self) {
        if self.objects.contains_key(&Key::namespace(NAMESPACE)) {
            self.cluster = Cluster::Kept;
        }
    }

    /// Whether what is heard belongs to what is here.
    pub(super) fn is_of_this_cluster(&mut self, observed: &Observed) -> bool {
        if self.cluster == Cluster::Other {
            return false;
        }
        if observed.key == Key::namespace(NAMESPACE) {
            let before = self.objects.get(&observed.key);
            if before.is_some_and(|before| before.uid != observed.uid) {
                self.cluster = Cluster::Other;
                return false;
            }
            if matches!(self.cluster, Cluster::Kept | Cluster::Doubtful) {
                self.cluster = Cluster::Known;
            }
        } else {
            self.doubt();
        }
        true
    }

    /// Something was heard, be it that there is nothing.
    pub(super) fn doubt(&mut self) {
        if self.cluster == Cluster::Kept {
            self.cluster = Cluster::Doubtful;
        }
    }

    /// Whether what is in force stays, whatever is heard: half of one cluster and half of another is neither.
    pub(super) fn is_held(&mut self) -> bool {
        if self.cluster == Cluster::Replacing && self.is_complete() {
            self.cluster = Cluster::Known;
        }
        matches!(
            self.cluster,
            Cluster::Doubtful | Cluster::Other | Cluster::Replacing
        )
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
