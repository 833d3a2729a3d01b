//! The maps, bound to what judging needs.

use agent_common::{
    decide::Tables,
    event::{DenialKey, Event, EventKind},
    flow::{Flow, FlowKey, FlowState},
    judge::{Datapath, NewFlow, Sight},
    protocol::Address,
    shared::Shared,
    table::{
        Counter, Decision, Direction, Endpoint, NO_TABLE, OwnAddress, PolicyKey, PortKey,
        Versioned, WORLD, Word,
    },
    verdict::{Reason, RuleId, Verdict},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    maps::{HashMap, LpmTrie, lpm_trie::Key},
};

use crate::maps::{
    ADDRESSES, ANSWERS, COUNTERS, DENIALS, EVENTS, EVENTS_LOST, FLOWS_V4, FLOWS_V6, IDENTITIES,
    IPCACHE_V4, IPCACHE_V6, POLICY, PORTS, WORDS,
};

/// The maps of this program, at one hook.
pub(crate) struct Maps {
    pub(crate) ifindex: u32,
}

/// What differs between the families: which maps.
pub(crate) trait FamilyMaps: Address {
    fn ipcache() -> &'static LpmTrie<Self, u32>;
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow>;
}

impl FamilyMaps for [u8; 4] {
    #[inline(always)]
    fn ipcache() -> &'static LpmTrie<Self, u32> {
        &IPCACHE_V4
    }

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow> {
        &FLOWS_V4
    }
}

impl FamilyMaps for [u8; 16] {
    #[inline(always)]
    fn ipcache() -> &'static LpmTrie<Self, u32> {
        &IPCACHE_V6
    }

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow> {
        &FLOWS_V6
    }
}

/// The endpoint's word; unset if it has none, and then everything is denied.
#[inline(always)]
pub(crate) fn word(endpoint: Endpoint) -> Word {
    match WORDS.get(u32::from(endpoint.id)) {
        Some(word) => Word(*word),
        None => Word::UNSET,
    }
}

impl<A: FamilyMaps> Tables<A> for Maps {
    #[inline(always)]
    fn identity(&self, address: &A) -> Versioned {
        A::ipcache()
            .get(Key::new(A::BITS, *address))
            .and_then(|slot| IDENTITIES.get(*slot))
            .map_or(Versioned::settled(WORLD), |answer| Versioned(*answer))
    }

    #[inline(always)]
    fn port_table(&self, key: &PolicyKey) -> Versioned {
        // SAFETY: an entry never changes while it is in the map, and is taken out only when no
        // program can be reading it: the agent waits a grace period before it reuses the room.
        let slot = unsafe { POLICY.get(key) };
        slot.and_then(|slot| ANSWERS.get(*slot))
            .map_or(Versioned::settled(NO_TABLE), |answer| Versioned(*answer))
    }

    #[inline(always)]
    fn decision(&self, key: &PortKey) -> Decision {
        match PORTS.get(Key::new(PortKey::PORT_BITS, *key)) {
            Some(decision) => *decision,
            None => Decision::NO_MATCH,
        }
    }
}

impl<A: FamilyMaps> Datapath<A> for Maps {
    #[inline(always)]
    fn flow(&self, key: &FlowKey<A>) -> Option<&Flow> {
        // SAFETY: fields that change stand alone. An element that is taken out and used for another
        // flow meanwhile can miscount one packet; it cannot change this packet's verdict to one
        // that its endpoint's generation does not hold, because generations are per plan.
        unsafe { A::flows().get(key) }
    }

