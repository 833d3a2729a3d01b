//! From one compiled state to the next, without a packet that is judged by a mix of both.
//!
//! A [`Plan`] is a value: it can be printed, and refused before anything is written. Applying it
//! has four steps, each finished before the next:
//!
//! 1. *prepare*: new port tables, own addresses and map entries are written; every slot that will
//!    change holds `before` and `after` with the plan's generation. All endpoints still answer as
//!    before, because none has that generation.
//! 2. *switch*: the word of each touched endpoint is stored. This alone changes verdicts.
//! 3. *wait* until no program runs that loaded an earlier word.
//! 4. *settle*: slots keep `after`, entries that nobody needs any more are taken out. What was
//!    freed is used again only after another such wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::{
    GENERATION_KEPT, NO_TABLE, PolicyKey, SocketKey, THIS_NODE, WORLD, Word,
};
use ipnet::IpNet;

use crate::{
    compact::compact,
    compile::Delta,
    compiled::{Compiled, PortTable, Socket},
    model::SubjectName,
};

/// What the kernel holds, between plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    pub prefixes: BTreeMap<IpNet, u32>,
    pub sockets: BTreeMap<SocketKey, u32>,
    pub policy: BTreeMap<PolicyKey, u32>,
    pub port_tables: BTreeMap<u32, PortTable>,
    pub words: BTreeMap<u16, Word>,
    /// Addresses that each endpoint may send from.
    pub own: BTreeSet<(u16, IpAddr)>,
    /// The generation of the last plan.
    pub generation: u32,
}

/// What one change of the kernel's tables does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub generation: u32,
    pub add_tables: BTreeMap<u32, PortTable>,
    pub prefixes: BTreeMap<IpNet, Change>,
    pub sockets: BTreeMap<SocketKey, Change>,
    pub policy: BTreeMap<PolicyKey, Change>,
    pub add_own: BTreeSet<(u16, IpAddr)>,
    /// The new state of every endpoint whose answers change.
    pub words: BTreeMap<u16, Word>,
    pub remove_words: BTreeSet<u16>,
    pub remove_own: BTreeSet<(u16, IpAddr)>,
    pub remove_tables: BTreeMap<u32, PortTable>,
}

/// What happens to one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// The answer of an endpoint that has not switched.
    pub before: u32,
    /// The answer of one that has.
    pub after: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Add,
    Update,
    Remove,
}

/// How many entries of each kind the kernel has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub endpoints: usize,
    /// Of each family.
    pub prefixes: usize,
    pub sockets: usize,
    pub policy: usize,
    pub ports: usize,
    pub own_addresses: usize,
}

/// A table that a plan would overflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table `{table}` has room for {capacity} entries and would need {needed}")]
pub struct Overflow {
    pub table: &'static str,
    pub capacity: usize,
    pub needed: usize,
}

impl ChangeKind {
    fn of(held: Option<u32>, wanted: Option<u32>) -> Option<Self> {
        match (held, wanted) {
            (None, None) => None,
            (None, Some(_)) => Some(Self::Add),
            (Some(_), None) => Some(Self::Remove),
            (Some(held), Some(wanted)) => (held != wanted).then_some(Self::Update),
        }
    }
}

impl Plan {
    /// The plan that takes `old` to `compiled`, for endpoints with the given subjects.
    ///
    /// An endpoint whose subject is unknown keeps no word: it is closed until its subject is there.
    pub fn new(
        old: &Programmed,
        compiled: &Compiled,
        endpoints: &BTreeMap<u16, SubjectName>,
    ) -> Self {
        let prefixes = prefix_changes(&old.prefixes, &compiled.prefixes);
        let keys = old.policy.keys().chain(compiled.policy.keys());
        let policy = policy_changes(&old.policy, &compiled.policy, keys);
        Self::of_changes(old, compiled, endpoints, prefixes, policy)
    }

    /// As [`Plan::new`], if `old` and `compiled` differ in nothing but what `delta` names, beside
    /// port tables and endpoints. Its cost grows with the change.
    pub fn of_delta(
        old: &Programmed,
        compiled: &Compiled,
        endpoints: &BTreeMap<u16, SubjectName>,
        delta: &Delta,
    ) -> Self {
        let prefixes = delta
            .prefixes
            .iter()
            .filter_map(|prefix| {
                let (held, before) = at(&old.prefixes, prefix);
                let (wanted, after) = at(&compiled.prefixes, prefix);
                let kind = ChangeKind::of(held, wanted)?;
                let change = Change {
                    kind,
                    before,
                    after,
                };
                Some((*prefix, change))
            })
            .collect();
        let policy = policy_changes(&old.policy, &compiled.policy, delta.policy.iter());
        Self::of_changes(old, compiled, endpoints, prefixes, policy)
    }

