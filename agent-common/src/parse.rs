//! From bytes to headers: what policy and the flow table need to know of a packet.
//!
//! One parser for both homes. In the kernel [`Packet`] is a socket buffer, on the host a slice, so
//! that the tests and the fuzzer attack the code that ships.
//!
//! Two readings of one format: [`Family::plain`] knows the form that nearly all packets have and is
//! made to be short; [`Family::whole`] knows all of it, and is a function of its own so that the
//! verifier walks through it once and the common path stays small. Both agree where both answer.
//!
//! Fail closed: whatever is not understood comes back as a [`Reason`] to drop it.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    sctp::SctpHdr,
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    flow::tcp,
    fragment::{self, Piece},
    neighbour,
    protocol::{self, Address},
    verdict::Reason,
};

/// The bytes of a packet.
pub trait Packet {
    /// A header at `offset` bytes, or `None` if the packet ends before it does.
    ///
    /// `T` is a header of `network_types`: `repr(C)`, alignment at most 4, every bit pattern valid.
    fn load<T: Header>(&self, offset: usize) -> Option<T>;

    /// As [`Packet::load`], where that is quick; `None` also if it is not.
    #[inline(always)]
    fn peek<T: Header>(&self, offset: usize) -> Option<T> {
        self.load(offset)
    }

    /// As [`Packet::load`], into its place; false if the packet ends before it does.
    #[inline(always)]
    fn fill<T: Header>(&self, offset: usize, place: &mut T) -> bool {
        let Some(value) = self.load(offset) else {
            return false;
        };
        *place = value;
        true
    }
}

/// # Safety
///
/// Valid for any bytes, and no more strictly aligned than 4.
pub unsafe trait Header: Copy {}

// SAFETY: integers, or `repr(C)` structs of integers and arrays of bytes.
unsafe impl Header for u8 {}
// SAFETY: as above.
unsafe impl Header for [u8; 2] {}
// SAFETY: as above.
unsafe impl Header for [u8; 4] {}
// SAFETY: as above.
unsafe impl Header for [u8; 6] {}
// SAFETY: as above.
unsafe impl Header for [u8; 16] {}
// SAFETY: as above.
unsafe impl Header for neighbour::Arp {}
// SAFETY: as above.
unsafe impl Header for Ipv4Hdr {}
// SAFETY: as above.
unsafe impl Header for Ipv6Hdr {}
// SAFETY: as above.
unsafe impl Header for Ports {}
// SAFETY: as above.
unsafe impl Header for IcmpStart {}
// SAFETY: as above.
unsafe impl Header for ExtensionStart {}

/// What is known of a packet. Starts out empty, so that every field has a value on every path.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<A> {
    pub source: A,
    pub destination: A,
    /// See [`crate::flow::FlowKey`] for ICMP.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub class: Class,
    /// Where to read on: at the packet that an ICMP error speaks about; at a neighbour message; of a
    /// fragment, at the header that says so. Else 0.
    pub further: u16,
}

/// What a packet can be, by its headers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// May start a flow, and may belong to one.
    Ordinary = 0,
    /// Only ever an answer.
    Reply = 1,
    /// Speaks about another packet.
    Error = 2,
    /// Neighbour or router solicitation, neighbour advertisement, multicast listener messages.
    Neighbour = 3,
    /// Router advertisement or redirect.
    Router = 4,
}

/// The layer that an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    V4,
    V6,
    Arp,
    Other,
    Short,
}

/// How many types of frames the settings can name, to pass beside IP and ARP.
pub const FRAME_TYPES: usize = 16;

/// IPv6 extension headers that are walked; more is an attack or an experiment.
const MAX_EXTENSIONS: usize = 4;

/// Where data offset and flags are: the two bytes before the window.
const TCP_FLAGS: usize = offset_of!(TcpHdr, window) - 2;

