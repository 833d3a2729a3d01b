//! What the policies of one namespace may take of the kernel's tables.
//!
//! Whoever may write policies in a namespace writes as many as he likes. Without a limit he fills the tables of each node
//! that has a pod of his, and no later change of anybody comes into force there.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use agent_policy::model::{Change, Peer, Peers, Ports, Rule};

use super::{Inner, Store};
use crate::{
    config::Capacities,
    source::kubernetes::{
        kind::{Key, Kind},
        object::Observed,
    },
};

/// Of each table, a namespace has this part.
const SHARE: u32 = 8;

/// What a namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget(Cost);

/// What policies say, as far as it takes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Of addresses, with those that are excepted.
    blocks: usize,
    /// Of all kinds.
    peers: usize,
    ports: usize,
}

/// A version of an object.
type Version = (Arc<str>, Box<[Change]>);

/// Who takes how much, and who was refused.
#[derive(Debug)]
pub(super) struct Budgets {
    budget: Budget,
    costs: BTreeMap<Key, Cost>,
    spent: BTreeMap<String, Cost>,
    /// For when there is room.
    refused: BTreeMap<Key, Observed>,
    /// Namespaces that take less than before.
    eased: BTreeSet<String>,
    /// Of what is not in force yet, the version that is.
    unproven: BTreeMap<Key, Version>,
    /// As much of that as the kernel is being asked for.
    tried: BTreeMap<Key, Version>,
}

impl Store {
    pub(crate) fn with_budget(self, budget: Budget) -> Self {
        self.lock().budgets.budget = budget;
        self
    }

    /// What was composed last is in force.
    pub(crate) fn came_into_force(&self) {
        self.lock().budgets.tried.clear();
    }

    /// What was composed last does not fit: of the namespaces whose policies have changed, the one that takes most keeps
    /// the versions that are in force. False if none has changed.
    pub(crate) fn hold_back(&self, why: &str) -> bool {
        let held = self.lock().hold_back(why);
        for key in &held {
            tracing::error!("kubernetes:{key}: {why}");
        }
        if !held.is_empty() {
            self.tell();
        }
        !held.is_empty()
    }
}

impl Inner {
    fn hold_back(&mut self, why: &str) -> Vec<Key> {
        let tried = mem::take(&mut self.budgets.tried);
        let mut takes: BTreeMap<&str, Cost> = BTreeMap::new();
        for key in tried.keys() {
            let cost = self.budgets.costs.get(key).copied().unwrap_or_default();
            let of = takes.entry(&key.namespace).or_default();
            *of = of.with(cost);
        }
        let most = takes.into_iter().max_by_key(|(_, cost)| *cost);
        let Some((most, _)) = most.map(|(name, cost)| (name.to_owned(), cost)) else {
            return Vec::new();
        };
        let mut held = Vec::new();
        for (key, (json, changes)) in tried {
            if key.namespace != most {
                self.budgets.tried.insert(key, (json, changes));
                continue;
            }
            // One that has changed again meanwhile is tried first.
            if !self.budgets.unproven.contains_key(&key)
                && let Some(entry) = self.objects.get_mut(&key)
            {
                self.budgets.spend(&key, Cost::of(&changes));
                entry.json = json;
                entry.changes = changes;
                entry.errors = vec![format!("kubernetes:{key}: {why}")];
                self.dirty.insert(key.clone());
            }
            held.push(key);
        }
        held
    }

    /// An object that takes more than there is keeps its last version.
    pub(super) fn within_budget(&mut self, mut observed: Observed) -> Observed {
        let key = &observed.key;
        if key.kind != Kind::NetworkPolicy {
            return observed;
        }
        self.budgets.refused.remove(key);
        if let Err(error) = self.budgets.allow(key, Cost::of(&observed.changes)) {
            let error = format!("kubernetes:{key}: {error}");
            self.budgets.refused.insert(key.clone(), observed.clone());
            observed.errors.push(error);
        }
        observed
    }

    /// A version of an object is taken over another one.
    pub(super) fn spend(&mut self, key: &Key, before: Version, now: Cost) {
        if key.kind == Kind::NetworkPolicy {
            self.budgets.spend(key, now);
            self.budgets.unproven.entry(key.clone()).or_insert(before);
        }
    }

    /// An object is no more.
    pub(super) fn give_back(&mut self, key: &Key) {
        self.budgets.spend(key, Cost::default());
        self.budgets.refused.remove(key);
        self.budgets.unproven.remove(key);
        self.budgets.tried.remove(key);
    }