    fn of_changes(
        old: &Programmed,
        compiled: &Compiled,
        endpoints: &BTreeMap<u16, SubjectName>,
        prefixes: BTreeMap<IpNet, Change>,
        policy: BTreeMap<PolicyKey, Change>,
    ) -> Self {
        let wanted = sockets(compiled, endpoints);
        let mut plan = Self {
            generation: next_generation(old),
            prefixes,
            sockets: socket_changes(&old.sockets, &wanted),
            policy,
            ..Self::default()
        };
        for (number, table) in &compiled.port_tables {
            if !old.port_tables.contains_key(number) {
                plan.add_tables.insert(*number, table.clone());
            }
        }
        for (number, table) in &old.port_tables {
            if !compiled.port_tables.contains_key(number) {
                plan.remove_tables.insert(*number, table.clone());
            }
        }

        let touched = plan.touched_sets(old, compiled, &wanted);
        let mut own = BTreeSet::new();
        let known = || {
            let subject = |name| compiled.subjects.get(name);
            endpoints
                .iter()
                .filter_map(move |(id, name)| Some((*id, subject(name)?)))
        };
        for (id, subject) in known() {
            own.extend(subject.addresses.iter().map(|address| (id, *address)));
        }
        plan.add_own = own.difference(&old.own).copied().collect();
        plan.remove_own = old.own.difference(&own).copied().collect();
        // Live flows of an address that is taken away are to be looked at, whatever policy says.
        let lost: BTreeSet<u16> = plan.remove_own.iter().map(|(id, _)| *id).collect();
        for (id, subject) in known() {
            let same = old
                .words
                .get(&id)
                .is_some_and(|word| word.set() == subject.set);
            let is_touched = subject.sets().any(|set| touched.contains(&set));
            if !same || is_touched || lost.contains(&id) {
                plan.words
                    .insert(id, Word::new(subject.set, plan.generation));
            }
        }
        plan.remove_words = old
            .words
            .keys()
            .filter(|id| {
                endpoints
                    .get(id)
                    .is_none_or(|name| !compiled.subjects.contains_key(name))
            })
            .copied()
            .collect();
        plan
    }

    /// The plan that changes no answer, and has every flow judged once more.
    pub fn anew(old: &Programmed) -> Self {
        let generation = next_generation(old);
        let words = old.words.iter();
        Self {
            generation,
            words: words
                .map(|(id, word)| (*id, Word::new(word.set(), generation)))
                .collect(),
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                generation: self.generation,
                ..Self::default()
            }
    }

    /// Refuses a plan for which the kernel has no room, counting what is there while it is applied.
    ///
    /// # Errors
    ///
    /// Every table that would overflow, with the numbers. Nothing has been written.
    pub fn check(&self, old: &Programmed, capacity: &Capacity) -> Result<(), Vec<Overflow>> {
        let added = |changes: &mut dyn Iterator<Item = ChangeKind>| {
            changes.filter(|kind| *kind == ChangeKind::Add).count()
        };
        let of_family = |v4: bool| {
            let held = old
                .prefixes
                .keys()
                .filter(|prefix| is_v4(prefix) == v4)
                .count();
            let mut changes = self
                .prefixes
                .iter()
                .filter(|(prefix, _)| is_v4(prefix) == v4)
                .map(|(_, change)| change.kind);
            held + added(&mut changes)
        };
        let ports = |tables: &BTreeMap<u32, PortTable>| {
            tables
                .values()
                .map(|PortTable(entries)| entries.len())
                .sum::<usize>()
        };
        let words: BTreeSet<u16> = old.words.keys().chain(self.words.keys()).copied().collect();
        let needs = [
            ("ipcache_v4", capacity.prefixes, of_family(true)),
            ("ipcache_v6", capacity.prefixes, of_family(false)),
            (
                "sockets",
                capacity.sockets,
                old.sockets.len() + added(&mut self.sockets.values().map(|change| change.kind)),
            ),
            (
                "policy",
                capacity.policy,
                old.policy.len() + added(&mut self.policy.values().map(|change| change.kind)),
            ),
            (
                "ports",
                capacity.ports,
                ports(&old.port_tables) + ports(&self.add_tables),
            ),
            (
                "addresses",
                capacity.own_addresses,
                old.own.len() + self.add_own.len(),
            ),
            ("endpoints", capacity.endpoints, words.len()),
        ];
        let overflows: Vec<Overflow> = needs
            .into_iter()
            .filter(|(_, capacity, needed)| needed > capacity)
            .map(|(table, capacity, needed)| Overflow {
                table,
                capacity,
                needed,
            })
            .collect();
        if overflows.is_empty() {
            Ok(())
        } else {
            Err(overflows)
        }
    }