#[repr(C)]
#[derive(Clone, Copy)]
struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct IcmpStart {
    kind: u8,
    code: u8,
    check: [u8; 2],
    id: [u8; 2],
    sequence: [u8; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ExtensionStart {
    next: u8,
    length: u8,
}

/// Whether a transport header is read in full, or only what an ICMP error must quote of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// At least 8 bytes (RFC 792): the ports, not the TCP flags.
    Quoted,
}

// === impl Headers ===

impl<A: Address> Headers<A> {
    pub const EMPTY: Self = Self {
        source: A::UNSPECIFIED,
        destination: A::UNSPECIFIED,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        tcp_flags: 0,
        class: Class::Ordinary,
        further: 0,
    };

    /// The first of several fragments, which the others will follow.
    #[inline(always)]
    pub fn begins_pieces(&self) -> bool {
        self.further != 0 && matches!(self.class, Class::Ordinary | Class::Reply)
    }
}

/// What an Ethernet frame carries.
#[inline(always)]
pub fn network(packet: &impl Packet) -> Network {
    const IPV4: u16 = EtherType::Ipv4 as u16;
    const IPV6: u16 = EtherType::Ipv6 as u16;
    const ARP: u16 = EtherType::Arp as u16;
    const AT: usize = offset_of!(EthHdr, ether_type);
    let Some(raw) = packet.peek(AT).or_else(|| packet.load(AT)) else {
        return Network::Short;
    };
    // network_types gives these numbers as they lie in memory.
    match u16::from_ne_bytes(raw) {
        IPV4 => Network::V4,
        IPV6 => Network::V6,
        ARP => Network::Arp,
        _ => Network::Other,
    }
}

/// Its type as a number; 0, which is none, if it has no header.
#[inline(always)]
pub fn frame_type(packet: &impl Packet) -> u16 {
    let raw = packet.load::<[u8; 2]>(offset_of!(EthHdr, ether_type));
    raw.map_or(0, u16::from_be_bytes)
}

/// A family whose packets can be parsed.
pub trait Family: Address + Header {
    /// Reads a TCP, UDP or SCTP packet without options or extension headers, all within reach.
    ///
    /// False for every other packet; `headers` is then of no use.
    fn plain(packet: &impl Packet, offset: usize, headers: &mut Headers<Self>) -> bool;

    /// Bytes of the network header of such a packet.
    const PLAIN: usize;

    /// Reads any packet.
    ///
    /// # Errors
    ///
    /// The reason to drop it; of `headers`, only the addresses are then of use, where the packet is
    /// long enough to have some. [`Reason::Fragment`] of a later fragment: `further` is too.
    fn whole(
        packet: &impl Packet,
        offset: usize,
        headers: &mut Headers<Self>,
        extent: Extent,
    ) -> Result<(), Reason>;

    /// What a fragment says of itself: `network` is where its network header begins, `further` is of its
    /// [`Headers`]. `None` if it contradicts itself.
    fn piece(packet: &impl Packet, network: usize, further: usize) -> Option<Piece>;
}

/// Reads the packet whose network header begins at `offset`.
///
/// # Errors
///
/// As [`Family::whole`].
#[inline(always)]
pub fn parse<A: Family>(
    packet: &impl Packet,
    offset: usize,
    headers: &mut Headers<A>,
) -> Result<(), Reason> {
    if A::plain(packet, offset, headers) {
        return Ok(());
    }
    // A copy: what a function is given the address of cannot stay in registers.
    let mut read = Headers::EMPTY;
    let result = A::whole(packet, offset, &mut read, Extent::Whole);
    *headers = read;
    result
}

impl Family for [u8; 4] {
    const PLAIN: usize = Ipv4Hdr::LEN;

    #[inline(always)]
    fn plain(packet: &impl Packet, offset: usize, headers: &mut Headers<Self>) -> bool {
        const VERSION_AND_LENGTH: u8 = 4 << 4 | 5;
        let Some(header) = packet.peek::<Ipv4Hdr>(offset) else {
            return false;
        };
        if header.vihl != VERSION_AND_LENGTH || is_fragment(header.frags) {
            return false;
        }
        headers.source = header.src_addr;
        headers.destination = header.dst_addr;
        headers.protocol = header.proto;
        plain_ports(packet, offset + Ipv4Hdr::LEN, headers)
    }

    #[inline(never)]
    fn whole(
        packet: &impl Packet,
        offset: usize,
        headers: &mut Headers<Self>,
        extent: Extent,
    ) -> Result<(), Reason> {
        ipv4(packet, offset, headers, extent)
    }

    #[inline(always)]
    fn piece(packet: &impl Packet, _: usize, further: usize) -> Option<Piece> {
        fragment::ipv4(packet, further)
    }
}

impl Family for [u8; 16] {
    const PLAIN: usize = Ipv6Hdr::LEN;

    #[inline(always)]
    fn plain(packet: &impl Packet, offset: usize, headers: &mut Headers<Self>) -> bool {
        let Some(header) = packet.peek::<Ipv6Hdr>(offset) else {
            return false;
        };
        if header.vcf[0] >> 4 != 6 {
            return false;
        }
        // By themselves: as parts of what has been read they are copied byte by byte.
        let (Some(source), Some(destination)) = (
            packet.peek(offset + offset_of!(Ipv6Hdr, src_addr)),
            packet.peek(offset + offset_of!(Ipv6Hdr, dst_addr)),
        ) else {
            return false;
        };
        headers.source = source;
        headers.destination = destination;
        headers.protocol = header.next_hdr;
        plain_ports(packet, offset + Ipv6Hdr::LEN, headers)
    }

    #[inline(never)]
    fn whole(
        packet: &impl Packet,
        offset: usize,
        headers: &mut Headers<Self>,
        extent: Extent,
    ) -> Result<(), Reason> {
        ipv6(packet, offset, headers, extent)?;
        if matches!(headers.class, Class::Neighbour | Class::Router) {
            let hops: u8 = packet
                .load(offset + offset_of!(Ipv6Hdr, hop_limit))
                .ok_or(Reason::Malformed)?;
            if hops != on_link_hops(headers.destination_port) {
                headers.class = Class::Ordinary;
                headers.further = 0;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn piece(packet: &impl Packet, network: usize, further: usize) -> Option<Piece> {
        fragment::ipv6(packet, network, further)
    }
}

/// The hop limit of a message that never leaves its link; `port` is its type and code. One that
/// could have come from, or could go, further is no such message.
///
/// RFC 4861, 11.2: 255. RFC 2710 and RFC 3810, multicast listeners: 1.
#[inline(always)]
fn on_link_hops(port: u16) -> u8 {
    match port.to_be_bytes()[0] {
        130..=132 | 143 => 1,
        _ => 255,
    }
}

/// What the first chunk of an SCTP packet does, as a flag of TCP: an INIT starts an association, and stands alone
/// in its packet (RFC 9260, section 6.10), so that it is never part of a flow the other way.
#[inline(always)]
fn sctp_as_tcp(chunk: u8) -> u8 {
    const INIT: u8 = 1;
    if chunk == INIT { tcp::SYN } else { 0 }
}

/// The transport header of [`Family::plain`]; of SCTP the whole of it, with its first chunk, is for the other road.
#[inline(always)]
fn plain_ports<A>(packet: &impl Packet, offset: usize, headers: &mut Headers<A>) -> bool {
    if !matches!(headers.protocol, protocol::TCP | protocol::UDP) {
        return false;
    }
    let Some(ports) = packet.peek::<Ports>(offset) else {
        return false;
    };
    headers.source_port = u16::from_be_bytes(ports.source);
    headers.destination_port = u16::from_be_bytes(ports.destination);
    if headers.protocol == protocol::TCP {
        let Some(flags) = packet.peek::<[u8; 2]>(offset + TCP_FLAGS) else {
            return false;
        };
        headers.tcp_flags = flags[1];
    }
    true
}

/// Of the flags and the offset of IPv4 (RFC 791): more follows.
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Whether it is one piece of several.
#[inline(always)]
fn is_fragment(frags: [u8; 2]) -> bool {
    u16::from_be_bytes(frags) & (MORE_FRAGMENTS | OFFSET) != 0
}

/// The first fragment of several is to be remembered, unless it is of what must come whole: an ICMP error,
/// whose quote would be cut short, and what is said among neighbours (RFC 6980).
#[inline(always)]
fn begins_pieces<A>(headers: &mut Headers<A>, header_at: usize) {
    match headers.class {
        Class::Ordinary | Class::Reply => headers.further = place(header_at),
        Class::Neighbour => {
            headers.class = Class::Ordinary;
            headers.further = 0;
        }
        Class::Error | Class::Router => {}
    }
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "headers end far below 64 KiB"
)]
const fn place(offset: usize) -> u16 {
    offset as u16
}

#[inline(always)]
fn ipv4(
    packet: &impl Packet,
    offset: usize,
    headers: &mut Headers<[u8; 4]>,
    extent: Extent,
) -> Result<(), Reason> {
    // Field by field: the whole of it would take a third of the stack.
    let vihl: u8 = packet.load(offset).ok_or(Reason::Malformed)?;
    let length = usize::from(vihl & 0x0f) * 4;
    if vihl >> 4 != 4 || length < Ipv4Hdr::LEN {
        return Err(Reason::Malformed);
    }
    let frags: [u8; 2] = packet
        .load(offset + offset_of!(Ipv4Hdr, frags))
        .ok_or(Reason::Malformed)?;
    let is_read = packet.fill(offset + offset_of!(Ipv4Hdr, src_addr), &mut headers.source)
        && packet.fill(
            offset + offset_of!(Ipv4Hdr, dst_addr),
            &mut headers.destination,
        )
        && packet.fill(offset + offset_of!(Ipv4Hdr, proto), &mut headers.protocol);
    if !is_read {
        return Err(Reason::Malformed);
    }
    // Any fragment but the first carries no ports; its payload must not be read as a header.
    if u16::from_be_bytes(frags) & OFFSET != 0 {
        headers.further = place(offset);
        return Err(Reason::Fragment);
    }
    transport(packet, offset + length, headers, extent)?;
    if is_fragment(frags) {
        begins_pieces(headers, offset);
    }
    Ok(())
}

#[inline(always)]
fn ipv6(
    packet: &impl Packet,
    offset: usize,
    headers: &mut Headers<[u8; 16]>,
    extent: Extent,
) -> Result<(), Reason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const FRAGMENT_OFFSET: u16 = 0xfff8;
    const MORE_FRAGMENTS: u16 = 1;

    // Field by field, as in IPv4.
    let version: u8 = packet.load(offset).ok_or(Reason::Malformed)?;
    if version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let is_read = packet.fill(offset + offset_of!(Ipv6Hdr, src_addr), &mut headers.source)
        && packet.fill(
            offset + offset_of!(Ipv6Hdr, dst_addr),
            &mut headers.destination,
        );
    if !is_read {
        return Err(Reason::Malformed);
    }
    let mut next: u8 = packet
        .load(offset + offset_of!(Ipv6Hdr, next_hdr))
        .ok_or(Reason::Malformed)?;
    let mut at = offset + Ipv6Hdr::LEN;
    // Where the header of a first fragment is.
    let mut first = 0;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let extension: ExtensionStart = packet.load(at).ok_or(Reason::Malformed)?;
                next = extension.next;
                at += (usize::from(extension.length) + 1) * 8;
            }
            AUTHENTICATION => {
                let extension: ExtensionStart = packet.load(at).ok_or(Reason::Malformed)?;
                next = extension.next;
                at += (usize::from(extension.length) + 2) * 4;
            }
            FRAGMENT => {
                let extension: ExtensionStart = packet.load(at).ok_or(Reason::Malformed)?;
                let position: [u8; 2] = packet.load(at + 2).ok_or(Reason::Malformed)?;
                let position = u16::from_be_bytes(position);
                if position & FRAGMENT_OFFSET != 0 {
                    headers.further = place(at);
                    return Err(Reason::Fragment);
                }
                if position & MORE_FRAGMENTS != 0 {
                    first = at;
                }
                next = extension.next;
                at += 8;
            }
            _ => break,
        }
    }
    if matches!(
        next,
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT
    ) {
        return Err(Reason::ExtensionHeader);
    }
    headers.protocol = next;
    transport(packet, at, headers, extent)?;
    if first != 0 {
        begins_pieces(headers, first);
    }
    Ok(())
}

