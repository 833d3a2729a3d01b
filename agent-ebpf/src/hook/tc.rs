//! The host side of an endpoint's interface, both directions.

use agent_common::{
    judge::{Sight, unreadable},
    neighbour,
    parse::{FRAME_TYPES, Network, frame_type, network},
    rejection::Toward,
    table::{Direction, Endpoint, Lead, Word},
    verdict::{Reason, Verdict},
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_jiffies64,
    macros::classifier,
    programs::TcContext,
};
use network_types::eth::EthHdr;

use crate::{
    datapath::{Maps, by_now, indistinct, word},
    family::{Hook, Judges, Outcome, Seen, judges},
    maps::{CLOCK, INTERFACES, LEADS},
    packet::Buffer,
    rejection::tell,
    sockets::{Nowhere, Untold},
};

/// Types of frames that pass beside IP and ARP, set by the agent when it loads the programs; 0 is none.
#[unsafe(no_mangle)]
static FRAMES: [u16; FRAME_TYPES] = [0; FRAME_TYPES];

/// What the endpoint sends arrives here.
#[classifier]
pub(crate) fn from_endpoint(context: TcContext) -> i32 {
    act::<Sent>(context.skb.skb)
}

/// What goes to the endpoint leaves here.
#[classifier]
pub(crate) fn to_endpoint(context: TcContext) -> i32 {
    act::<Received>(context.skb.skb)
}

/// Costs what a hook costs at the least: the yardstick of the benchmark.
#[classifier]
pub(crate) fn null(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Run by the agent, never attached.
#[classifier]
pub(crate) fn clock(_: TcContext) -> i32 {
    if let Some(jiffies) = CLOCK.get_ptr_mut(0) {
        // SAFETY: only this program writes, and one agent runs it.
        unsafe { *jiffies = bpf_jiffies64() };
    }
    TC_ACT_UNSPEC
}

/// Of what an endpoint sends.
struct Sent;

/// Of what it is sent.
struct Received;

impl Hook for Sent {
    type Sockets = Untold<true>;
    const DIRECTION: Direction = Direction::Egress;
    const OFFSET: usize = EthHdr::LEN;

    #[inline(always)]
    fn sockets(context: *mut __sk_buff) -> Self::Sockets {
        Untold(context)
    }
}

impl Hook for Received {
    type Sockets = Untold<false>;
    const DIRECTION: Direction = Direction::Ingress;
    const OFFSET: usize = EthHdr::LEN;

    #[inline(always)]
    fn sockets(context: *mut __sk_buff) -> Self::Sockets {
        Untold(context)
    }
}

judges! {
    Sent:
        [sent_plain_v4 = plain, sent_whole_v4 = whole],
        [sent_plain_v6 = plain, sent_whole_v6 = whole];
    Received:
        [received_plain_v4 = plain, received_whole_v4 = whole],
        [received_plain_v6 = plain, received_whole_v6 = whole];
}

#[inline(always)]
fn act<H: Judges>(context: *mut __sk_buff) -> i32 {
    // SAFETY: the kernel passes a valid context to the program.
    let (ifindex, ingress_ifindex) = unsafe { ((*context).ifindex, (*context).ingress_ifindex) };
    let endpoint = endpoint(ifindex);
    let seen = Seen {
        endpoint,
        word: word(endpoint).unwrap_or(Word::UNSET),
        made_here: indistinct(ingress_ifindex == 0),
    };
    let outcome = match network(&Buffer::new(context)) {
        _ if endpoint.id == Endpoint::NOBODY.id => {
            beside::<H>(context, seen, Reason::NotProgrammed)
        }
        _ if is_of_vlan(context) => beside::<H>(context, seen, Reason::NotIp),
        Network::V4 => H::v4(context, seen),
        Network::V6 => H::v6(context, seen),
        Network::Arp => arp::<H>(context, seen),
        Network::Other if is_named(&Buffer::new(context)) => {
            beside::<H>(context, seen, Reason::AllowedFrame)
        }
        Network::Other => beside::<H>(context, seen, Reason::NotIp),
        Network::Short => beside::<H>(context, seen, Reason::Malformed),
    };
    if outcome.allows() {
        // Unspecified: programs behind this one still run.
        return TC_ACT_UNSPEC;
    }
    #[cfg(feature = "trace")]
    aya_log_ebpf::debug!(
        TcContext::new(context),
        "endpoint {} direction {} dropped: reason {}",
        endpoint.id,
        H::DIRECTION as u8,
        outcome.reason()
    );
    if !outcome.rejects() {
        return TC_ACT_SHOT;
    }
    let toward = if outcome.parts() {
        Toward::Receiver
    } else {
        Toward::Sender
    };
    tell(context, endpoint, H::DIRECTION, toward)
}

#[inline(always)]
fn arp<H: Hook>(context: *mut __sk_buff, seen: Seen) -> Outcome {
    let maps = Maps(H::sockets(context));
    let sight = seen.sight::<H>(context);
    Outcome::of(neighbour::arp(&maps, &Buffer::new(context), &sight))
}

#[inline(always)]
fn beside<H: Hook>(context: *mut __sk_buff, seen: Seen, reason: Reason) -> Outcome {
    Outcome::of(unjudged(&seen.sight::<H>(context), reason))
}

/// Whether the kernel has taken a VLAN's tag off the frame, as it does before any hook sees it: what the frame
/// carries is for another network than policy is about. Of VLAN 0 is what has a priority and no network.
#[inline(always)]
fn is_of_vlan(context: *mut __sk_buff) -> bool {
    const VLAN: u32 = 0xfff;
    // SAFETY: the kernel passes a valid context to the program. Older kernels leave the tag of before where
    // there is none any more.
    unsafe { (*context).vlan_present != 0 && (*context).vlan_tci & VLAN != 0 }
}

/// Whom an interface leads to.
#[inline(always)]
fn endpoint(ifindex: u32) -> Endpoint {
    let lead = LEADS.get(Lead::slot(ifindex));
    let lead = lead.map_or(Lead::NONE, |lead| Lead(*lead));
    if lead.interface() == ifindex {
        return lead.endpoint();
    }
    // SAFETY: entries are only read; one that is being replaced leads to the same endpoint.
    match unsafe { INTERFACES.get(ifindex) } {
        // One that is observed is nowhere else.
        Some(endpoint) => by_now(*endpoint),
        // The agent registers an interface before it attaches: this one was taken from us.
        None => Endpoint::NOBODY,
    }
}

/// Whether the settings name frames of this type.
#[inline(never)]
pub(super) fn is_named(packet: &Buffer) -> bool {
    let kind = frame_type(packet);
    let frames = (&raw const FRAMES).cast::<u16>();
    // SAFETY: of our own, and within it; volatile, because the agent changes it before the load.
    let is_it = |at| unsafe { frames.add(at).read_volatile() } == kind;
    kind != 0 && (0..FRAME_TYPES).any(is_it)
}

/// Frames that are not judged by policy.
#[inline(always)]
pub(super) fn unjudged(sight: &Sight, reason: Reason) -> Verdict {
    unreadable::<[u8; 4], _>(&Maps(Nowhere), sight, reason)
}
