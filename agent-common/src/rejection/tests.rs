//! Answers byte by byte, with checksums worked out in another way.

use core::cell::RefCell;
use std::{vec, vec::Vec};

use super::*;
use crate::{
    flow::tcp::{ACK, FIN, RST, SYN},
    parse::parse,
    testing::{PacketBuilder, Slice},
    verdict::Reason,
};

const V4: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const V6: [[u8; 16]; 2] = [
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 1],
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xcd, 2],
];
const SEQUENCE: u32 = 0xffff_fff0;
const ACKNOWLEDGED: u32 = 0x0102_0304;

/// RFC 1071, as it is written: bytes in pairs, and what goes over is carried around.
fn checksum_of(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !u16::try_from(sum).unwrap()
}

/// The addresses, the protocol and the length that a transport checksum covers (RFC 9293, RFC 8200).
fn pseudo_header(packet: &[u8]) -> Vec<u8> {
    let (addresses, protocol, behind) = match packet[0] >> 4 {
        4 => (&packet[12..20], packet[9], packet.len() - 20),
        _ => (&packet[8..40], packet[6], packet.len() - 40),
    };
    let mut header = addresses.to_vec();
    header.extend(u32::try_from(behind).unwrap().to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// Gives a frame with TCP numbers of its own, and MAC addresses that can be told apart.
fn framed(packet: &PacketBuilder) -> Vec<u8> {
    let mut frame = packet.frame();
    frame[..6].copy_from_slice(&[2, 1, 1, 1, 1, 1]);
    frame[6..12].copy_from_slice(&[2, 2, 2, 2, 2, 2]);
    frame
}

fn tcp_frame(packet: PacketBuilder, flags: u8, data: usize) -> Vec<u8> {
    let packet = packet.tcp(4000, 443, flags).payload(data);
    let mut frame = framed(&packet);
    let at = frame.len() - data - 20;
    frame[at + 4..at + 8].copy_from_slice(&SEQUENCE.to_be_bytes());
    frame[at + 8..at + 12].copy_from_slice(&ACKNOWLEDGED.to_be_bytes());
    frame
}

/// A frame as the kernel's helpers change one.
struct Buffer {
    bytes: RefCell<Vec<u8>>,
    checksum: Checksum,
}

impl Packet for Buffer {
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        Slice(&self.bytes.borrow()).load(offset)
    }
}

impl Frame for Buffer {
    fn shorten(&self, length: u16) -> bool {
        // Ethernet fills up what is too short.
        self.bytes.borrow_mut().resize(length.into(), 0);
        true
    }

    fn make_room(&self, bytes: u16) -> bool {
        let room = std::iter::repeat_n(0, bytes.into());
        self.bytes.borrow_mut().splice(14..14, room);
        true
    }

    fn store<T: Header>(&self, offset: usize, value: &T) -> bool {
        // SAFETY: all of its fields are bytes.
        let value = unsafe {
            core::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>())
        };
        self.bytes.borrow_mut()[offset..offset + value.len()].copy_from_slice(value);
        true
    }

    fn checksum(&self) -> Checksum {
        if matches!(self.checksum, Checksum::Complete) {
            self.bytes.borrow_mut()[0] ^= 0xff;
        }
        self.checksum
    }
}

/// The frame that answers this one, as the hooks make it; `None` is silence.
fn answered<A: Rejectable>(frame: &[u8], toward: Toward, checksum: Checksum) -> Option<Vec<u8>> {
    let frame = Buffer {
        bytes: RefCell::new(frame.to_vec()),
        checksum,
    };
    let mut invoking = Invoking::<A>::EMPTY;
    let done = match form(&frame, &mut invoking, toward) {
        Form::Silence => return None,
        Form::Reset => reset(&frame, &invoking, toward),
        Form::Unreachable => unreachable(&frame, &invoking),
    };
    assert!(done);
    Some(frame.bytes.into_inner())
}

fn reply<A: Rejectable>(frame: &[u8]) -> Option<Vec<u8>> {
    answered::<A>(frame, Toward::Sender, Checksum::Complete)
}

