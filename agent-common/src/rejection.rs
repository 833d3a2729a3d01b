//! How the sender of a denied packet is told: a TCP reset, or an ICMP error.
//!
//! The answer is made from the packet alone and takes its place in the frame. It carries the addresses of
//! the packet the other way round, so it says what a host would say that refuses: who is asked, not who
//! denied. An ICMP error quotes what it answers; so the new headers go in front of it.
//!
//! | packet | answer |
//! |---|---|
//! | TCP | a reset (RFC 9293, 3.10.7), of a packet without options or extension headers |
//! | other | "administratively prohibited": ICMP type 3 code 13 (RFC 1812, 5.2.7.1), `ICMPv6` type 1 code 1 (RFC 4443, 3.1) |
//! | a reset, an ICMP error, what neighbours and routers say | none |
//! | from or to a group, a broadcast, nobody, or this host itself | none |
//! | a later fragment | none |

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    abi::abi,
    flow::tcp,
    parse::{Class, Extent, Family, Header, Headers, Packet},
    protocol,
    shared::Shared,
    table::Direction,
};

/// Bytes of a packet that are quoted at most, its network header among them; a multiple of 4.
///
/// All of its headers and the beginning of what follows: an answer is longer than the packet by no more
/// than the headers that go in front.
pub const QUOTE: u16 = 128;

/// Bytes of the longest answer, from its network header on.
pub const LONGEST: u32 = 40 + 8 + QUOTE as u32;

/// Nanoseconds in which one more answer falls due: 100 each second.
pub const EACH: u64 = 10_000_000;

/// Answers that may be sent at once.
pub const BURST: u64 = 100;

/// Hop limit, or time to live, of an answer.
const HOPS: u8 = 64;

abi! {
    /// Value of the rejections map: what became of the answers to packets of one endpoint and direction.
    pub struct RejectionCounts: 24 {
        /// When the last answer that was sent fell due, in nanoseconds of the boot clock.
        pub due: u64,
        pub sent: u64,
        /// Not sent, because there were too many.
        pub suppressed: u64,
    }
}

/// [`RejectionCounts`], as several processors change it at once.
#[repr(C)]
#[derive(Debug)]
pub struct Rejections {
    pub due: Shared<u64>,
    pub sent: Shared<u64>,
    pub suppressed: Shared<u64>,
}

const _: () = assert!(size_of::<Rejections>() == size_of::<RejectionCounts>());

/// What a packet is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    Silence = 0,
    /// A TCP reset in the place of the packet.
    Reset = 1,
    /// An ICMP error in front of it.
    Unreachable = 2,
}

/// Who is to hear of a packet that was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Toward {
    Sender = 0,
    /// Whom the packet was for. Of TCP alone: the packet becomes the reset of a connection that was cut.
    Receiver = 1,
}

/// Who completes the checksum of the packet whose place the answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Checksum {
    Complete = 0,
    /// The device that sends it: from the transport header on (`CHECKSUM_PARTIAL`). It will do so with
    /// the answer, at the same places.
    Left = 1,
}

/// A frame that becomes its own answer.
pub trait Frame: Packet {
    /// Cuts it off after so many bytes; false if that can not be.
    fn shorten(&self, length: u16) -> bool;

    /// Makes so many bytes of room behind the Ethernet header; false if that can not be.
    fn make_room(&self, bytes: u16) -> bool;

    /// Writes at `offset` bytes; false if the frame ends before.
    fn store<T: Header>(&self, offset: usize, value: &T) -> bool;

    /// Who completes its checksum. The first two bytes may be others after.
    fn checksum(&self) -> Checksum;
}

/// The packet that is answered, as far as the answer depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Invoking<A> {
    pub headers: Headers<A>,
    /// Bytes from the network header on, as that says; at most 65,535.
    length: u16,
    /// Bytes of the network header, with options.
    network: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Stations {
    destination: [u8; 6],
    source: [u8; 6],
}

#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Segment {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    /// In words, in the upper half.
    length: u8,
    flags: u8,
    window: [u8; 2],
    check: [u8; 2],
    urgent: [u8; 2],
}

