//! Who has an address, a name or a place where more than one object says so.

use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr, sync::Arc};

use agent_policy::model::{Change, EndpointSpec, Workload};

use super::{Entry, Inner};
use crate::source::kubernetes::{
    kind::{Key, Kind},
    placement::Placement,
};

/// So many addresses an interface has at most that nobody has vouched for: each takes room in the kernel's tables.
pub(super) const UNVOUCHED: usize = 16;

/// Behind the name of a pod that is held at its cgroup, where others meet it by its addresses.
const PEER: &str = "@addresses";

/// The greatest has what several claim.
#[expect(
    clippy::struct_excessive_bools,
    reason = "answers, the first of which that differs decides"
)]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right<'k> {
    /// The API says so, or who made the sandbox does: not the sandbox alone, in which a pod may add what it likes.
    is_vouched_for: bool,
    /// Of an address: not what an interface beside the pod's own has, for which nobody says anything.
    is_of_its_own: bool,
    /// Its sandbox was found on this node, and has it.
    is_placed: bool,
    /// Its address comes from the node, where that of a `Workload` is what somebody wrote.
    is_pod: bool,
    is_alive: bool,
    /// Addresses are used again: the last one to have it.
    created: i64,
    /// The same whoever is heard of first.
    key: Reverse<&'k Key>,
}

impl Inner {
    /// Takes in what an object claims now.
    pub(super) fn claim(&mut self, key: &Key) {
        let Some(entry) = self.objects.get(key) else {
            return;
        };
        let wanted = self.wanted(key, entry).into_iter();
        let wanted: Vec<_> = wanted.chain(self.wanted_beside(key, entry)).collect();
        let own = wanted.iter().filter(|workload| has_own(key, workload));
        let claimed: Box<[IpAddr]> = own
            .flat_map(|workload| workload.addresses.iter().copied())
            .collect();
        let points: Box<[EndpointSpec]> = wanted
            .iter()
            .filter(|workload| self.is_here(workload))
            .filter_map(|workload| workload.endpoint.clone())
            .collect();
        if let Some(entry) = self.objects.remove(key) {
            self.unclaim(key, &entry);
            let entry = Entry {
                claimed,
                points,
                ..entry
            };
            for address in &entry.claimed {
                let claims = self.claims.entry(*address).or_default();
                claims.insert(key.clone());
                self.dirty.extend(claims.iter().cloned());
            }
            for point in &entry.points {
                let claims = self.points.entry(point.clone()).or_default();
                claims.insert(key.clone());
                self.dirty.extend(claims.iter().cloned());
            }
            self.objects.insert(key.clone(), entry);
        }
        self.touch(key);
    }

