//! The maps, bound to what judging needs.

use agent_common::{
    decide::{Case, Tables, settle},
    denial::{self, Denied},
    event::{DenialKey, Event, EventKind, Loss},
    flow::{Flow, FlowKey, FlowState, Side},
    judge::{Datapath, Place},
    protocol::Address,
    refusal,
    rtt::RoundTrip,
    share::{may_hold_more, slot_of},
    shared::Shared,
    socket_flow::SocketFlow,
    table::{
        Decision, Direction, Endpoint, NO_TABLE, OwnAddress, PolicyKey, PortKey, SocketKey,
        Versioned, WORLD, Word,
    },
    verdict::{Reason, Verdict},
};
use aya_ebpf::{
    bindings::{
        BPF_EXIST, BPF_NOEXIST, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    btf_maps::SkStorage,
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    maps::{HashMap, LpmTrie, lpm_trie::Key},
};

use crate::{
    maps::{
        ADDRESSES, ANSWERS, COUNTERS, DENIALS, DENIED_ONCE, EVENTS, FLOWS_V4, FLOWS_V6, FRAGMENTS,
        HELD, HOSTS_V4, HOSTS_V6, IDENTITIES, IPCACHE_V4, IPCACHE_V6, LOST, OBSERVED_UNTIL, POLICY,
        PORTS, REFUSED, SOCKETS, WORDS,
    },
    socket_flows::{SOCKET_FLOWS_V4, SOCKET_FLOWS_V6},
    sockets::{Nowhere, Sockets},
    verifier::forgotten,
};

/// A slot that no array has.
const NOWHERE: u32 = u32::MAX;

/// The maps of this program, and how it tells sockets apart.
pub(crate) struct Maps<S>(pub(crate) S);

/// What differs between the families: which maps.
pub(crate) trait FamilyMaps: Address {
    type Tuple;
    /// Bytes of a tuple.
    const TUPLE_BYTES: u32;

    fn hosts() -> &'static HashMap<Self, u32>;
    fn ipcache() -> &'static LpmTrie<Self, u32>;
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow>;
    fn socket_flows() -> &'static SkStorage<SocketFlow<Self>>;

    /// See [`Datapath::refused`]. A function of its own, to spare the stack of those that judge; as is the
    /// next.
    fn refused(key: &FlowKey<Self>, seen: u64) -> u64;
    fn keep_refused(key: &FlowKey<Self>, seen: u64, verdict: Verdict);

    /// A flow as the kernel looks for its remote socket.
    fn tuple(key: &FlowKey<Self>) -> Self::Tuple;
}

impl FamilyMaps for [u8; 4] {
    type Tuple = TupleV4;
    const TUPLE_BYTES: u32 = 12;

    #[inline(always)]
    fn hosts() -> &'static HashMap<Self, u32> {
        &HOSTS_V4
    }

    #[inline(always)]
    fn ipcache() -> &'static LpmTrie<Self, u32> {
        &IPCACHE_V4
    }

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow> {
        &FLOWS_V4
    }

    #[inline(always)]
    fn socket_flows() -> &'static SkStorage<SocketFlow<Self>> {
        &SOCKET_FLOWS_V4
    }

    #[inline(never)]
    fn refused(key: &FlowKey<Self>, seen: u64) -> u64 {
        refused::<2>(words_of(key), seen)
    }

    #[inline(never)]
    fn keep_refused(key: &FlowKey<Self>, seen: u64, verdict: Verdict) {
        keep_refused::<2>(words_of(key), seen, verdict);
    }

    #[inline(always)]
    fn tuple(key: &FlowKey<Self>) -> Self::Tuple {
        TupleV4 {
            saddr: u32::from_ne_bytes(key.local),
            daddr: u32::from_ne_bytes(key.remote),
            sport: key.local_port.to_be(),
            dport: key.remote_port.to_be(),
        }
    }
}

impl FamilyMaps for [u8; 16] {
    type Tuple = TupleV6;
    const TUPLE_BYTES: u32 = 36;

    #[inline(always)]
    fn hosts() -> &'static HashMap<Self, u32> {
        &HOSTS_V6
    }

    #[inline(always)]
    fn ipcache() -> &'static LpmTrie<Self, u32> {
        &IPCACHE_V6
    }

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, Flow> {
        &FLOWS_V6
    }

    #[inline(always)]
    fn socket_flows() -> &'static SkStorage<SocketFlow<Self>> {
        &SOCKET_FLOWS_V6
    }

    #[inline(never)]
    fn refused(key: &FlowKey<Self>, seen: u64) -> u64 {
        refused::<5>(words_of(key), seen)
    }

    #[inline(never)]
    fn keep_refused(key: &FlowKey<Self>, seen: u64, verdict: Verdict) {
        keep_refused::<5>(words_of(key), seen, verdict);
    }

    #[inline(always)]
    fn tuple(key: &FlowKey<Self>) -> Self::Tuple {
        TupleV6 {
            saddr: words(key.local),
            daddr: words(key.remote),
            sport: key.local_port.to_be(),
            dport: key.remote_port.to_be(),
        }
    }
}

