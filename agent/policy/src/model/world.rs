//! All objects together, and how one object changes that.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Failsafe, Labels, NetworkPolicy, Node, ObjectName, Objects, PolicyId, Service, TierPolicy,
    Workload,
};

/// Everything the policies of a cluster, or of a plain host, speak about.
///
/// Invariants, kept by the loader: every namespace that an object names is in `namespaces` and
/// carries `kubernetes.io/metadata.name`. `addresses` maps each address to the one workload that
/// owns it (host-network pods and workloads by cgroup own none: as a peer they are their node);
/// [`World::apply`] keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub namespaces: Objects<String, Arc<Labels>>,
    pub workloads: Objects<ObjectName, Arc<Workload>>,
    pub nodes: Objects<String, Arc<Node>>,
    pub services: Objects<ObjectName, Arc<Service>>,
    /// What names of the DNS stand for; in lower case, without a final dot.
    pub names: Objects<String, Arc<BTreeSet<IpAddr>>>,
    pub network_policies: Objects<ObjectName, Arc<NetworkPolicy>>,
    pub tier_policies: Objects<PolicyId, Arc<TierPolicy>>,
    pub failsafe: Arc<Vec<Failsafe>>,
    pub addresses: Objects<IpAddr, ObjectName>,
}

/// One object is new, is another, or (`None`) is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Namespace(String, Option<Arc<Labels>>),
    Workload(ObjectName, Option<Arc<Workload>>),
    Node(String, Option<Arc<Node>>),
    Service(ObjectName, Option<Arc<Service>>),
    Name(String, Option<Arc<BTreeSet<IpAddr>>>),
    NetworkPolicy(ObjectName, Option<Arc<NetworkPolicy>>),
    TierPolicy(PolicyId, Option<Arc<TierPolicy>>),
    Failsafe(Arc<Vec<Failsafe>>),
}

impl World {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Namespace(name, labels) => put(&mut self.namespaces, name, labels.as_ref()),
            Change::Workload(name, workload) => {
                if let Some(old) = self.workloads.get(name) {
                    for address in &old.addresses {
                        // Another workload may have taken the address over meanwhile.
                        if self.addresses.get(address) == Some(name) {
                            self.addresses.remove(address);
                        }
                    }
                }
                if let Some(new) = workload.as_ref().filter(|new| new.owns_its_addresses()) {
                    let owned = new.addresses.iter().map(|address| (*address, name.clone()));
                    self.addresses.extend(owned);
                }
                put(&mut self.workloads, name, workload.as_ref());
            }
            Change::Node(name, node) => put(&mut self.nodes, name, node.as_ref()),
            Change::Service(name, service) => put(&mut self.services, name, service.as_ref()),
            Change::Name(name, addresses) => put(&mut self.names, name, addresses.as_ref()),
            Change::NetworkPolicy(name, policy) => {
                put(&mut self.network_policies, name, policy.as_ref());
            }
            Change::TierPolicy(id, policy) => put(&mut self.tier_policies, id, policy.as_ref()),
            Change::Failsafe(failsafe) => self.failsafe = Arc::clone(failsafe),
        }
    }

    /// What leads from `old` to this world: removals first, so that an address is free before the
    /// next workload takes it.
    pub fn changes_from(&self, old: &Self) -> Vec<Change> {
        let Self {
            namespaces,
            workloads,
            nodes,
            services,
            names,
            network_policies,
            tier_policies,
            failsafe,
            // Follows from the workloads.
            addresses: _,
        } = self;
        let mut changes = Vec::new();
        differences(&old.workloads, workloads, &mut changes, Change::Workload);
        differences(&old.namespaces, namespaces, &mut changes, Change::Namespace);
        differences(&old.nodes, nodes, &mut changes, Change::Node);
        differences(&old.services, services, &mut changes, Change::Service);
        differences(&old.names, names, &mut changes, Change::Name);
        differences(
            &old.network_policies,
            network_policies,
            &mut changes,
            Change::NetworkPolicy,
        );
        differences(
            &old.tier_policies,
            tier_policies,
            &mut changes,
            Change::TierPolicy,
        );
        if *failsafe != old.failsafe {
            changes.push(Change::Failsafe(Arc::clone(failsafe)));
        }
        changes
    }
}

/// What makes a world out of nothing.
impl FromIterator<Change> for World {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.apply(&change);
        }
        world
    }
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, Arc<V>>, key: &K, value: Option<&Arc<V>>) {
    match value {
        Some(value) => map.insert(key.clone(), Arc::clone(value)),
        None => map.remove(key),
    };
}

fn differences<K: Ord + Clone, V: PartialEq>(
    old: &Objects<K, Arc<V>>,
    new: &Objects<K, Arc<V>>,
    changes: &mut Vec<Change>,
    change: fn(K, Option<Arc<V>>) -> Change,
) {
    if new.is_same(old) {
        return;
    }
    // Side by side: to look each up in the other takes ten times as long, for every change of a pod.
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    let mut differing = Vec::new();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let old = (order != Ordering::Greater).then(|| olds.next()).flatten();
        let new = (order != Ordering::Less).then(|| news.next()).flatten();
        match (old, new) {
            (Some((key, _)), None) => changes.push(change(key.clone(), None)),
            (Some((_, old)), Some((_, new))) if Arc::ptr_eq(old, new) || old == new => {}
            (_, Some((key, value))) => differing.push((key, value)),
            (None, None) => {}
        }
    }
    let differing = differing.into_iter();
    changes.extend(differing.map(|(key, value)| change(key.clone(), Some(Arc::clone(value)))));
}
