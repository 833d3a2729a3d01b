//! Who is who: all that rules can tell of an address, and the number of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agent_common::table::{TRANSLATED, WORLD};

use crate::compile::{ids::Ids, ports::NamedPorts, services::FrontendPort};

/// What rules can tell of an address by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Base {
    /// The peer lists that admit it, in order.
    pub(super) lists: Vec<u32>,
    /// What it calls its ports.
    pub(super) named: NamedPorts,
}

/// Ports that are translated, and the bases and ports of whoever serves them; nobody, where that is not
/// known, and where the address is judged like any other.
pub(super) type Translations = BTreeMap<FrontendPort, Vec<(Arc<Base>, u16)>>;

/// All that rules can tell of an address. The empty class is the rest of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    pub(super) base: Arc<Base>,
    pub(super) frontends: Translations,
}

/// The classes that some prefix is of, with their numbers.
#[derive(Debug)]
pub(super) struct Classes {
    ids: Ids<Arc<Class>>,
    held: BTreeMap<u32, Held>,
    by_list: BTreeMap<u32, BTreeSet<u32>>,
    pub(super) named: BTreeSet<u32>,
    pub(super) fronted: BTreeSet<u32>,
    /// Since the last look.
    added: BTreeSet<u32>,
    removed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Held {
    class: Arc<Class>,
    prefixes: usize,
}

impl Base {
    pub(super) fn is_in(&self, list: u32) -> bool {
        self.lists.binary_search(&list).is_ok()
    }
}

impl Classes {
    pub(super) fn new() -> Self {
        Self {
            ids: Ids::for_identities(),
            held: BTreeMap::new(),
            by_list: BTreeMap::new(),
            named: BTreeSet::new(),
            fronted: BTreeSet::new(),
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// The number of a class that one more prefix is of.
    pub(super) fn take(&mut self, class: &Arc<Class>) -> u32 {
        if **class == Class::default() {
            return WORLD;
        }
        let bits = if class.frontends.is_empty() {
            0
        } else {
            TRANSLATED
        };
        let number = self.ids.number_with(class, bits);
        let held = self.held.entry(number).or_insert_with(|| Held {
            class: Arc::clone(class),
            prefixes: 0,
        });
        held.prefixes += 1;
        if held.prefixes == 1 {
            for list in &class.base.lists {
                self.by_list.entry(*list).or_default().insert(number);
            }
            if !class.base.named.is_empty() {
                self.named.insert(number);
            }
            if !class.frontends.is_empty() {
                self.fronted.insert(number);
            }
            self.added.insert(number);
        }
        number
    }

    /// One prefix less is of a class.
    pub(super) fn give_back(&mut self, number: u32) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        held.prefixes = held.prefixes.saturating_sub(1);
        if held.prefixes > 0 {
            return;
        }
        let Some(Held { class, .. }) = self.held.remove(&number) else {
            return;
        };
        self.ids.release(&class);
        for list in &class.base.lists {
            if let Some(of) = self.by_list.get_mut(list) {
                of.remove(&number);
                if of.is_empty() {
                    self.by_list.remove(list);
                }
            }
        }
        self.named.remove(&number);
        self.fronted.remove(&number);
        if !self.added.remove(&number) {
            self.removed.insert(number);
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<Class>> {
        self.held.get(&number).map(|held| &held.class)
    }

    pub(super) fn in_list(&self, list: u32) -> impl Iterator<Item = u32> {
        self.by_list.get(&list).into_iter().flatten().copied()
    }

    /// The numbers that came and went since the last look. A number may be among both: then it
    /// stands for another class than before.
    pub(super) fn take_changes(&mut self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        (
            std::mem::take(&mut self.added),
            std::mem::take(&mut self.removed),
        )
    }
}