    /// What the kernel holds once the plan has been applied to `programmed`.
    pub fn finish(&self, programmed: &mut Programmed) {
        let Self {
            generation,
            add_tables,
            prefixes,
            sockets,
            policy,
            add_own,
            words,
            remove_words,
            remove_own,
            remove_tables,
        } = self;
        programmed.generation = *generation;
        settle(&mut programmed.prefixes, prefixes);
        settle(&mut programmed.sockets, sockets);
        settle(&mut programmed.policy, policy);
        programmed
            .port_tables
            .retain(|number, _| !remove_tables.contains_key(number));
        programmed.port_tables.extend(
            add_tables
                .iter()
                .map(|(number, table)| (*number, table.clone())),
        );
        programmed.words.retain(|id, _| !remove_words.contains(id));
        programmed.words.extend(words);
        programmed.own.retain(|own| !remove_own.contains(own));
        programmed.own.extend(add_own);
    }

    /// The policy sets of which some packet gets another answer; `sockets` is what `new` says of them.
    fn touched_sets(
        &self,
        old: &Programmed,
        new: &Compiled,
        sockets: &BTreeMap<SocketKey, u32>,
    ) -> BTreeSet<u32> {
        let mut touched: BTreeSet<u32> = self.policy.keys().map(|key| key.set).collect();
        let pairs = |changes: &mut dyn Iterator<Item = &Change>| -> BTreeSet<(u32, u32)> {
            changes
                .filter(|change| change.before != change.after)
                .map(|change| (change.before, change.after))
                .collect()
        };
        let mut moves = pairs(&mut self.prefixes.values());
        moves.extend(moves_of_sockets(&moves, &old.sockets, sockets));
        moves.extend(pairs(&mut self.sockets.values()));
        let sets: BTreeSet<u32> = new
            .subjects
            .values()
            .flat_map(crate::compiled::Subject::sets)
            .collect();
        for set in sets {
            let changes = moves.iter().any(|&(before, after)| {
                (before ^ after) & THIS_NODE != 0
                    || [0, 1].into_iter().any(|direction| {
                        answer(&old.policy, set, direction, before)
                            != answer(&new.policy, set, direction, after)
                    })
            });
            if changes {
                touched.insert(set);
            }
        }
        touched
    }
}

/// What those who are at an address are taken for, where it gets another identity: their entries are found by it, and
/// may all be as they were.
fn moves_of_sockets(
    addresses: &BTreeSet<(u32, u32)>,
    old: &BTreeMap<SocketKey, u32>,
    new: &BTreeMap<SocketKey, u32>,
) -> BTreeSet<(u32, u32)> {
    let at = |sockets: &BTreeMap<SocketKey, u32>| {
        let mut at: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for (SocketKey { socket, identity }, taken_for) in sockets {
            let there = at.entry(*identity).or_default();
            there.insert(*socket, *taken_for);
        }
        at
    };
    let (old, new, nobody) = (at(old), at(new), BTreeMap::new());
    let mut moves = BTreeSet::new();
    for &(before, after) in addresses {
        let (before, after) = (before & !THIS_NODE, after & !THIS_NODE);
        let there = old.get(&before).unwrap_or(&nobody);
        let then = new.get(&after).unwrap_or(&nobody);
        for socket in there.keys().chain(then.keys()) {
            moves.insert((
                there.get(socket).copied().unwrap_or(before),
                then.get(socket).copied().unwrap_or(after),
            ));
        }
    }
    moves
}

/// The next number whose lower 16 bits no live word has: [`agent_common::table::Versioned`] keeps
/// no more than those.
fn next_generation(old: &Programmed) -> u32 {
    let live: BTreeSet<u32> = old
        .words
        .values()
        .map(|word| word.generation() & GENERATION_KEPT)
        .collect();
    let mut generation = old.generation.wrapping_add(1);
    while live.contains(&(generation & GENERATION_KEPT)) || generation & GENERATION_KEPT == 0 {
        generation = generation.wrapping_add(1);
    }
    generation
}

fn answer(policy: &BTreeMap<PolicyKey, u32>, set: u32, direction: u32, identity: u32) -> u32 {
    let of = |identity| {
        policy
            .get(&PolicyKey {
                set,
                direction,
                identity,
            })
            .copied()
    };
    of(identity & !THIS_NODE)
        .or_else(|| of(WORLD))
        .unwrap_or(NO_TABLE)
}

