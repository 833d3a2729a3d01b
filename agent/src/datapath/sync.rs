//! Applies plans to the kernel's tables. The only writer of policy.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use agent_common::{
    protocol::Address as _,
    table::{GENERATION_KEPT, OwnAddress, PolicyKey, PortKey, SocketKey, Versioned, Word},
};
use agent_policy::{
    compiled::{PortEntry, PortTable},
    plan::{Capacity, Change, ChangeKind, Overflow, Plan, Programmed},
};
use anyhow::Context as _;
use aya::maps::lpm_trie::Key as Prefix;
use ipnet::IpNet;

use self::restore::Walk;
use crate::datapath::{
    grace::GracePeriod, maps::PolicyMaps, memory, raw::Raw, slots::Slots, words::OwnWords,
};

mod restore;

/// The kernel's tables and what we know to be in them.
#[derive(Debug)]
pub(crate) struct Sync {
    maps: PolicyMaps,
    programmed: Programmed,
    identity_slots: Slots<Who>,
    policy_slots: Slots<PolicyKey>,
    capacity: Capacity,
    grace: GracePeriod,
    /// In force, and not settled yet.
    applied: Option<Arc<Plan>>,
    /// Something was taken out since the last grace period: nothing may be put in before another.
    unsettled: bool,
    /// Slots have left memory that nobody uses.
    has_spare: bool,
    /// How far the tables have been compared with what was put there.
    walk: Walk,
}

/// What an identity is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Prefix(IpNet),
    Socket(SocketKey),
}

/// Why a plan was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Overflow(Vec<Overflow>),
    /// Everything answers as before.
    #[error("the kernel refused a change, and what was in force still is: {0:#}")]
    Refused(anyhow::Error),
}

impl Sync {
    /// Takes over what the kernel holds, from this agent or one before it.
    ///
    /// A predecessor may have died between the steps of a plan, see [`finish_interrupted`].
    pub(crate) fn adopt(mut maps: PolicyMaps, capacity: Capacity) -> anyhow::Result<Self> {
        let prefixes = maps.ipcache.read()?;
        let mut policy = BTreeMap::new();
        for entry in &maps.policy {
            let (Raw(key), Raw(slot)) = entry?;
            policy.insert(key, slot);
        }
        let mut sockets = BTreeMap::new();
        for entry in &maps.sockets {
            let (Raw(key), Raw(slot)) = entry?;
            sockets.insert(key, slot);
        }
        let identities = prefixes.values().chain(sockets.values());
        finish_interrupted(&mut maps, identities, policy.values());

        let mut programmed = Programmed::default();
        for index in 0..maps.words.len() {
            let word = Word(maps.words.load(index));
            if word != Word::UNSET {
                programmed.words.insert(u16::try_from(index)?, word);
                programmed.generation = programmed.generation.max(word.generation());
            }
        }
        for (prefix, slot) in &prefixes {
            let identity = Versioned(maps.identities.load(*slot)).after();
            programmed.prefixes.insert(*prefix, identity);
        }
        for (key, slot) in &sockets {
            let identity = Versioned(maps.identities.load(*slot)).after();
            programmed.sockets.insert(*key, identity);
        }
        // Entries that a removal left behind say nothing: take them out now.
        policy.retain(|key, slot| {
            let table = Versioned(maps.answers.load(*slot)).after();
            if table == agent_common::table::NO_TABLE {
                return maps.policy.remove(&Raw(*key)).is_err();
            }
            programmed.policy.insert(*key, table);
            true
        });
        programmed.port_tables = read_port_tables(&maps)?;
        for entry in &maps.addresses {
            let (Raw(OwnAddress { endpoint, address }), _) = entry?;
            programmed
                .own
                .insert((u16::try_from(endpoint)?, unmapped(address)));
        }
        let prefixes = prefixes
            .into_iter()
            .map(|(prefix, slot)| (Who::Prefix(prefix), slot));
        let sockets = sockets
            .into_iter()
            .map(|(key, slot)| (Who::Socket(key), slot));
        let identity_slots = prefixes.chain(sockets).collect();
        Ok(Self {
            identity_slots: Slots::new(identity_slots, maps.identities.len()),
            policy_slots: Slots::new(policy, maps.answers.len()),
            maps,
            programmed,
            capacity,
            grace: GracePeriod::new()?,
            applied: None,
            unsettled: true,
            has_spare: false,
            walk: Walk::default(),
        })
    }