#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Icmp {
    kind: u8,
    code: u8,
    check: [u8; 2],
    unused: [u8; 4],
}

/// What stands in front of the addresses, in either family's header.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct HeadV4([u8; 12]);

#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct HeadV6([u8; 8]);

// SAFETY: `repr(C)` structs of bytes.
unsafe impl Header for Stations {}
// SAFETY: as above.
unsafe impl Header for Segment {}
// SAFETY: as above.
unsafe impl Header for Icmp {}
// SAFETY: as above.
unsafe impl Header for HeadV4 {}
// SAFETY: as above.
unsafe impl Header for HeadV6 {}

#[expect(clippy::cast_possible_truncation, reason = "14 bytes")]
const ETHERNET: u16 = EthHdr::LEN as u16;

/// Bytes of a reset, from its TCP header on.
const RESET: u16 = 20;

/// Bytes of an ICMP header.
const ICMP: u16 = 8;

/// What differs between the families.
pub trait Rejectable: Family + Header {
    /// The header up to the addresses.
    type Head: Header;

    /// Bytes of the header without options; at its end, the addresses.
    const NETWORK: u16;

    /// Where the answer says "administratively prohibited": its protocol, type and code.
    const PROHIBITED: [u8; 3];

    /// The length of a packet from its network header on, and of this header with its options.
    fn lengths(packet: &impl Packet) -> (u16, u16);

    /// Whether the transport header follows the shortest network header, and is whole.
    fn is_plain(packet: &impl Packet, protocol: u8) -> bool;

    /// Whether this can be one host, and another than the one it comes from.
    fn is_one_host(&self) -> bool;

    /// The sum of an address.
    fn sum(&self) -> u64;

    /// The head of an answer with so many bytes behind it; `addresses` is the sum of both.
    fn head(addresses: u64, protocol: u8, behind: u16) -> Self::Head;

    /// What an ICMP error's checksum covers besides it.
    fn besides(addresses: u64, behind: u16) -> u64;
}

impl Rejectable for [u8; 4] {
    type Head = HeadV4;
    const NETWORK: u16 = 20;
    const PROHIBITED: [u8; 3] = [protocol::ICMP, 3, 13];

    #[inline(always)]
    fn lengths(packet: &impl Packet) -> (u16, u16) {
        let first = packet.load::<[u8; 4]>(EthHdr::LEN);
        first.map_or((0, 0), |[words, _, high, low]| {
            let words = words & 0x0f;
            (u16::from_be_bytes([high, low]), u16::from(words) * 4)
        })
    }

    #[inline(always)]
    fn is_plain(packet: &impl Packet, _: u8) -> bool {
        // More follow, or its place among them.
        const PIECE: u16 = 0x3fff;
        let first = packet.load::<u8>(EthHdr::LEN);
        let piece = packet.load::<[u8; 2]>(EthHdr::LEN + offset_of!(Ipv4Hdr, frags));
        first == Some(0x45) && piece.is_some_and(|piece| u16::from_be_bytes(piece) & PIECE == 0)
    }

    #[inline(always)]
    fn is_one_host(&self) -> bool {
        // RFC 1122, 3.2.1.3: this network, this host, groups and what is reserved, broadcast.
        let [first, ..] = *self;
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        word(*self)
    }

    #[inline(always)]
    fn head(addresses: u64, protocol: u8, behind: u16) -> HeadV4 {
        let [high, low] = (Self::NETWORK + behind).to_be_bytes();
        // Whole, so that it needs no number (RFC 6864).
        let sum = word([0x45, 0, high, low]) + word([0, 0, 0x40, 0]) + word([HOPS, protocol, 0, 0]);
        let [a, b] = closed(sum + addresses);
        HeadV4([0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, protocol, a, b])
    }

    #[inline(always)]
    fn besides(_: u64, _: u16) -> u64 {
        0
    }
}

impl Rejectable for [u8; 16] {
    type Head = HeadV6;
    const NETWORK: u16 = 40;
    const PROHIBITED: [u8; 3] = [protocol::ICMPV6, 1, 1];