/// An entry that is added answers `before` like the prefix around it does now; one that is removed
/// answers `after` like the prefix that will be around it then.
fn prefix_changes(
    old: &BTreeMap<IpNet, u32>,
    new: &BTreeMap<IpNet, u32>,
) -> BTreeMap<IpNet, Change> {
    let mut changes = BTreeMap::new();
    let mut around: Vec<(IpNet, u32, u32)> = Vec::new();
    let all: BTreeSet<&IpNet> = old.keys().chain(new.keys()).collect();
    for prefix in all {
        while around
            .last()
            .is_some_and(|(outer, ..)| !outer.contains(prefix))
        {
            around.pop();
        }
        let (outer_before, outer_after) = around
            .last()
            .map_or((WORLD, WORLD), |(_, before, after)| (*before, *after));
        let (held, wanted) = (old.get(prefix).copied(), new.get(prefix).copied());
        let before = held.unwrap_or(outer_before);
        let after = wanted.unwrap_or(outer_after);
        if let Some(kind) = ChangeKind::of(held, wanted) {
            changes.insert(
                *prefix,
                Change {
                    kind,
                    before,
                    after,
                },
            );
        }
        around.push((*prefix, before, after));
    }
    changes
}

/// What a prefix has, and what holds there: its own, or else that of the prefix around it.
fn at(prefixes: &BTreeMap<IpNet, u32>, prefix: &IpNet) -> (Option<u32>, u32) {
    let own = prefixes.get(prefix).copied();
    let around = || {
        (0..prefix.prefix_len())
            .rev()
            .filter_map(|bits| IpNet::new(prefix.addr(), bits).ok())
            .find_map(|outer| prefixes.get(&outer.trunc()).copied())
    };
    (own, own.or_else(around).unwrap_or(WORLD))
}

/// What the sockets of the endpoints are to one another.
fn sockets(
    compiled: &Compiled,
    endpoints: &BTreeMap<u16, SubjectName>,
) -> BTreeMap<SocketKey, u32> {
    let mut found = BTreeMap::new();
    if compiled.sockets.is_empty() {
        return found;
    }
    for (&id, subject) in endpoints {
        let Some(workload) = subject.workload() else {
            continue;
        };
        let first = Socket {
            workload: workload.clone(),
            identity: WORLD,
        };
        let own = compiled.sockets.range(first..);
        let own = own.take_while(|(socket, _)| socket.workload == *workload);
        found.extend(own.map(|(socket, identity)| {
            let key = SocketKey {
                socket: id.into(),
                identity: socket.identity,
            };
            (key, *identity)
        }));
    }
    found
}

/// Without an entry, a socket is what its address is.
fn socket_changes(
    old: &BTreeMap<SocketKey, u32>,
    new: &BTreeMap<SocketKey, u32>,
) -> BTreeMap<SocketKey, Change> {
    let keys: BTreeSet<&SocketKey> = old.keys().chain(new.keys()).collect();
    let change = |key: &SocketKey| {
        let (held, wanted) = (old.get(key).copied(), new.get(key).copied());
        Some(Change {
            kind: ChangeKind::of(held, wanted)?,
            before: held.unwrap_or(key.identity),
            after: wanted.unwrap_or(key.identity),
        })
    };
    keys.into_iter()
        .filter_map(|key| Some((*key, change(key)?)))
        .collect()
}

fn policy_changes<'k>(
    old: &BTreeMap<PolicyKey, u32>,
    new: &BTreeMap<PolicyKey, u32>,
    keys: impl Iterator<Item = &'k PolicyKey>,
) -> BTreeMap<PolicyKey, Change> {
    keys.filter_map(|key| {
        let (held, wanted) = (old.get(key).copied(), new.get(key).copied());
        let change = Change {
            kind: ChangeKind::of(held, wanted)?,
            before: held.unwrap_or(NO_TABLE),
            after: wanted.unwrap_or(NO_TABLE),
        };
        Some((*key, change))
    })
    .collect()
}

fn settle<K: Ord + Copy>(held: &mut BTreeMap<K, u32>, changes: &BTreeMap<K, Change>) {
    let before = held.len();
    for (key, change) in changes {
        match change.kind {
            ChangeKind::Add | ChangeKind::Update => held.insert(*key, change.after),
            ChangeKind::Remove => held.remove(key),
        };
    }
    if held.len() > before * 2 {
        compact(held);
    }
}

fn is_v4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}