/// What holds of every answer: it goes back, is as long as it says, and its checksums are right.
fn is_sound<A: Rejectable>(answer: &[u8], frame: &[u8]) {
    assert_eq!(answer[..6], frame[6..12]);
    assert_eq!(answer[6..12], frame[..6]);
    assert_eq!(answer[12..14], frame[12..14]);
    let packet = &answer[14..];
    let mut headers = Headers::<A>::EMPTY;
    assert_eq!(parse(&Slice(answer), 14, &mut headers), Ok(()));
    let mut asked = Headers::<A>::EMPTY;
    assert_eq!(parse(&Slice(frame), 14, &mut asked), Ok(()));
    assert_eq!(headers.source, asked.destination);
    assert_eq!(headers.destination, asked.source);
    let (hops, length, transport) = match A::FAMILY {
        4 => {
            assert_eq!(checksum_of(&packet[..20]), 0, "the header's checksum");
            (packet[8], [packet[2], packet[3]], &packet[20..])
        }
        _ => (packet[7], [packet[4], packet[5]], &packet[40..]),
    };
    let behind = if A::FAMILY == 4 { packet } else { transport };
    assert_eq!(usize::from(u16::from_be_bytes(length)), behind.len());
    assert_eq!(hops, 64);
    let mut covered = transport.to_vec();
    if headers.protocol != protocol::ICMP {
        covered.extend(pseudo_header(packet));
    }
    assert_eq!(checksum_of(&covered), 0, "the transport's checksum");
}

/// The numbers and flags of a reset.
fn numbers<A: Rejectable>(answer: &[u8]) -> (u32, u32, u8) {
    let segment = &answer[14 + usize::from(A::NETWORK)..];
    assert_eq!(segment.len(), 20);
    let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    assert_eq!(segment[..4], [1, 0xbb, 0x0f, 0xa0], "the ports");
    (number(4), number(8), segment[13])
}

fn resets_are_right<A: Rejectable>(packet: &PacketBuilder) {
    let cases = [
        (SYN, 0, (0, SEQUENCE.wrapping_add(1), RST | ACK)),
        // Data in the first segment (RFC 7413) counts too, and goes over the end of the numbers.
        (SYN, 100, (0, SEQUENCE.wrapping_add(101), RST | ACK)),
        (FIN, 7, (0, SEQUENCE.wrapping_add(8), RST | ACK)),
        (0, 0, (0, SEQUENCE, RST | ACK)),
        (ACK, 0, (ACKNOWLEDGED, 0, RST)),
        (ACK, 1000, (ACKNOWLEDGED, 0, RST)),
        (SYN | ACK, 0, (ACKNOWLEDGED, 0, RST)),
        (FIN | ACK, 3, (ACKNOWLEDGED, 0, RST)),
    ];
    for (flags, data, expected) in cases {
        let frame = tcp_frame(packet.clone(), flags, data);
        let answer = reply::<A>(&frame).unwrap();
        is_sound::<A>(&answer, &frame);
        assert_eq!(numbers::<A>(&answer), expected, "{flags:#x} with {data}");
    }
    // It is no answer to one of its kind.
    for flags in [RST, RST | ACK] {
        assert_eq!(reply::<A>(&tcp_frame(packet.clone(), flags, 0)), None);
    }
}

#[test]
fn a_reset_has_the_numbers_that_its_receiver_expects() {
    resets_are_right::<[u8; 4]>(&PacketBuilder::v4(V4[0], V4[1]));
    resets_are_right::<[u8; 16]>(&PacketBuilder::v6(V6[0], V6[1]));
}

fn parting_is_right<A: Rejectable>(packet: &PacketBuilder) {
    for (flags, acknowledged, own) in [
        (ACK, ACKNOWLEDGED, RST | ACK),
        (FIN | ACK, ACKNOWLEDGED, RST | ACK),
        (SYN, 0, RST),
    ] {
        let frame = tcp_frame(packet.clone(), flags, 50);
        let answer = answered::<A>(&frame, Toward::Receiver, Checksum::Complete).unwrap();
        assert_eq!(answer[..14], frame[..14]);
        let (from, to) = (usize::from(A::NETWORK) + 14, usize::from(A::NETWORK) + 18);
        assert_eq!(answer[from..to], frame[from..to], "the ports");
        let segment = &answer[from..];
        let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        assert_eq!(
            (number(4), number(8), segment[13]),
            (SEQUENCE, acknowledged, own)
        );
        let mut covered = segment.to_vec();
        covered.extend(pseudo_header(&answer[14..]));
        assert_eq!(checksum_of(&covered), 0);
    }
    assert_eq!(
        answered::<A>(
            &framed(&packet.clone().udp(1, 2)),
            Toward::Receiver,
            Checksum::Complete
        ),
        None
    );
}

#[test]
fn the_far_end_of_a_cut_connection_is_told_in_its_sequence() {
    parting_is_right::<[u8; 4]>(&PacketBuilder::v4(V4[0], V4[1]));
    parting_is_right::<[u8; 16]>(&PacketBuilder::v6(V6[0], V6[1]));
}