    #[inline(always)]
    fn lengths(packet: &impl Packet) -> (u16, u16) {
        let length = packet.load::<[u8; 2]>(EthHdr::LEN + offset_of!(Ipv6Hdr, payload_len));
        length.map_or((0, 0), |length| {
            let payload = u16::from_be_bytes(length);
            (payload.saturating_add(Self::NETWORK), Self::NETWORK)
        })
    }

    #[inline(always)]
    fn is_plain(packet: &impl Packet, protocol: u8) -> bool {
        let next = packet.load::<u8>(EthHdr::LEN + offset_of!(Ipv6Hdr, next_hdr));
        next == Some(protocol)
    }

    #[inline(always)]
    fn is_one_host(&self) -> bool {
        const LOOPBACK: u128 = 1;
        let is_group = self[0] == 0xff;
        !is_group && u128::from_be_bytes(*self) > LOOPBACK
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "one half of the address, then the other"
    )]
    fn sum(&self) -> u64 {
        let whole = u128::from_ne_bytes(*self);
        let (low, high) = (whole as u64, (whole >> 64) as u64);
        let half = |half: u64| (half >> 32) + (half & 0xffff_ffff);
        half(low) + half(high)
    }

    #[inline(always)]
    fn head(_: u64, protocol: u8, behind: u16) -> HeadV6 {
        let [high, low] = behind.to_be_bytes();
        HeadV6([6 << 4, 0, 0, 0, high, low, protocol, HOPS])
    }

    #[inline(always)]
    fn besides(addresses: u64, behind: u16) -> u64 {
        pseudo(addresses, protocol::ICMPV6, behind)
    }
}

/// Reads a frame that was denied, and says what it is answered with.
///
/// Of `invoking` only what it then says is of use.
#[inline(always)]
pub fn form<A: Rejectable>(
    packet: &impl Packet,
    invoking: &mut Invoking<A>,
    toward: Toward,
) -> Form {
    const GROUP: u8 = 1;
    let to = packet.load::<u8>(offset_of!(Stations, destination));
    let from = packet.load::<u8>(offset_of!(Stations, source));
    let (Some(to), Some(from)) = (to, from) else {
        return Form::Silence;
    };
    if (to | from) & GROUP != 0 {
        return Form::Silence;
    }
    // A piece but the first has no ports, and is answered by nobody.
    if A::whole(packet, EthHdr::LEN, &mut invoking.headers, Extent::Whole).is_err() {
        return Form::Silence;
    }
    let headers = &invoking.headers;
    if !headers.source.is_one_host() || !headers.destination.is_one_host() {
        return Form::Silence;
    }
    match headers.class {
        Class::Ordinary | Class::Reply => {}
        Class::Error | Class::Neighbour | Class::Router => return Form::Silence,
    }
    let protocol = headers.protocol;
    let is_tcp = protocol == protocol::TCP;
    if is_tcp && headers.tcp_flags & tcp::RST != 0 {
        return Form::Silence;
    }
    (invoking.length, invoking.network) = A::lengths(packet);
    if is_tcp && A::is_plain(packet, protocol) {
        return Form::Reset;
    }
    match toward {
        Toward::Sender if invoking.quote() >= A::NETWORK => Form::Unreachable,
        Toward::Sender | Toward::Receiver => Form::Silence,
    }
}

/// Makes a frame of [`Form::Reset`] the reset that tells of it; false if that can not be.
#[inline(always)]
pub fn reset<A: Rejectable>(frame: &impl Frame, invoking: &Invoking<A>, toward: Toward) -> bool {
    let at = EthHdr::LEN + usize::from(A::NETWORK);
    let Some(mut segment) = frame.load::<Segment>(at) else {
        return false;
    };
    let Some(checksum) = address_frame(frame, toward) else {
        return false;
    };
    let headers = &invoking.headers;
    let addresses = headers.source.sum() + headers.destination.sum();
    match toward {
        Toward::Receiver => segment.part(),
        Toward::Sender => segment.answer(invoking.length.saturating_sub(A::NETWORK)),
    }
    let pseudo = pseudo(addresses, protocol::TCP, RESET);
    segment.check = match checksum {
        Checksum::Left => folded(pseudo).to_ne_bytes(),
        Checksum::Complete => closed(pseudo + segment.sum()),
    };
    let (from, to) = match toward {
        Toward::Sender => (&headers.destination, &headers.source),
        Toward::Receiver => (&headers.source, &headers.destination),
    };
    frame.shorten(ETHERNET + A::NETWORK + RESET)
        && frame.store(at, &segment)
        && address(frame, from, to)
        && frame.store(EthHdr::LEN, &A::head(addresses, protocol::TCP, RESET))
}