    /// All objects are no more.
    pub(super) fn give_all_back(&mut self) {
        let Budgets { budget, .. } = mem::take(&mut self.budgets);
        self.budgets.budget = budget;
    }

    /// Looks again at what was refused where there is more room now.
    pub(super) fn use_room(&mut self) {
        for namespace in mem::take(&mut self.budgets.eased) {
            let refused = self.budgets.refused.keys();
            let refused = refused.filter(|key| key.namespace == namespace);
            for key in refused.cloned().collect::<Vec<_>>() {
                if let Some(observed) = self.budgets.refused.remove(&key) {
                    self.put(observed);
                }
            }
        }
    }
}

impl Budget {
    pub(crate) fn of(capacities: &Capacities) -> Self {
        let share = |size: u32| usize::try_from(size / SHARE).unwrap_or(usize::MAX);
        Self(Cost {
            blocks: share(capacities.prefixes),
            peers: share(capacities.policy_entries),
            ports: share(capacities.port_entries),
        })
    }
}

impl Default for Budgets {
    fn default() -> Self {
        let all = usize::MAX;
        Self {
            budget: Budget(Cost {
                blocks: all,
                peers: all,
                ports: all,
            }),
            costs: BTreeMap::new(),
            spent: BTreeMap::new(),
            refused: BTreeMap::new(),
            eased: BTreeSet::new(),
            unproven: BTreeMap::new(),
            tried: BTreeMap::new(),
        }
    }
}

impl Budgets {
    /// Has what has changed since the last time count as tried.
    pub(super) fn try_out(&mut self) {
        for (key, version) in mem::take(&mut self.unproven) {
            self.tried.entry(key).or_insert(version);
        }
    }

    fn allow(&self, key: &Key, cost: Cost) -> Result<(), String> {
        let Budget(limit) = self.budget;
        let spent = self.spent.get(&key.namespace).copied().unwrap_or_default();
        let old = self.costs.get(key).copied().unwrap_or_default();
        let all = spent.without(old).with(cost);
        let of = [
            (
                "blocks of addresses",
                all.blocks,
                limit.blocks,
                old.blocks,
                cost.blocks,
            ),
            ("peers", all.peers, limit.peers, old.peers, cost.peers),
            ("ports", all.ports, limit.ports, old.ports, cost.ports),
        ];
        // One that takes no more than before is no reason.
        let over = of
            .into_iter()
            .find(|(_, all, limit, old, new)| all > limit && new > old);
        match over {
            Some((what, all, limit, ..)) => Err(format!(
                "with it, the policies of its namespace list {all} {what}, expected at most {limit}"
            )),
            None => Ok(()),
        }
    }

    fn spend(&mut self, key: &Key, cost: Cost) {
        let old = if cost == Cost::default() {
            self.costs.remove(key)
        } else {
            self.costs.insert(key.clone(), cost)
        };
        let old = old.unwrap_or_default();
        let spent = self.spent.entry(key.namespace.clone()).or_default();
        *spent = spent.without(old).with(cost);
        if *spent == Cost::default() {
            self.spent.remove(&key.namespace);
        }
        if cost.blocks < old.blocks || cost.peers < old.peers || cost.ports < old.ports {
            self.eased.insert(key.namespace.clone());
        }
    }
}

impl Cost {
    pub(super) fn of(changes: &[Change]) -> Self {
        let policies = changes.iter().filter_map(|change| match change {
            Change::NetworkPolicy(_, policy) => policy.as_ref(),
            _ => None,
        });
        let rules = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
        let rules = rules.flatten().map(Self::of_rule);
        rules.fold(Self::default(), Self::with)
    }

    fn of_rule(rule: &Rule) -> Self {
        let peers: &[Peer] = match &rule.peers {
            Peers::Listed(peers) => peers,
            Peers::Every => &[],
        };
        let blocks = peers.iter().map(|peer| match peer {
            Peer::Block { except, .. } => 1 + except.len(),
            _ => 0,
        });
        Self {
            blocks: blocks.sum(),
            peers: peers.len(),
            ports: match &rule.ports {
                Ports::Listed(ports) => ports.len(),
                Ports::Every => 0,
            },
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            peers: self.peers.saturating_add(other.peers),
            ports: self.ports.saturating_add(other.ports),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_sub(other.blocks),
            peers: self.peers.saturating_sub(other.peers),
            ports: self.ports.saturating_sub(other.ports),
        }
    }
}
