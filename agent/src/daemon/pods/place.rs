//! Tells of found pods whoever has to know.

use std::sync::Arc;

use super::{Found, Placed, Told};
use crate::{daemon::status::Shared, source::kubernetes::store::Store};

/// Has pods of the API held where they are, and `status` say what of them is not judged.
pub(crate) struct Placer {
    pub(crate) store: Arc<Store>,
    pub(crate) shared: Arc<Shared>,
}

impl Placed for Placer {
    fn place(&mut self, uid: &str, found: Option<&Found>) {
        let notes = found.map(|found| found.notes.clone());
        self.shared.pod_notes(uid, notes.unwrap_or_default());
        let placement = found.map(|found| found.placement.clone());
        self.store.place(uid, placement);
    }

    fn unheld(&mut self, uid: &str, why: Option<&str>) {
        let notes = why.map(str::to_owned);
        self.shared.pod_notes(uid, notes.into_iter().collect());
    }

    fn told(&self, uid: &str) -> Option<Told> {
        self.store.pod(uid).map(|pod| Told {
            is_on_node: pod.host_network,
            addresses: pod.addresses,
        })
    }
}