/// An address as the kernel has it: in network byte order, word by word.
#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    // SAFETY: as many bytes, valid as words.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(address) }
}

/// The endpoint's word; `None` only if its number is beyond the table, and so beyond the counters.
#[inline(always)]
pub(crate) fn word(endpoint: Endpoint) -> Option<Word> {
    WORDS.get(u32::from(endpoint.id)).map(|word| Word(*word))
}

/// An endpoint as it is now: one that was to be observed until a moment that has come is not any more.
#[inline(always)]
pub(crate) fn by_now(endpoint: Endpoint) -> Endpoint {
    if !endpoint.has(Endpoint::OBSERVED) {
        return endpoint;
    }
    let until = OBSERVED_UNTIL.get(u32::from(endpoint.id));
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    endpoint.by(now, until.map_or(0, |until| *until))
}

impl<A: FamilyMaps, S: Sockets> Tables<A> for Maps<S> {
    #[inline(always)]
    fn identity(&self, address: &A) -> Versioned {
        // SAFETY: as for `POLICY`.
        let slot = match unsafe { A::hosts().get(address) } {
            Some(slot) => *slot,
            None => match A::ipcache().get(Key::new(A::BITS, *address)) {
                Some(slot) => *slot,
                None => NOWHERE,
            },
        };
        #[expect(clippy::cast_possible_truncation, reason = "32 bits went in")]
        let slot = opaque(u64::from(slot)) as u32;
        answer(IDENTITIES.get(slot), WORLD)
    }

    #[inline(always)]
    fn socket(&self, key: &SocketKey) -> Versioned {
        // SAFETY: as for `POLICY`.
        let slot = unsafe { SOCKETS.get(key) };
        answer(slot.and_then(|slot| IDENTITIES.get(*slot)), key.identity)
    }

    #[inline(always)]
    fn port_table(&self, key: &PolicyKey) -> Versioned {
        // SAFETY: an entry never changes while it is in the map, and is taken out only when no
        // program can be reading it: the agent waits a grace period before it reuses the room.
        let slot = unsafe { POLICY.get(key) };
        answer(slot.and_then(|slot| ANSWERS.get(*slot)), NO_TABLE)
    }

    #[inline(always)]
    fn decision(&self, key: &PortKey) -> Decision {
        match PORTS.get(Key::new(PortKey::PORT_BITS, *key)) {
            Some(decision) => *decision,
            None => Decision::NO_MATCH,
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn settle(&self, case: &Case) -> Verdict {
        let [word, peer, rest] = case.to_words();
        Verdict::from_bits(settle_case(word, peer, rest))
    }
}

/// Policy's answer, for both families and wherever it is asked. Linux verifies a function that others can
/// see by itself, for any numbers, and once: by this one alone it walks through a quarter less.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle_case(word: u64, peer: u64, rest: u64) -> u64 {
    let case = Case::from_words([word, peer, rest]);
    settle::<[u8; 4]>(&Maps(Nowhere), &case).to_bits()
}

impl<A: FamilyMaps, S: Sockets> Datapath<A> for Maps<S> {
    const MAY_BE_PROMPTED: bool = S::MAY_BE_PROMPTED;
    const MEASURES: bool = S::OWN;

    #[inline(always)]
    fn flow(&self, key: &FlowKey<A>) -> Option<&Flow> {
        // SAFETY: fields that change stand alone. The agent takes out idle flows only, but the element
        // may then be used for another flow while a packet of the old one is being judged: that
        // packet is miscounted, and passes as the other flow does if its own needed a new look.
        unsafe { A::flows().get(key) }
    }

    #[inline(always)]
    fn remember(&self, key: &FlowKey<A>, flow: &FlowState, place: Place) -> bool {
        // SAFETY: `Flow` is `FlowState` with shared cells: the same bytes, as the contract asserts.
        let flow = unsafe { &*(&raw const *flow).cast::<Flow>() };
        let is_kept = match place {
            Place::New => remember_new(key, flow),
            Place::Held => A::flows().insert(key, flow, u64::from(BPF_EXIST)).is_ok(),
        };
        if !is_kept {
            lose(Loss::Flow);
        }
        is_kept
    }