    #[inline(always)]
    fn remember(&self, key: &FlowKey<A>, new: &NewFlow) -> bool {
        let flow = FlowState {
            generation: new.generation,
            rule: new.rule.0,
            reason: new.reason as u8,
            origin: new.origin,
            tcp_flags: [new.tcp_flags, 0],
            closed: 0,
            opened: now(),
            last_seen: Datapath::<A>::jiffies(self),
            packets: [1, 0],
            bytes: [u64::from(new.length), 0],
        };
        // SAFETY: `Flow` is `FlowState` with shared cells: the same bytes, as the contract asserts.
        let flow: Flow = unsafe { core::mem::transmute(flow) };
        A::flows().insert(key, &flow, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey<A>) {
        // An entry that is already gone is as forgotten as can be.
        A::flows().remove(key).unwrap_or(());
    }

    #[inline(always)]
    fn owns(&self, endpoint: Endpoint, address: &A) -> bool {
        let key = OwnAddress {
            endpoint: u32::from(endpoint.id),
            address: address.mapped(),
        };
        ADDRESSES.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn report_flow(&self, kind: EventKind, key: &FlowKey<A>, flow: &Flow) {
        emit(&Event {
            kind: kind as u8,
            reason: flow.reason.get(),
            direction: flow.direction() as u8,
            origin: flow.origin,
            tcp_flags: [flow.tcp_flags[0].get(), flow.tcp_flags[1].get()],
            rule: flow.rule.get(),
            generation: flow.generation.get(),
            opened: flow.opened,
            packets: [flow.packets[0].get(), flow.packets[1].get()],
            bytes: [flow.bytes[0].get(), flow.bytes[1].get()],
            ..self.event(key)
        });
    }

    #[inline(always)]
    fn report_packet(&self, kind: EventKind, key: &FlowKey<A>, sight: &Sight, verdict: Verdict) {
        if matches!(kind, EventKind::Deny) && !first_denial(key, sight, verdict) {
            return;
        }
        let event = self.event(key);
        emit(&Event {
            kind: kind as u8,
            reason: verdict.reason() as u8,
            direction: sight.direction as u8,
            origin: if sight.made_here { Flow::MADE_HERE } else { 0 },
            rule: verdict.rule().0,
            generation: sight.word.generation(),
            opened: event.time,
            packets: [1, 0],
            bytes: [u64::from(sight.length), 0],
            ..event
        });
    }

    #[inline(always)]
    fn count(&self, endpoint: Endpoint, reason: Reason, length: u32) {
        let index = u32::from(endpoint.id) * Reason::SLOTS + reason as u32;
        if let Some(counter) = COUNTERS.get_ptr_mut(index) {
            // SAFETY: each processor has its own; a program is not interrupted by itself.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(length);
            }
        }
    }
}

impl Maps {
    /// An event about `key`, with everything else empty.
    #[inline(always)]
    fn event<A: Address>(&self, key: &FlowKey<A>) -> Event {
        Event {
            kind: 0,
            reason: 0,
            direction: 0,
            protocol: key.protocol,
            family: A::FAMILY,
            origin: 0,
            tcp_flags: [0; 2],
            endpoint: key.endpoint,
            local_port: key.local_port,
            remote_port: key.remote_port,
            zero: 0,
            rule: RuleId::NONE.0,
            generation: 0,
            ifindex: self.ifindex,
            zero2: 0,
            time: now(),
            opened: 0,
            local: key.local.mapped(),
            remote: key.remote.mapped(),
            packets: [0; 2],
            bytes: [0; 2],
        }
    }
}

/// Counts a denied packet with others of its kind; true for the first.
#[inline(always)]
fn first_denial<A: Address>(key: &FlowKey<A>, sight: &Sight, verdict: Verdict) -> bool {
    let kind = DenialKey {
        endpoint: key.endpoint,
        port: match sight.direction {
            Direction::Ingress => key.local_port,
            Direction::Egress => key.remote_port,
        },
        protocol: key.protocol,
        direction: sight.direction as u8,
        reason: verdict.reason() as u8,
        family: A::FAMILY,
        remote: key.remote.mapped(),
    };
    if let Some(counter) = DENIALS.get_ptr_mut(kind) {
        // SAFETY: an integer of the entry, which only such additions change; should the entry be
        // evicted meanwhile, the count goes to the kind that took its room.
        let (packets, bytes) = unsafe {
            (
                &*(&raw const (*counter).packets).cast::<Shared<u64>>(),
                &*(&raw const (*counter).bytes).cast::<Shared<u64>>(),
            )
        };
        packets.add(1);
        bytes.add(u64::from(sight.length));
        return false;
    }
    let counter = Counter {
        packets: 1,
        bytes: u64::from(sight.length),
    };
    // No room even after eviction: report it, more often than needed rather than never.
    DENIALS
        .insert(kind, counter, u64::from(BPF_ANY))
        .unwrap_or(());
    true
}

#[inline(always)]
fn emit(event: &Event) {
    if EVENTS.output::<Event>(event, 0).is_err()
        && let Some(lost) = EVENTS_LOST.get_ptr_mut(0)
    {
        // SAFETY: each processor has its own.
        unsafe { *lost += 1 };
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
