//! Labels that many pods have, once.

use std::{collections::BTreeSet, sync::Arc};

use agent_policy::model::{Change, Labels};

/// Fewer are not looked through for those that nobody has any more.
const FEW: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Shared {
    known: BTreeSet<Arc<Labels>>,
    /// How many there were after the last clearing.
    cleared: usize,
}

impl Shared {
    /// Has new workloads take the labels that others have already.
    pub(super) fn share(&mut self, changes: &mut [Change]) {
        for change in changes {
            if let Change::Workload(_, Some(workload)) = change
                && let Some(workload) = Arc::get_mut(workload)
            {
                if let Some(same) = self.known.get(&workload.labels) {
                    workload.labels = Arc::clone(same);
                } else {
                    self.known.insert(Arc::clone(&workload.labels));
                }
            }
        }
        if self.known.len() > FEW.max(2 * self.cleared) {
            self.known.retain(|labels| Arc::strong_count(labels) > 1);
            self.cleared = self.known.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_policy::load::{changes, parse_file};

    use super::*;

    #[test]
    fn labels_that_nobody_has_any_more_are_forgotten() {
        let workload = |number: usize| {
            let text = format!(
                "{{apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {{name: w{number}, \
                 namespace: n, labels: {{a: v{number}}}}}, spec: {{}}}}"
            );
            changes(&parse_file("a".into(), text.as_bytes()))
        };
        let mut shared = Shared::default();
        let mut kept = workload(0);
        shared.share(&mut kept);
        for number in 1..5 * FEW {
            shared.share(&mut workload(number));
        }
        assert!(shared.known.len() <= 2 * FEW);
        let mut again = workload(0);
        shared.share(&mut again);
        let [
            Change::Workload(_, Some(one)),
            Change::Workload(_, Some(other)),
        ] = [&kept[0], &again[0]]
        else {
            panic!("{kept:?} {again:?}");
        };
        assert!(Arc::ptr_eq(&one.labels, &other.labels));
    }
}