    #[inline(always)]
    fn socket_of_peer(&self, key: &FlowKey<A>, direction: Direction) -> u32 {
        let Self(sockets) = self;
        sockets.of_peer(key, direction)
    }

    #[inline(always)]
    fn note_at_socket(&self, key: &FlowKey<A>, flow: &Flow) {
        let Self(sockets) = self;
        sockets.note(key, flow);
    }

    #[inline(always)]
    fn tell_from_socket(&self, key: &FlowKey<A>, flow: &Flow) {
        let Self(sockets) = self;
        if let Some(noted) = sockets.noted::<A>()
            && noted.key().is_same(key)
        {
            noted.rest();
            noted.tell(flow);
        }
    }

    #[inline(always)]
    fn owns(&self, endpoint: Endpoint, address: &A) -> bool {
        owns(endpoint.id, address)
    }

    #[inline(always)]
    fn first(&self, slot: u32) -> u64 {
        FRAGMENTS.get(slot).map_or(0, |memory| shared(memory).get())
    }

    #[inline(always)]
    fn keep_first(&self, slot: u32, memory: u64) {
        if let Some(kept) = FRAGMENTS.get(slot) {
            shared(kept).set(memory);
        }
    }

    #[inline(always)]
    fn refused(&self, key: &FlowKey<A>, seen: u64) -> u64 {
        if S::REFUSALS {
            A::refused(key, seen)
        } else {
            0
        }
    }

    #[inline(always)]
    fn keep_refused(&self, key: &FlowKey<A>, seen: u64, verdict: Verdict) {
        if S::REFUSALS {
            A::keep_refused(key, seen, verdict);
        }
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn is_to_measure(&self, flow: &Flow, side: Side, jiffies: u64) -> bool {
        let Self(sockets) = self;
        sockets.is_to_measure(flow, side, jiffies)
    }

    #[inline(always)]
    fn round_trip(&self) -> RoundTrip {
        let Self(sockets) = self;
        sockets.round_trip()
    }

    #[inline(always)]
    fn is_rejection(&self) -> bool {
        let Self(sockets) = self;
        sockets.is_rejection()
    }

    #[inline(always)]
    fn report(&self, fill: impl FnOnce(&mut Event)) {
        if let Some(mut room) = EVENTS.reserve::<Event>(0) {
            // SAFETY: memory of the map's, valid for any bytes as every layout of the contract is.
            let event = unsafe { room.assume_init_mut() };
            fill(event);
            if EventKind::names_process(event.kind) {
                // SAFETY: memory of the socket's, which lives while the program runs.
                if let Some(process) = unsafe { self.0.process().as_ref() } {
                    event.process = *process;
                }
            }
            room.submit(0);
        } else {
            lose(Loss::Event);
        }
    }

    #[inline(always)]
    fn report_process(&self, fill: impl FnOnce(&mut Event)) {
        // SAFETY: as above.
        let Some(process) = (unsafe { self.0.process().as_ref() }) else {
            return;
        };
        if let Some(mut room) = EVENTS.reserve::<Event>(0) {
            // SAFETY: as above.
            let event = unsafe { room.assume_init_mut() };
            fill(event);
            event.process = *process;
            room.submit(0);
        } else {
            lose(Loss::Event);
        }
    }

    #[inline(always)]
    fn deny(&self, kind: &DenialKey, length: u32) -> bool {
        if count_denied(kind, length) {
            return false;
        }
        let number = denial::number(kind);
        let Some(once) = DENIED_ONCE.get(denial::place(number)).map(shared) else {
            return true;
        };
        if once.get() != number {
            once.set(number);
            return true;
        }
        // Another processor may have been first. No room even after eviction: it is told by itself.
        #[expect(
            clippy::needless_borrows_for_generic_args,
            reason = "a value would be on the stack"
        )]
        let _made = DENIALS.insert(kind, &NOTHING_DENIED, u64::from(BPF_NOEXIST));
        !count_denied(kind, length)
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