/// Puts an ICMP error in front of a frame of [`Form::Unreachable`]; false if that can not be.
#[inline(always)]
pub fn unreachable<A: Rejectable>(frame: &impl Frame, invoking: &Invoking<A>) -> bool {
    let [protocol, kind, code] = A::PROHIBITED;
    let Some(checksum) = address_frame(frame, Toward::Sender) else {
        return false;
    };
    let Some(quoted) = invoking.quoted(frame, checksum) else {
        return false;
    };
    let headers = &invoking.headers;
    let addresses = headers.source.sum() + headers.destination.sum();
    let behind = ICMP + invoking.quote();
    let sum = word([kind, code, 0, 0]) + A::besides(addresses, behind) + quoted;
    let icmp = Icmp {
        kind,
        code,
        check: closed(sum),
        unused: [0; 4],
    };
    frame.shorten(ETHERNET + invoking.quote())
        && frame.make_room(A::NETWORK + ICMP)
        && frame.store(EthHdr::LEN + usize::from(A::NETWORK), &icmp)
        && address(frame, &headers.destination, &headers.source)
        && frame.store(EthHdr::LEN, &A::head(addresses, protocol, behind))
}

/// Turns the frame itself round, if the answer goes back, and says who completes checksums.
#[inline(always)]
fn address_frame(frame: &impl Frame, toward: Toward) -> Option<Checksum> {
    let Stations {
        destination,
        source,
    } = frame.load::<Stations>(0)?;
    // After what it may change has been read.
    let checksum = frame.checksum();
    let stations = match toward {
        Toward::Sender => Stations {
            destination: source,
            source: destination,
        },
        Toward::Receiver => Stations {
            destination,
            source,
        },
    };
    frame.store(0, &stations).then_some(checksum)
}

/// Writes the addresses of an answer.
#[inline(always)]
fn address<A: Rejectable>(frame: &impl Frame, from: &A, to: &A) -> bool {
    let at = EthHdr::LEN + usize::from(A::NETWORK) - 2 * size_of::<A>();
    frame.store(at, from) && frame.store(at + size_of::<A>(), to)
}

// === impl Invoking ===

impl<A: Rejectable> Invoking<A> {
    pub const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        length: 0,
        network: 0,
    };

    /// How much of the packet is quoted: whole words.
    #[inline(always)]
    fn quote(&self) -> u16 {
        let whole = self.length & !3;
        if whole < QUOTE { whole } else { QUOTE }
    }

    /// The sum of what is quoted, as it will be when it arrives.
    #[inline(always)]
    fn quoted(&self, packet: &impl Packet, checksum: Checksum) -> Option<u64> {
        let (quote, network) = (usize::from(self.quote()), usize::from(self.network));
        let mut sum = 0;
        for index in 0..usize::from(QUOTE) / 4 {
            let at = index * 4;
            if at >= quote {
                break;
            }
            if matches!(checksum, Checksum::Left) && at >= network {
                // What is completed comes to the opposite of the start that its checksum field has.
                return Some(sum + u64::from(!self.start(packet)?));
            }
            sum += word(packet.load::<[u8; 4]>(EthHdr::LEN + at)?);
        }
        Some(sum)
    }

    /// What the packet's transport checksum starts from.
    #[inline(always)]
    fn start(&self, packet: &impl Packet) -> Option<u16> {
        const OF_UDP: usize = 6;
        let within = if self.headers.protocol == protocol::TCP {
            offset_of!(Segment, check)
        } else {
            OF_UDP
        };
        let at = EthHdr::LEN + usize::from(self.network) + within;
        packet.load::<[u8; 2]>(at).map(u16::from_ne_bytes)
    }
}

