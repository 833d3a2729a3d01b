//! Packets in pieces. Only the first has ports; the others go where it went.
//!
//! What the first said is remembered, and a later one is judged as a packet with these ports: by its own
//! addresses, and by the policy of now. So whatever is remembered wrongly, or is old, or has the number of
//! another packet, opens nothing that a whole packet could not have had. A piece that reaches into the
//! first is dropped, whose ports and flags it might replace (RFC 1858, RFC 5722).
//!
//! Each endpoint has places of its own, and a packet's number leads to one of them: a newer packet takes the
//! place of an older one, and nobody takes another endpoint's. A place is one word, which is read
//! and written at once.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    flow::tcp,
    judge::{Datapath, Sight},
    parse::{Class, Extent, Family, Headers, Packet},
    protocol::Address,
};

/// Packets in pieces that an endpoint can have on their way.
pub const PLACES: u32 = 64;

/// Bytes that positions are counted in.
const UNIT: usize = 8;

/// What a fragment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of the packet that it is of.
    pub number: u32,
    /// In units of 8 bytes, as [`Piece::end`].
    pub start: u16,
    /// The first unit that is not its own.
    pub end: u16,
}

/// What is remembered of a first fragment; 0 is nothing, as no first fragment is empty.
#[derive(Clone, Copy)]
struct Memory(u64);

/// Where a packet's first fragment is remembered, and by what it is known there.
#[derive(Clone, Copy)]
struct Place {
    slot: u32,
    tag: u64,
}

/// Remembers the first fragment of a packet, which passes.
///
/// Reads it once more: what is wanted in memory here, hooks would else have no registers for.
#[inline(never)]
pub fn remember<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    network: usize,
    sight: &Sight,
) {
    let mut headers = Headers::<A>::EMPTY;
    if A::whole(packet, network, &mut headers, Extent::Whole).is_err() {
        return;
    }
    let Some(piece) = A::piece(packet, network, usize::from(headers.further)) else {
        return;
    };
    let place = Place::of(piece, &headers, sight);
    datapath.keep_first(place.slot, Memory::new(&headers, piece, place.tag).0);
}

/// Completes the headers of a later fragment by what the first one said; false if that is unknown, or the
/// two overlap.
#[inline(never)]
pub fn follow<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    network: usize,
    headers: &mut Headers<A>,
    sight: &Sight,
) -> bool {
    let Some(piece) = A::piece(packet, network, usize::from(headers.further)) else {
        return false;
    };
    let place = Place::of(piece, headers, sight);
    let first = Memory(datapath.first(place.slot));
    if first.0 == 0 || first.tag() != place.tag || piece.start < first.end() {
        return false;
    }
    first.fill(headers);
    true
}

/// A fragment by its IPv4 header.
#[inline(always)]
pub(crate) fn ipv4(packet: &impl Packet, at: usize) -> Option<Piece> {
    let header: Ipv4Hdr = packet.load(at)?;
    let length = usize::from(u16::from_be_bytes(header.tot_len));
    let own = length.checked_sub(usize::from(header.vihl & 0x0f) * 4)?;
    Some(Piece::new(
        u32::from(u16::from_be_bytes(header.id)),
        u16::from_be_bytes(header.frags) & 0x1fff,
        own,
    ))
}

/// A fragment by its IPv6 fragment header (RFC 8200, 4.5) at `at`.
#[inline(always)]
pub(crate) fn ipv6(packet: &impl Packet, network: usize, at: usize) -> Option<Piece> {
    const POSITION: usize = 2;
    const NUMBER: usize = 4;
    const LENGTH: usize = 8;
    let payload: [u8; 2] = packet.load(network + offset_of!(Ipv6Hdr, payload_len))?;
    let position: [u8; 2] = packet.load(at + POSITION)?;
    let number: [u8; 4] = packet.load(at + NUMBER)?;
    let end = network + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(payload));
    let own = end.checked_sub(at + LENGTH)?;
    let number = u32::from_be_bytes(number);
    Some(Piece::new(number, u16::from_be_bytes(position) >> 3, own))
}

// === impl Piece ===

impl Piece {
    /// `own` is how many bytes it has of the packet.
    #[inline(always)]
    fn new(number: u32, start: u16, own: usize) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a packet has at most 64 KiB"
        )]
        let units = own.div_ceil(UNIT) as u16;
        Self {
            number,
            start,
            end: start.saturating_add(units),
        }
    }
}

// === impl Place ===

impl Place {
    #[inline(always)]
    fn of<A: Address>(piece: Piece, headers: &Headers<A>, sight: &Sight) -> Self {
        let mut mixed = u64::from(piece.number) | (sight.direction as u64) << 32;
        for word in [
            u128::from_ne_bytes(headers.source.mapped()),
            u128::from_ne_bytes(headers.destination.mapped()),
        ] {
            mixed = mix(mixed ^ low(word));
            mixed = mix(mixed ^ low(word >> 64));
        }
        let own = (mixed >> 32) % u64::from(PLACES);
        Self {
            slot: u32::from(sight.endpoint.id) * PLACES + low_half(own),
            tag: mixed >> (64 - Memory::TAG_BITS),
        }
    }
}

/// A step of Fibonacci hashing: the upper bits depend on all of the word.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    (word ^ word >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
#[inline(always)]
const fn low(word: u128) -> u64 {
    word as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
#[inline(always)]
const fn low_half(word: u64) -> u32 {
    word as u32
}

// === impl Memory ===

impl Memory {
    const DESTINATION: u32 = 16;
    const PROTOCOL: u32 = 32;
    const END: u32 = 40;
    const END_BITS: u32 = 13;
    const REPLY: u32 = Self::END + Self::END_BITS;
    const TAG: u32 = Self::REPLY + 1;
    const TAG_BITS: u32 = 64 - Self::TAG;

    #[inline(always)]
    fn new<A>(headers: &Headers<A>, piece: Piece, tag: u64) -> Self {
        let last = (1 << Self::END_BITS) - 1;
        let is_reply = matches!(headers.class, Class::Reply);
        Self(
            u64::from(headers.source_port)
                | u64::from(headers.destination_port) << Self::DESTINATION
                | u64::from(headers.protocol) << Self::PROTOCOL
                | u64::from(piece.end).min(last) << Self::END
                | u64::from(is_reply) << Self::REPLY
                | tag << Self::TAG,
        )
    }

    #[inline(always)]
    fn tag(self) -> u64 {
        self.0 >> Self::TAG
    }

    #[inline(always)]
    fn end(self) -> u16 {
        let [low, high, ..] = (self.0 >> Self::END).to_le_bytes();
        u16::from_le_bytes([low, high]) & ((1 << Self::END_BITS) - 1)
    }

    #[inline(always)]
    fn fill<A>(self, headers: &mut Headers<A>) {
        let [a, b, c, d, protocol, ..] = self.0.to_le_bytes();
        headers.source_port = u16::from_le_bytes([a, b]);
        headers.destination_port = u16::from_le_bytes([c, d]);
        headers.protocol = protocol;
        // It neither starts nor ends a connection.
        headers.tcp_flags = tcp::ACK;
        headers.class = if self.0 >> Self::REPLY & 1 == 0 {
            Class::Ordinary
        } else {
            Class::Reply
        };
        headers.further = 0;
    }
}