fn errors_are_right<A: Rejectable>(packet: &PacketBuilder, kind: [u8; 2], headers: usize) {
    for data in [0, 1, 2, 3, 20, 99, 1400] {
        let frame = framed(&packet.clone().udp(4000, 53).payload(data));
        let answer = reply::<A>(&frame).unwrap();
        is_sound::<A>(&answer, &frame);
        let icmp = &answer[14 + headers..];
        assert_eq!(icmp[..2], kind);
        assert_eq!(icmp[4..8], [0; 4]);
        let whole = frame.len() - 14;
        assert_eq!(icmp[8..], frame[14..14 + (whole & !3).min(128)]);
        assert!(answer.len() <= frame.len() + headers + 8);
    }
}

#[test]
fn an_error_quotes_what_it_answers() {
    let (v4, v6) = (
        PacketBuilder::v4(V4[0], V4[1]),
        PacketBuilder::v6(V6[0], V6[1]),
    );
    errors_are_right::<[u8; 4]>(&v4, [3, 13], 20);
    errors_are_right::<[u8; 4]>(&v4.options(2), [3, 13], 20);
    errors_are_right::<[u8; 16]>(&v6, [1, 1], 40);
    errors_are_right::<[u8; 16]>(&v6.extension(60, 1), [1, 1], 40);
}

#[test]
fn every_protocol_but_plain_tcp_is_answered_by_an_error() {
    let v4 = || PacketBuilder::v4(V4[0], V4[1]);
    let v6 = || PacketBuilder::v6(V6[0], V6[1]);
    for packet in [
        v4().sctp(1, 2),
        v4().icmp(8, 0, 7),
        v4().protocol(47, vec![0; 20]),
        v4().options(1).tcp(4000, 443, SYN),
        v4().fragment(0, true).udp(1, 2).payload(8),
    ] {
        let frame = framed(&packet);
        let answer = reply::<[u8; 4]>(&frame).unwrap();
        assert_eq!(
            (answer[23], answer[34], answer[35]),
            (1, 3, 13),
            "{packet:?}"
        );
        is_sound::<[u8; 4]>(&answer, &frame);
    }
    for packet in [
        v6().sctp(1, 2),
        v6().icmp(128, 0, 7),
        v6().extension(60, 0).tcp(4000, 443, SYN),
        v6().fragment(0, true).udp(1, 2).payload(8),
    ] {
        let frame = framed(&packet);
        let answer = reply::<[u8; 16]>(&frame).unwrap();
        assert_eq!(
            (answer[20], answer[54], answer[55]),
            (58, 1, 1),
            "{packet:?}"
        );
        is_sound::<[u8; 16]>(&answer, &frame);
    }
}