    /// Judges by later generations than this from now on.
    pub(crate) fn follow(&mut self, generation: u32) {
        self.programmed.generation = self.programmed.generation.max(generation);
    }

    pub(crate) fn programmed(&self) -> &Programmed {
        &self.programmed
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Puts a plan into force that was made from [`Sync::programmed`]. What a grace period has to pass for
    /// is left to [`Sync::settle`] and [`Sync::tidy`]: it would double the time that a change takes.
    ///
    /// # Errors
    ///
    /// The tables answer as before.
    pub(crate) fn apply(&mut self, plan: &Arc<Plan>) -> Result<(), ApplyError> {
        if plan.is_empty() {
            return Ok(());
        }
        plan.check(&self.programmed, &self.capacity)
            .map_err(ApplyError::Overflow)?;
        self.settle();
        self.tidy()
            .map_err(|error| ApplyError::Refused(error.into()))?;
        if let Err(error) = self.prepare(plan) {
            self.abandon(plan);
            return Err(ApplyError::Refused(error));
        }
        // Before the words: a flow that is judged anew must not find its address once more. A packet of before the
        // words is dropped for what the next one is.
        for (endpoint, address) in &plan.remove_own {
            ignore_missing(
                self.maps
                    .addresses
                    .remove(&own_address(*endpoint, *address)),
            );
        }
        for (endpoint, word) in &plan.words {
            self.maps.words.store(u32::from(*endpoint), word.0);
        }
        for endpoint in &plan.remove_words {
            self.maps.words.store(u32::from(*endpoint), Word::UNSET.0);
        }
        plan.finish(&mut self.programmed);
        self.applied = Some(Arc::clone(plan));
        Ok(())
    }

    /// Has every slot keep what it says since the last plan, once no packet is judged by what was before,
    /// and takes out what nobody needs.
    pub(crate) fn settle(&mut self) {
        let Some(plan) = self.applied.take() else {
            return;
        };
        if let Err(error) = self.grace.wait() {
            // Settling now is right for all packets but those in flight.
            tracing::warn!(%error, "no grace period");
        }
        for (prefix, change) in &plan.prefixes {
            self.finish_prefix(*prefix, change.after, change.kind == ChangeKind::Remove);
        }
        for (key, change) in &plan.sockets {
            self.finish_socket(*key, change.after, change.kind == ChangeKind::Remove);
        }
        for (key, change) in &plan.policy {
            self.finish_policy(key, change.after, change.kind == ChangeKind::Remove);
        }
        self.drop_tables(&plan.remove_tables);
        // Elements of a hash are used again at once. Nodes of a tree are not, as long as anybody may read them, and
        // slots that only say something else are nobody's but theirs: most changes of a rule wait here alone.
        self.unsettled |= takes_out(&plan);
    }

    /// Gives memory back that slots no longer need. Not within a change, which would wait for it.
    pub(crate) fn give_back(&mut self) {
        if std::mem::take(&mut self.has_spare) {
            memory::give_back();
        }
    }

    /// Makes room where something was taken out, once nobody reads it any more.
    ///
    /// # Errors
    ///
    /// There is no grace period: nothing may be put in yet.
    pub(crate) fn tidy(&mut self) -> std::io::Result<()> {
        if self.unsettled {
            self.grace.wait()?;
            self.unsettled = false;
            let freed = [self.identity_slots.recycle(), self.policy_slots.recycle()];
            self.has_spare |= freed.contains(&true);
        }
        Ok(())
    }

    fn prepare(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for (number, PortTable(entries)) in &plan.add_tables {
            for entry in entries {
                let key = Prefix::new(entry.bits, Raw(entry.key(*number)));
                self.maps
                    .ports
                    .insert(&key, Raw(entry.decision), 0)
                    .context("failed to add a port")?;
            }
        }
        for (endpoint, address) in &plan.add_own {
            self.maps
                .addresses
                .insert(own_address(*endpoint, *address), Raw(1), 0)
                .context("failed to add an address of an endpoint")?;
        }
        for (prefix, change) in &plan.prefixes {
            let answer = Versioned::new(change.before, change.after, plan.generation);
            prepare_slot(
                &mut self.identity_slots,
                &mut self.maps.identities,
                &Who::Prefix(*prefix),
                change,
                answer,
                |slot| self.maps.ipcache.insert(*prefix, slot),
            )
            .with_context(|| format!("failed to add prefix {prefix}"))?;
        }
        for (key, change) in &plan.sockets {
            let answer = Versioned::new(change.before, change.after, plan.generation);
            prepare_slot(
                &mut self.identity_slots,
                &mut self.maps.identities,
                &Who::Socket(*key),
                change,
                answer,
                |slot| Ok(self.maps.sockets.insert(Raw(*key), Raw(slot), 0)?),
            )
            .context("failed to add a socket")?;
        }
        for (key, change) in &plan.policy {
            let answer = Versioned::new(change.before, change.after, plan.generation);
            prepare_slot(
                &mut self.policy_slots,
                &mut self.maps.answers,
                key,
                change,
                answer,
                |slot| Ok(self.maps.policy.insert(Raw(*key), Raw(slot), 0)?),
            )
            .context("failed to add a policy entry")?;
        }
        Ok(())
    }

    /// Undoes [`Sync::prepare`], as far as it got.
    fn abandon(&mut self, plan: &Plan) {
        for (prefix, change) in &plan.prefixes {
            self.finish_prefix(*prefix, change.before, change.kind == ChangeKind::Add);
        }
        for (key, change) in &plan.sockets {
            self.finish_socket(*key, change.before, change.kind == ChangeKind::Add);
        }
        for (key, change) in &plan.policy {
            self.finish_policy(key, change.before, change.kind == ChangeKind::Add);
        }
        self.drop_tables(&plan.add_tables);
        for (endpoint, address) in &plan.add_own {
            ignore_missing(
                self.maps
                    .addresses
                    .remove(&own_address(*endpoint, *address)),
            );
        }
        self.unsettled = true;
    }

    fn finish_prefix(&mut self, prefix: IpNet, answer: u32, remove: bool) {
        if self.finish_identity(Who::Prefix(prefix), answer, remove)
            && let Err(error) = self.maps.ipcache.remove(prefix)
        {
            tracing::warn!(%prefix, error = format!("{error:#}"), "prefix was already gone");
        }
    }

    fn finish_socket(&mut self, key: SocketKey, answer: u32, remove: bool) {
        if self.finish_identity(Who::Socket(key), answer, remove) {
            ignore_missing(self.maps.sockets.remove(&Raw(key)));
        }
    }

    /// Whether the entry is now to be taken out.
    fn finish_identity(&mut self, who: Who, answer: u32, remove: bool) -> bool {
        let Some(slot) = self.identity_slots.get(&who) else {
            return false;
        };
        self.maps
            .identities
            .store(slot, Versioned::settled(answer).0);
        if remove {
            self.identity_slots.release(&who);
        }
        remove
    }

    fn finish_policy(&mut self, key: &PolicyKey, answer: u32, remove: bool) {
        let Some(slot) = self.policy_slots.get(key) else {
            return;
        };
        self.maps.answers.store(slot, Versioned::settled(answer).0);
        if remove {
            ignore_missing(self.maps.policy.remove(&Raw(*key)));
            self.policy_slots.release(key);
        }
    }

    fn drop_tables(&mut self, tables: &BTreeMap<u32, PortTable>) {
        for (number, PortTable(entries)) in tables {
            for entry in entries {
                let key = Prefix::new(entry.bits, Raw(entry.key(*number)));
                ignore_missing(self.maps.ports.remove(&key));
            }
        }
    }
}

/// Writes the slot of an entry; a new entry is put into its map after its slot is right.
fn prepare_slot<K: Ord + Copy>(
    slots: &mut Slots<K>,
    words: &mut OwnWords,
    key: &K,
    change: &Change,
    answer: Versioned,
    insert: impl FnOnce(u32) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if change.kind != ChangeKind::Add {
        let slot = slots.get(key).context("the entry has no slot")?;
        words.store(slot, answer.0);
        return Ok(());
    }
    let slot = slots.take(*key).context("no free slot")?;
    words.store(slot, answer.0);
    insert(slot).inspect_err(|_| slots.release(key))
}

/// Settles a plan that was cut short: undone if no endpoint had switched, else carried to its end.
///
/// Cut short between the switch of one endpoint and of the next, an endpoint that was to get
/// another policy set keeps the old one, without entries: closed, until the next plan.
fn finish_interrupted<'a>(
    maps: &mut PolicyMaps,
    identities: impl Iterator<Item = &'a u32>,
    policy: impl Iterator<Item = &'a u32>,
) {
    let (identities, answers) = (
        open(&maps.identities, identities),
        open(&maps.answers, policy),
    );
    let Some(kept) = identities.iter().chain(&answers).next() else {
        return;
    };
    let kept = kept.1.generation();
    let live: Vec<(u32, Word)> = (0..maps.words.len())
        .map(|index| (index, Word(maps.words.load(index))))
        .filter(|(_, word)| *word != Word::UNSET)
        .collect();
    let switched = |word: &Word| word.generation() & GENERATION_KEPT == kept;
    let begun = live.iter().any(|(_, word)| switched(word));
    if begun {
        for (index, word) in live.iter().filter(|(_, word)| !switched(word)) {
            let mut generation = (word.generation() & !GENERATION_KEPT) | kept;
            if generation < word.generation() {
                generation = generation.wrapping_add(GENERATION_KEPT + 1);
            }
            maps.words
                .store(*index, Word::new(word.set(), generation).0);
        }
    }
    let settled = |answer: Versioned| {
        let answer = if begun {
            answer.after()
        } else {
            answer.before()
        };
        Versioned::settled(answer).0
    };
    for (slot, answer) in identities {
        maps.identities.store(slot, settled(answer));
    }
    for (slot, answer) in answers {
        maps.answers.store(slot, settled(answer));
    }
}