#[inline(always)]
fn transport<A: Address>(
    packet: &impl Packet,
    offset: usize,
    headers: &mut Headers<A>,
    extent: Extent,
) -> Result<(), Reason> {
    const _: () = assert!(size_of::<Ports>() <= UdpHdr::LEN && UdpHdr::LEN <= SctpHdr::LEN);
    match headers.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let ports: Ports = packet.load(offset).ok_or(Reason::Malformed)?;
            headers.source_port = u16::from_be_bytes(ports.source);
            headers.destination_port = u16::from_be_bytes(ports.destination);
            if headers.protocol != protocol::UDP && extent == Extent::Whole {
                let flags: [u8; 2] = packet.load(offset + TCP_FLAGS).ok_or(Reason::Malformed)?;
                headers.tcp_flags = if headers.protocol == protocol::TCP {
                    flags[1]
                } else {
                    sctp_as_tcp(flags[0])
                };
            }
            Ok(())
        }
        protocol::ICMP if A::FAMILY == 4 => {
            const _: () = assert!(size_of::<IcmpStart>() == Icmpv4Hdr::LEN);
            let start: IcmpStart = packet.load(offset).ok_or(Reason::Malformed)?;
            icmp(&start, offset, headers, icmp_v4_class(start.kind));
            Ok(())
        }
        protocol::ICMPV6 if A::FAMILY == 6 => {
            let start: IcmpStart = packet.load(offset).ok_or(Reason::Malformed)?;
            icmp(&start, offset, headers, icmp_v6_class(start.kind));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How an ICMP message takes part in a flow.
#[derive(Clone, Copy)]
enum Icmp {
    /// Has an identifier; answered by a message of another type.
    Query,
    /// Answers a query of this type.
    Answer(u8),
    Error,
    Neighbour,
    Router,
    /// Stands alone.
    Notice,
}

/// RFC 792, RFC 950.
#[inline(always)]
fn icmp_v4_class(kind: u8) -> Icmp {
    match kind {
        8 | 13 | 15 | 17 => Icmp::Query,
        0 => Icmp::Answer(8),
        14 => Icmp::Answer(13),
        16 => Icmp::Answer(15),
        18 => Icmp::Answer(17),
        3 | 11 | 12 => Icmp::Error,
        5 | 9 => Icmp::Router,
        _ => Icmp::Notice,
    }
}

/// RFC 4443, RFC 4861, RFC 2710, RFC 3810.
#[inline(always)]
fn icmp_v6_class(kind: u8) -> Icmp {
    match kind {
        128 => Icmp::Query,
        129 => Icmp::Answer(128),
        1..=4 => Icmp::Error,
        130..=133 | 135 | 136 | 143 => Icmp::Neighbour,
        134 | 137 => Icmp::Router,
        _ => Icmp::Notice,
    }
}

#[inline(always)]
fn icmp<A>(start: &IcmpStart, offset: usize, headers: &mut Headers<A>, class: Icmp) {
    let own = u16::from_be_bytes([start.kind, start.code]);
    let id = u16::from_be_bytes(start.id);
    match class {
        Icmp::Query => {
            headers.source_port = id;
            headers.destination_port = own;
        }
        Icmp::Answer(query) => {
            headers.source_port = u16::from_be_bytes([query, 0]);
            headers.destination_port = id;
            headers.class = Class::Reply;
        }
        Icmp::Error => {
            headers.destination_port = own;
            headers.class = Class::Error;
            headers.further = place(offset + size_of::<IcmpStart>());
        }
        Icmp::Neighbour => {
            headers.destination_port = own;
            headers.class = Class::Neighbour;
            headers.further = place(offset);
        }
        Icmp::Router => {
            headers.destination_port = own;
            headers.class = Class::Router;
        }
        Icmp::Notice => headers.destination_port = own,
    }
}

#[cfg(test)]
mod tests;