/// RFC 1122, 3.2.2; RFC 4443, 2.4.
#[test]
fn what_must_not_be_answered_is_not() {
    let v4 = |source, destination| PacketBuilder::v4(source, destination).udp(1, 2);
    let v6 = |source, destination| PacketBuilder::v6(source, destination).udp(1, 2);
    let [ours, theirs] = V4;
    let quoted = v4(theirs, ours);
    for (what, packet) in [
        (
            "an error",
            PacketBuilder::v4(ours, theirs).icmp_error(3, 3, &quoted, 28),
        ),
        (
            "a redirect",
            PacketBuilder::v4(ours, theirs).icmp_error(5, 1, &quoted, 28),
        ),
        (
            "a later fragment",
            v4(ours, theirs).payload(16).fragment(1, false),
        ),
        ("to a group", v4(ours, [224, 0, 0, 251])),
        ("a broadcast", v4(ours, [255; 4])),
        ("from nobody", v4([0; 4], theirs)),
        ("from a group", v4([239, 1, 1, 1], theirs)),
        ("from loopback", v4([127, 0, 0, 1], theirs)),
        ("to loopback", v4(ours, [127, 0, 0, 1])),
        ("a short one", v4(ours, theirs).cut(30)),
    ] {
        assert_eq!(reply::<[u8; 4]>(&framed(&packet)), None, "{what}");
    }
    let [ours, theirs] = V6;
    let quoted = v6(theirs, ours);
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (what, packet) in [
        (
            "an error",
            PacketBuilder::v6(ours, theirs).icmp_error(1, 4, &quoted, 48),
        ),
        (
            "too big",
            PacketBuilder::v6(ours, theirs).icmp_error(2, 0, &quoted, 48),
        ),
        (
            "a redirect",
            PacketBuilder::v6(ours, theirs).icmp(137, 0, 0),
        ),
        (
            "a solicitation",
            PacketBuilder::v6(ours, theirs).icmp(135, 0, 0),
        ),
        (
            "an error behind options",
            PacketBuilder::v6(ours, theirs)
                .extension(60, 0)
                .icmp(1, 4, 0),
        ),
        (
            "a later fragment",
            v6(ours, theirs).payload(16).fragment(1, false),
        ),
        ("to a group", v6(ours, group)),
        ("from nobody", v6([0; 16], theirs)),
        ("from a group", v6(group, theirs)),
        (
            "to loopback",
            v6(ours, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ),
    ] {
        assert_eq!(reply::<[u8; 16]>(&framed(&packet)), None, "{what}");
    }
    // A frame for everybody on the link, whatever address is in it; and one from a group.
    for at in [0, 6] {
        let mut frame = framed(&v4(V4[0], V4[1]));
        frame[at] |= 1;
        assert_eq!(reply::<[u8; 4]>(&frame), None);
    }
}

/// What a device does with a checksum that was left to it, from the transport header on.
fn complete(packet: &mut [u8], start: usize, field: usize) {
    let sum = checksum_of(&packet[start..]);
    packet[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// As a kernel leaves it: the sum of the pseudo-header.
fn leave(frame: &mut [u8], start: usize, field: usize) {
    let sum = !checksum_of(&pseudo_header(&frame[14..]));
    let at = 14 + start + field;
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn left_is_right<A: Rejectable>(packet: &PacketBuilder) {
    let network = usize::from(A::NETWORK);
    for flags in [SYN, ACK] {
        let mut frame = tcp_frame(packet.clone(), flags, 30);
        leave(&mut frame, network, 16);
        for toward in [Toward::Sender, Toward::Receiver] {
            let mut answer = answered::<A>(&frame, toward, Checksum::Left).unwrap();
            complete(&mut answer[14..], network, 16);
            let mut covered = answer[14 + network..].to_vec();
            covered.extend(pseudo_header(&answer[14..]));
            assert_eq!(checksum_of(&covered), 0);
        }
    }
    // The device completes the quote, some of which may have been cut off, and not the error.
    for data in [4, 30, 31, 1000] {
        let mut frame = framed(&packet.clone().udp(4000, 53).payload(data));
        leave(&mut frame, network, 6);
        let mut answer = answered::<A>(&frame, Toward::Sender, Checksum::Left).unwrap();
        let quoted = network + 8 + network;
        complete(&mut answer[14..], quoted, 6);
        is_sound::<A>(&answer, &frame);
    }
}

#[test]
fn a_checksum_that_is_left_to_the_device_comes_right_there() {
    left_is_right::<[u8; 4]>(&PacketBuilder::v4(V4[0], V4[1]));
    left_is_right::<[u8; 16]>(&PacketBuilder::v6(V6[0], V6[1]));
}

#[test]
fn the_answer_that_is_parsed_is_one_that_is_never_answered() {
    let frame = framed(&PacketBuilder::v4(V4[0], V4[1]).udp(1, 2));
    let answer = reply::<[u8; 4]>(&frame).unwrap();
    assert_eq!(reply::<[u8; 4]>(&answer), None);
    let reset = reply::<[u8; 4]>(&tcp_frame(PacketBuilder::v4(V4[0], V4[1]), SYN, 0)).unwrap();
    assert_eq!(reply::<[u8; 4]>(&reset), None);
    assert!(Reason::Rejection.action() == crate::verdict::Action::Allow);
}

fn rejections() -> Rejections {
    Rejections {
        due: Shared::new(0),
        sent: Shared::new(0),
        suppressed: Shared::new(0),
    }
}

#[test]
fn so_many_at_once_and_then_so_many_a_second() {
    const SECOND: u64 = 1_000_000_000;
    let rejections = rejections();
    let mut now = 5 * SECOND;
    let sent = |now, asked| (0..asked).filter(|_| rejections.may_send(now)).count();
    assert_eq!(sent(now, 1000), 100);
    now += SECOND / 2;
    assert_eq!(sent(now, 1000), 50);
    // However long nobody asks, no more than that gathers.
    now += 1000 * SECOND;
    assert_eq!(sent(now, 1000), 100);
    // Spread out, each is sent.
    for _ in 0..1000 {
        now += EACH;
        assert_eq!(sent(now, 1), 1);
    }
    let counted = (rejections.sent.get(), rejections.suppressed.get());
    assert_eq!(counted, (1250, 2750));
}

#[test]
fn each_endpoint_and_direction_has_a_slot() {
    assert_eq!(slot_of(0, Direction::Ingress), 0);
    assert_eq!(slot_of(0, Direction::Egress), 1);
    assert_eq!(slot_of(7, Direction::Ingress), 14);
    assert_eq!(slot_of(u16::MAX, Direction::Egress), 131_071);
}