// === impl Segment ===

impl Segment {
    /// Becomes the reset that takes leave in the sender's name.
    #[inline(always)]
    fn part(&mut self) {
        let acknowledges = self.flags & tcp::ACK;
        if acknowledges == 0 {
            self.acknowledgement = [0; 4];
        }
        self.strip(tcp::RST | acknowledges);
    }

    /// Becomes the reset that answers it (RFC 9293, 3.10.7.1); `length` is of its header and data.
    #[inline(always)]
    fn answer(&mut self, length: u16) {
        (self.source, self.destination) = (self.destination, self.source);
        if self.flags & tcp::ACK != 0 {
            self.sequence = self.acknowledgement;
            self.acknowledgement = [0; 4];
            self.strip(tcp::RST);
            return;
        }
        let header = u16::from(self.length >> 4) * 4;
        let data = u32::from(length.saturating_sub(header));
        let marks = u32::from(self.flags & tcp::SYN != 0) + u32::from(self.flags & tcp::FIN != 0);
        let next = u32::from_be_bytes(self.sequence).wrapping_add(data + marks);
        self.sequence = [0; 4];
        self.acknowledgement = next.to_be_bytes();
        self.strip(tcp::RST | tcp::ACK);
    }

    /// Leaves out options, data and all that only a live connection has.
    #[inline(always)]
    fn strip(&mut self, flags: u8) {
        self.length = 5 << 4;
        self.flags = flags;
        self.window = [0; 2];
        self.check = [0; 2];
        self.urgent = [0; 2];
    }

    /// Of one that is stripped.
    #[inline(always)]
    fn sum(&self) -> u64 {
        let ([a, b], [c, d]) = (self.source, self.destination);
        word([a, b, c, d])
            + word(self.sequence)
            + word(self.acknowledgement)
            + word([self.length, self.flags, 0, 0])
    }
}

/// The sum of what a transport checksum covers besides the segment: `addresses` is the sum of both.
#[inline(always)]
fn pseudo(addresses: u64, protocol: u8, behind: u16) -> u64 {
    let [high, low] = behind.to_be_bytes();
    addresses + word([0, protocol, high, low])
}

/// Four bytes as a part of a sum. It is the same in any order of bytes (RFC 1071, 2), so it is this
/// machine's.
#[inline(always)]
fn word(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(bytes))
}

/// The sum of 16-bit words.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
fn folded(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum of what sums up to this.
#[inline(always)]
fn closed(sum: u64) -> [u8; 2] {
    (!folded(sum)).to_ne_bytes()
}

/// Where the answers to packets of an endpoint and direction are counted, and limited: those who send to
/// it do not use up what its own packets are due.
#[inline(always)]
pub const fn slot_of(endpoint: u16, direction: Direction) -> u32 {
    endpoint as u32 * DIRECTIONS + direction as u32
}

/// Slots of each endpoint.
pub const DIRECTIONS: u32 = 2;

// === impl Rejections ===

impl Rejections {
    /// Takes leave for one more answer at `now`, of the boot clock, and counts it.
    ///
    /// Answers fall due one after the other, [`EACH`] apart, and may be sent early by as much as
    /// [`BURST`] of them take: one number and no clock that ticks (the generic cell rate algorithm,
    /// ITU-T I.371). Processors that ask at once may get one more each, which is made up for after: what
    /// they add is not lost.
    #[inline(always)]
    pub fn may_send(&self, now: u64) -> bool {
        const AHEAD: u64 = BURST * EACH;
        let due = self.due.get();
        if due <= now {
            self.due.set(now + EACH);
        } else if due + EACH <= now + AHEAD {
            self.due.add(EACH);
        } else {
            self.suppressed.add(1);
            return false;
        }
        self.sent.add(1);
        true
    }
}

#[cfg(test)]
mod tests;