/// Slots that a plan has prepared and not settled.
fn open<'a>(words: &OwnWords, slots: impl Iterator<Item = &'a u32>) -> Vec<(u32, Versioned)> {
    slots
        .map(|slot| (*slot, Versioned(words.load(*slot))))
        .filter(|(_, answer)| answer.before() != answer.after())
        .collect()
}

fn read_port_tables(maps: &PolicyMaps) -> anyhow::Result<BTreeMap<u32, PortTable>> {
    let mut tables: BTreeMap<u32, PortTable> = BTreeMap::new();
    for entry in &maps.ports {
        let (key, Raw(decision)) = entry?;
        let Raw(PortKey {
            table,
            protocol,
            port,
            zero: _,
        }) = key.data();
        let entry = PortEntry {
            bits: key.prefix_len(),
            protocol,
            port: u16::from_be_bytes(port),
            decision,
        };
        tables
            .entry(u32::from_be_bytes(table))
            .or_default()
            .0
            .push(entry);
    }
    for PortTable(entries) in tables.values_mut() {
        entries.sort();
    }
    Ok(tables)
}

fn own_address(endpoint: u16, address: IpAddr) -> Raw<OwnAddress> {
    let address = match address {
        IpAddr::V4(address) => address.octets().mapped(),
        IpAddr::V6(address) => address.octets(),
    };
    Raw(OwnAddress {
        endpoint: u32::from(endpoint),
        address,
    })
}

fn unmapped(address: [u8; 16]) -> IpAddr {
    IpAddr::from(address).to_canonical()
}

/// What was to be removed is gone either way.
fn ignore_missing<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "was already gone");
    }
}

/// Whether a plan takes elements out of hashes, or slots from those who had them.
fn takes_out(plan: &Plan) -> bool {
    let removes = |kind| kind == ChangeKind::Remove;
    plan.prefixes.values().any(|change| removes(change.kind))
        || plan.sockets.values().any(|change| removes(change.kind))
        || plan.policy.values().any(|change| removes(change.kind))
        || !plan.remove_own.is_empty()
}
