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
    datapath::{Maps, indistinct, word},
    family::judge_family,
    maps::{CLOCK, INTERFACES, LEADS},
    packet::Buffer,
    rejection::tell,
    sockets::{Nowhere, Untold},
};

#[expect(clippy::cast_possible_truncation, reason = "14 bytes")]
pub(super) const ETHERNET: u32 = EthHdr::LEN as u32;

/// Types of frames that pass beside IP and ARP, set by the agent when it loads the programs; 0 is none.
#[unsafe(no_mangle)]
static FRAMES: [u16; FRAME_TYPES] = [0; FRAME_TYPES];

/// What the endpoint sends arrives here.
#[classifier]
pub(crate) fn from_endpoint(context: TcContext) -> i32 {
    act::<true>(context.skb.skb)
}

/// What goes to the endpoint leaves here.
#[classifier]
pub(crate) fn to_endpoint(context: TcContext) -> i32 {
    act::<false>(context.skb.skb)
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

#[inline(always)]
fn act<const SENT: bool>(context: *mut __sk_buff) -> i32 {
    let direction = if SENT {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    // SAFETY: the kernel passes a valid context to the program.
    let (ifindex, ingress_ifindex, length) = unsafe {
        (
            (*context).ifindex,
            (*context).ingress_ifindex,
            (*context).len,
        )
    };
    let endpoint = endpoint(ifindex);
    let sight = Sight {
        endpoint,
        word: word(endpoint).unwrap_or(Word::UNSET),
        direction,
        length: length.saturating_sub(ETHERNET),
        made_here: indistinct(ingress_ifindex == 0),
        ifindex,
    };
    let maps = Maps(Untold::<SENT>(Buffer::new(context)));
    let Maps(Untold(packet)) = &maps;
    let verdict = match network(packet) {
        _ if endpoint.id == Endpoint::NOBODY.id => unjudged(&sight, Reason::NotProgrammed),
        Network::V4 => judge_family::<[u8; 4], _>(&maps, packet, EthHdr::LEN, &sight),
        Network::V6 => judge_family::<[u8; 16], _>(&maps, packet, EthHdr::LEN, &sight),
        Network::Arp => neighbour::arp(&maps, packet, &sight),
        Network::Other if is_named(packet) => unjudged(&sight, Reason::AllowedFrame),
        Network::Other => unjudged(&sight, Reason::NotIp),
        Network::Short => unjudged(&sight, Reason::Malformed),
    };
    if verdict.allows() {
        // Unspecified: programs behind this one still run.
        return TC_ACT_UNSPEC;
    }
    #[cfg(feature = "trace")]
    aya_log_ebpf::debug!(
        TcContext::new(context),
        "endpoint {} direction {} dropped: {}",
        endpoint.id,
        direction as u8,
        verdict.reason().name()
    );
    // As the verifier need not tell why.
    let parts = indistinct(verdict.parts());
    if !indistinct(verdict.rejects()) {
        return TC_ACT_SHOT;
    }
    let toward = if parts {
        Toward::Receiver
    } else {
        Toward::Sender
    };
    tell(context, &sight, toward)
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
        Some(endpoint) => *endpoint,
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