    /// Gives up what an object has claimed.
    pub(super) fn unclaim(&mut self, key: &Key, entry: &Entry) {
        for address in &entry.claimed {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(key);
                self.dirty.extend(claims.iter().cloned());
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        for point in &entry.points {
            if let Some(claims) = self.points.get_mut(point) {
                claims.remove(key);
                self.dirty.extend(claims.iter().cloned());
                if claims.is_empty() {
                    self.points.remove(point);
                }
            }
        }
        self.touch(key);
    }

    /// Has an object looked at, and who shares its name.
    fn touch(&mut self, key: &Key) {
        self.dirty.insert(key.clone());
        if key.kind == Kind::Pod {
            self.dirty.insert(Key {
                kind: Kind::Workload,
                ..key.clone()
            });
        }
    }

    /// What an object adds to the world, and what of it others are in the way of.
    pub(super) fn effective(&self, key: &Key) -> (Vec<Change>, Vec<String>) {
        let mut errors = Vec::new();
        let Some(entry) = self.objects.get(key) else {
            return (Vec::new(), errors);
        };
        if let Some(taken) = self.taken_by_files(entry) {
            errors.push(format!(
                "{taken} is declared by a file, too: that one is in force"
            ));
            return (Vec::new(), errors);
        }
        let Some(workload) = self.wanted(key, entry) else {
            let changes = self.with_slices(key, entry, &mut errors);
            return (changes, errors);
        };
        let pod = Key {
            kind: Kind::Pod,
            ..key.clone()
        };
        if key.kind == Kind::Workload && self.objects.contains_key(&pod) {
            errors.push("a pod has the same name: that one is in force".to_owned());
            return (Vec::new(), errors);
        }
        if !self.is_known(&key.namespace) {
            return (Vec::new(), errors);
        }
        let workload = self.without_lost(key, workload, &mut errors);
        let peer = as_peer(key, &workload);
        let mut all: Vec<_> = [Some(workload), peer].into_iter().flatten().collect();
        for beside in self.wanted_beside(key, entry) {
            all.push(self.without_lost(key, beside, &mut errors));
        }
        let changes = all
            .into_iter()
            .map(|workload| Change::Workload(workload.name.clone(), Some(workload)));
        (changes.collect(), errors)
    }

    /// Whether the labels of a namespace have been heard of. Before, its pods are nobody that a policy speaks of, and a
    /// policy that denies by such a label would let them pass.
    pub(super) fn is_known(&self, namespace: &str) -> bool {
        let object = self.objects.get(&Key::namespace(namespace));
        let is_good = object.is_some_and(|entry| !entry.changes.is_empty());
        // One that a file only names has no labels but its name.
        let of_files = self.files.namespaces.get(namespace);
        is_good || of_files.is_some_and(|labels| labels.len() > 1)
    }

    /// Without the addresses and the place that others have.
    fn without_lost(
        &self,
        key: &Key,
        workload: Arc<Workload>,
        errors: &mut Vec<String>,
    ) -> Arc<Workload> {
        let mut lost = Vec::new();
        if has_own(key, &workload) {
            for address in &workload.addresses {
                let owner = match self.files.addresses.get(address) {
                    Some(owner) => Some(format!("`{owner}` of a file")),
                    None => self
                        .winner(self.claims.get(address), key, Some(address))
                        .map(|other| format!("`{other}`")),
                };
                if let Some(owner) = owner {
                    errors.push(format!(
                        "address {address} is that of {owner}, and not its own"
                    ));
                    lost.push(*address);
                }
            }
        }
        let point = workload.endpoint.as_ref();
        let point = point.filter(|_| self.is_here(&workload)).and_then(|point| {
            let owner = if self.is_used_by_files(point) {
                "a workload of a file".to_owned()
            } else {
                format!("`{}`", self.winner(self.points.get(point), key, None)?)
            };
            Some(format!("{point} is that of {owner}, and not its own"))
        });
        if lost.is_empty() && point.is_none() {
            return workload;
        }
        let mut other = Workload::clone(&workload);
        other.addresses.retain(|address| !lost.contains(address));
        if let Some(message) = point {
            errors.push(message);
            other.endpoint = None;
        }
        Arc::new(other)
    }

    /// Who has what these claim, if that is not `key`.
    fn winner<'k>(
        &self,
        claims: Option<&'k BTreeSet<Key>>,
        key: &Key,
        address: Option<&IpAddr>,
    ) -> Option<&'k Key> {
        let right = |key: &'k Key| {
            let entry = self.objects.get(key)?;
            Some(Right {
                is_vouched_for: self.is_vouched_for(key, entry, address),
                is_of_its_own: address.is_none_or(|address| !self.is_beside(key, entry, address)),
                is_placed: self.is_placed(key, entry),
                is_pod: key.kind == Kind::Pod,
                is_alive: !entry.is_ending && !entry.is_gone,
                created: entry.created,
                key: Reverse(key),
            })
        };
        let Reverse(best) = claims?.iter().filter_map(right).max()?.key;
        (best != key).then_some(best)
    }

    pub(super) fn is_placed(&self, key: &Key, entry: &Entry) -> bool {
        key.kind == Kind::Pod
            && self.placements.contains_key(&*entry.uid)
            && self.pods.get(&entry.uid) == Some(key)
    }

    /// The workload that an object is, with where it was found.
    pub(super) fn wanted(&self, key: &Key, entry: &Entry) -> Option<Arc<Workload>> {
        let Some(Change::Workload(_, Some(workload))) = entry.changes.first() else {
            return None;
        };
        let placement = self.placements.get(&*entry.uid);
        let Some(placement) = placement.filter(|_| self.is_placed(key, entry)) else {
            return Some(Arc::clone(workload));
        };
        let mut placed = Workload::clone(workload);
        placed.endpoint = Some(placement.endpoint.clone());
        if !placed.host_network {
            placed.addresses = self.own_addresses(entry, workload, placement);
            // Whatever the API calls this node.
            placed.node = Some(self.node.clone());
        }
        Some(Arc::new(placed))
    }

    /// Of the addresses that a sandbox has, those that the API has given the pod, or whoever made its interface.
    ///
    /// As long as neither has said anything, those that it had when it was first seen: none that is added from
    /// inside.
    fn own_addresses(
        &self,
        entry: &Entry,
        workload: &Workload,
        placement: &Placement,
    ) -> BTreeSet<IpAddr> {
        let Placement {
            endpoint: _,
            addresses,
            assured,
            beside: _,
        } = placement;
        let given =
            |address: &&IpAddr| workload.addresses.contains(*address) || assured.contains(*address);
        if !is_given_any(workload, placement) {
            let first = self.first_seen.get(&*entry.uid);
            let first = first.into_iter().flat_map(|first| &first.own);
            let still = first.filter(|address| addresses.contains(*address));
            return still.take(UNVOUCHED).copied().collect();
        }
        addresses.iter().filter(given).copied().collect()
    }

    /// Never of a `Workload`: or it would take the address of a pod that the API has given none yet.
    fn is_vouched_for(&self, key: &Key, entry: &Entry, address: Option<&IpAddr>) -> bool {
        if !self.is_placed(key, entry) {
            return key.kind == Kind::Pod;
        }
        let placement = self.placements.get(&*entry.uid);
        match (entry.changes.first(), placement) {
            (Some(Change::Workload(_, Some(workload))), Some(placement)) => {
                let own = |address| {
                    let own = self.own_addresses(entry, workload, placement);
                    own.contains(address)
                };
                // Those of interfaces beside, nobody has given it.
                is_given_any(workload, placement) && address.is_none_or(own)
            }
            _ => false,
        }
    }

    /// Whether a pod has an address at an interface beside its own alone.
    fn is_beside(&self, key: &Key, entry: &Entry, address: &IpAddr) -> bool {
        let own = self.wanted(key, entry);
        let is_own = own.is_some_and(|own| own.addresses.contains(address));
        let mut beside = self.wanted_beside(key, entry).into_iter();
        !is_own && beside.any(|beside| beside.addresses.contains(address))
    }

    fn is_here(&self, workload: &Workload) -> bool {
        let node = workload.node.as_ref();
        node.is_none_or(|node| *node == self.node)
    }

    /// What of an object has its name from a file.
    fn taken_by_files(&self, entry: &Entry) -> Option<String> {
        let files = &self.files;
        let mut changes = entry.changes.iter();
        changes.find_map(|change| match change {
            // One that a file only names has no labels but its name.
            Change::Namespace(name, _) => {
                let labels = files.namespaces.get(name)?;
                (labels.len() > 1).then(|| format!("namespace `{name}`"))
            }
            Change::Workload(name, _) => {
                let named = files.workloads.contains_key(name);
                named.then(|| format!("`{name}`"))
            }
            Change::Node(name, _) => {
                let named = files.nodes.contains_key(name);
                named.then(|| format!("node `{name}`"))
            }
            Change::Service(name, _) => {
                let named = files.services.contains_key(name);
                named.then(|| format!("service `{name}`"))
            }
            Change::NetworkPolicy(name, _) => {
                let named = files.network_policies.contains_key(name);
                named.then(|| format!("policy `{name}`"))
            }
            Change::TierPolicy(id, _) => {
                let named = files.tier_policies.contains_key(id);
                named.then(|| format!("policy `{id}`"))
            }
            Change::Name(..) | Change::Failsafe(_) => None,
        })
    }

    /// Whether somebody is in force at an interface.
    pub(super) fn is_held_at(&self, interface: &str) -> bool {
        let point = EndpointSpec::Interface(interface.to_owned());
        let claims = self.points.get(&point).into_iter().flatten();
        let mut in_force = claims.filter_map(|key| self.in_force.get(key)).flatten();
        in_force.any(|change| match change {
            Change::Workload(_, Some(workload)) => workload.endpoint.as_ref() == Some(&point),
            _ => false,
        }) || self.is_used_by_files(&point)
    }

    fn is_used_by_files(&self, point: &EndpointSpec) -> bool {
        let mut workloads = self.files.workloads.values();
        workloads
            .any(|workload| workload.endpoint.as_ref() == Some(point) && self.is_here(workload))
    }
}

/// Whether addresses are an object's own. Those of a pod are, unless they are its node's, wherever it is held.
fn has_own(key: &Key, workload: &Workload) -> bool {
    match key.kind {
        Kind::Pod => !workload.host_network,
        _ => workload.owns_its_addresses(),
    }
}

/// A pod at its cgroup, as others on its node see it: one whose addresses are its own. What is known by its cgroup has,
/// to policy, those of its node.
fn as_peer(key: &Key, workload: &Workload) -> Option<Arc<Workload>> {
    let is_other = has_own(key, workload) && !workload.owns_its_addresses();
    (is_other && !workload.addresses.is_empty()).then(|| {
        let mut peer = workload.clone();
        // No object of the API has such a name.
        peer.name.name.push_str(PEER);
        peer.endpoint = None;
        Arc::new(peer)
    })
}

/// Whether the API, or who made its interface, has given a pod an address.
fn is_given_any(workload: &Workload, placement: &Placement) -> bool {
    !(workload.addresses.is_empty() && placement.assured.is_empty())
}