    #[inline(always)]
    fn opaque(&self, number: u64) -> u64 {
        opaque(number)
    }
}

/// What an entry is made of: from here, as the stack has no room for it.
static NOTHING_DENIED: Denied = Denied {
    packets: 0,
    bytes: 0,
    since: 0,
};

/// Whether packets of this kind are counted; this one is then too.
#[inline(always)]
fn count_denied(kind: &DenialKey, length: u32) -> bool {
    let Some(denied) = DENIALS.get_ptr_mut(kind) else {
        return false;
    };
    // SAFETY: integers of the entry, which stand alone and only such stores and additions change; should the
    // entry be evicted meanwhile, the count goes to the kind that took its room.
    let (packets, bytes, since) = unsafe {
        (
            &*(&raw const (*denied).packets).cast::<Shared<u64>>(),
            &*(&raw const (*denied).bytes).cast::<Shared<u64>>(),
            &*(&raw const (*denied).since).cast::<Shared<u64>>(),
        )
    };
    // Before anything is counted: with another time it is another entry to who sums up.
    if since.get() == 0 {
        // SAFETY: a helper without arguments.
        since.set(unsafe { bpf_ktime_get_boot_ns() });
    }
    packets.add(1);
    bytes.add(u64::from(length));
    true
}

/// A function of its own, to spare the stack of those that judge.
#[inline(never)]
pub(crate) fn owns<A: Address>(endpoint: u16, address: &A) -> bool {
    let key = OwnAddress {
        endpoint: u32::from(endpoint),
        address: address.mapped(),
    };
    ADDRESSES.get_ptr(key).is_some()
}

/// A key word by word: the kernel's hash reads it so as well.
#[inline(always)]
fn words_of<A: Address, const WORDS: usize>(key: &FlowKey<A>) -> &[u64; WORDS] {
    const { assert!(size_of::<FlowKey<A>>() == size_of::<[u64; WORDS]>()) };
    // SAFETY: as many bytes without gaps, aligned to a word.
    unsafe { &*(&raw const *key).cast::<[u64; WORDS]>() }
}

#[inline(always)]
fn refused<const WORDS: usize>(key: &[u64; WORDS], seen: u64) -> u64 {
    let mixed = refusal::mixed(key, seen);
    match REFUSED.get(refusal::place(mixed)) {
        Some(refusal) => refusal.of(key, seen, mixed),
        None => 0,
    }
}

#[inline(always)]
fn keep_refused<const WORDS: usize>(key: &[u64; WORDS], seen: u64, verdict: Verdict) {
    let mixed = refusal::mixed(key, seen);
    if let Some(refusal) = REFUSED.get_ptr_mut(refusal::place(mixed)) {
        // SAFETY: each processor has its own; what an interruption makes of it is found by its check.
        unsafe { &mut *refusal }.keep(key, seen, mixed, verdict);
    }
}

/// Remembers a flow unless its endpoint holds what it may.
#[inline(always)]
fn remember_new<A: FamilyMaps>(key: &FlowKey<A>, flow: &Flow) -> bool {
    let (Some(held), Some(free)) = (held::<A>(key.endpoint), held::<A>(Endpoint::NOBODY.id)) else {
        return false;
    };
    if !may_hold_more(held.get(), free.get()) {
        return false;
    }
    if A::flows().insert(key, flow, u64::from(BPF_NOEXIST)).is_ok() {
        held.add(1);
        free.add(u64::MAX);
        return true;
    }
    // Another processor was first with a packet of this flow, or there is no room after all.
    A::flows().insert(key, flow, u64::from(BPF_EXIST)).is_ok()
}

#[inline(always)]
fn held<A: Address>(endpoint: u16) -> Option<&'static Shared<u64>> {
    HELD.get(slot_of::<A>(endpoint)).map(shared)
}

/// A word of an array, which others change at any time.
#[inline(always)]
fn shared(word: &'static u64) -> &'static Shared<u64> {
    // SAFETY: the same bytes; it lives as long as the map, and nobody uses it but at once.
    unsafe { &*(&raw const *word).cast::<Shared<u64>>() }
}

#[inline(always)]
pub(crate) fn lose(loss: Loss) {
    if let Some(lost) = LOST.get_ptr_mut(loss as u32) {
        // SAFETY: each processor has its own.
        unsafe { *lost += 1 };
    }
}

/// The same truth, of which the verifier follows one way only.
#[inline(always)]
pub(crate) fn indistinct(truth: bool) -> bool {
    opaque(u64::from(truth)) != 0
}

/// What a slot holds, or what is so without a slot; the verifier need not tell which it was.
#[inline(always)]
fn answer(held: Option<&u64>, without: u32) -> Versioned {
    let Versioned(word) = held.map_or(Versioned::settled(without), |word| Versioned(*word));
    Versioned(opaque(word))
}

#[inline(always)]
pub(crate) fn opaque(number: u64) -> u64 {
    // SAFETY: a helper without arguments.
    forgotten(number, unsafe { bpf_jiffies64() })
}
