//! What is shown of the store: in `status`, and as Events.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{Entry, Inner, Store, Trouble};
use crate::{
    control::status::KubernetesStatus,
    source::kubernetes::kind::{Key, Kind},
};

/// Of errors, as many are shown.
const ERRORS: usize = 500;

impl Store {
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

    /// What is wrong, object by object, and is not for the agent of another node to tell.
    pub(in crate::source::kubernetes) fn troubles(&self) -> Vec<Trouble> {
        let inner = self.lock();
        let of = |(key, entry): (&Key, &Entry)| {
            let node = entry.node();
            let is_ours = node.is_none_or(|node| *node == inner.node);
            let own = entry.errors.iter();
            // Files of this node, and pods that were found here, are seen here alone.
            let own = own.map(|message| (message, node.is_none()));
            let between = inner.conflicts.get(key).into_iter().flatten();
            let all = own.chain(between.map(|message| (message, false)));
            let all = all.filter(|_| is_ours);
            let all = all.map(|(message, is_everybodys)| Trouble {
                key: key.clone(),
                uid: Arc::clone(&entry.uid),
                message: message.clone(),
                is_everybodys,
            });
            all.collect::<Vec<_>>()
        };
        inner.objects.iter().flat_map(of).collect()
    }

    /// The names of all nodes of the cluster.
    pub(in crate::source::kubernetes) fn nodes(&self) -> BTreeSet<String> {
        let inner = self.lock();
        let first = Key {
            kind: Kind::Node,
            namespace: String::new(),
            name: String::new(),
        };
        let nodes = inner.objects.range(first..).map(|(key, _)| key);
        let nodes = nodes.take_while(|key| key.kind == Kind::Node);
        nodes.map(|key| key.name.clone()).collect()
    }
}

impl Inner {
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
