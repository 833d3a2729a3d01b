//! Has the agent know what endpoints ask their resolvers, and what those answer, see `agent_common::dns`.

use agent_common::{
    dns::{DnsHead, DnsPacket, LONG, SHORT, Spoken},
    event::Loss,
    flow::FlowKey,
    parse::{Family, Headers, Packet},
    protocol::{Address, TCP},
    table::Direction,
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns, generated::bpf_skb_load_bytes},
    macros::map,
    maps::{Array, RingBuf},
};
use network_types::{eth::EthHdr, udp::UdpHdr};

use crate::{datapath::lose, packet::Buffer, verifier::forgotten};

/// Whether it is to know, set by the agent when it loads the programs.
#[unsafe(no_mangle)]
static NAMES: u32 = 0;

/// Apart from events: whoever floods a resolver is to cost nobody a record.
#[map]
pub(crate) static DNS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Endpoint → how much of it was told of late, see [`Spoken`].
#[map]
pub(crate) static SPOKEN: Array<u64> = Array::with_max_entries(1024, 0);

/// Of TCP: its own length in words, in the upper half.
const DATA_OFFSET: usize = 12;

/// What differs between the families: which function Linux verifies, by itself and once.
pub(crate) trait Tells: Family {
    /// `offset` is where the network header begins.
    fn tell(context: *mut __sk_buff, endpoint: u16, direction: Direction, offset: usize);
}

impl Tells for [u8; 4] {
    #[inline(always)]
    fn tell(context: *mut __sk_buff, endpoint: u16, direction: Direction, offset: usize) {
        let _done = heard_v4(context, endpoint.into(), direction as u32, offset as u64);
    }
}

impl Tells for [u8; 16] {
    #[inline(always)]
    fn tell(context: *mut __sk_buff, endpoint: u16, direction: Direction, offset: usize) {
        let _done = heard_v6(context, endpoint.into(), direction as u32, offset as u64);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn heard_v4(context: *mut __sk_buff, endpoint: u32, direction: u32, offset: u64) -> u32 {
    heard::<[u8; 4]>(context, endpoint, direction, offset)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn heard_v6(context: *mut __sk_buff, endpoint: u32, direction: u32, offset: u64) -> u32 {
    heard::<[u8; 16]>(context, endpoint, direction, offset)
}

#[inline(always)]
fn heard<A: Family>(context: *mut __sk_buff, endpoint: u32, direction: u32, offset: u64) -> u32 {
    // SAFETY: a static of our own; volatile, because the agent changes it before the load.
    if unsafe { (&raw const NAMES).read_volatile() } == 0 {
        return 0;
    }
    // Behind an Ethernet header, or at once: nothing that the verifier would have to trust.
    let offset = if offset == 0 { 0 } else { EthHdr::LEN };
    let packet = &Buffer::new(context);
    let mut headers = Headers::<A>::EMPTY;
    if !A::plain(packet, offset, &mut headers) {
        return 0;
    }
    let transport = offset + A::PLAIN;
    let header = if headers.protocol == TCP {
        let Some(words) = packet.load::<u8>(transport + DATA_OFFSET) else {
            return 0;
        };
        usize::from(words >> 4) * 4
    } else {
        UdpHdr::LEN
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a packet is shorter than 4 GiB"
    )]
    let payload = (transport + header) as u32;
    // SAFETY: the kernel passes a valid context to the program.
    let length = unsafe { (*context).len }.saturating_sub(payload);
    if length == 0 {
        return 0;
    }
    let direction = if direction == Direction::Egress as u32 {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let [low, high, ..] = endpoint.to_le_bytes();
    let key = &FlowKey::new(u16::from_le_bytes([low, high]), &headers, direction);
    let told = has_turn(endpoint)
        && if length as usize <= SHORT {
            put::<A, SHORT>(context, key, direction, payload, length)
        } else if length as usize <= LONG {
            put::<A, LONG>(context, key, direction, payload, length)
        } else {
            false
        };
    if !told {
        lose(Loss::Name);
    }
    0
}

/// Whether an endpoint has said less than its share of late. Two processors may count one for two.
#[inline(always)]
fn has_turn(endpoint: u32) -> bool {
    let Some(word) = SPOKEN.get_ptr_mut(endpoint) else {
        return false;
    };
    // SAFETY: a helper without arguments; and a word of the map's, which is read and written at once.
    unsafe {
        let (has_turn, next) = Spoken(word.read_volatile()).next(bpf_jiffies64());
        word.write_volatile(next.0);
        has_turn
    }
}

/// Whether there was room for it.
#[inline(always)]
fn put<A: Address, const ROOM: usize>(
    context: *mut __sk_buff,
    key: &FlowKey<A>,
    direction: Direction,
    payload: u32,
    length: u32,
) -> bool {
    const { assert!(ROOM.is_power_of_two()) };
    let Some(mut room) = DNS.reserve::<DnsPacket<ROOM>>(0) else {
        return false;
    };
    // SAFETY: memory of the map's, valid for any bytes as every layout of the contract is.
    let packet = unsafe { room.assume_init_mut() };
    fill(&mut packet.head, key, direction, length);
    // SAFETY: a helper without arguments.
    let unknown = unsafe { bpf_jiffies64() };
    // The verifier is to see that it is between one byte and all that there is room for.
    let bytes = (forgotten(u64::from(length) - 1, unknown) & (ROOM as u64 - 1)) + 1;
    #[expect(clippy::cast_possible_truncation, reason = "at most the room")]
    let bytes = bytes as u32;
    // SAFETY: the kernel passes a valid context to the program; as many bytes as there is room for, valid as any.
    let read = unsafe {
        bpf_skb_load_bytes(
            context.cast(),
            payload,
            packet.payload.as_mut_ptr().cast(),
            bytes,
        )
    };
    if read != 0 {
        room.discard(0);
        return false;
    }
    room.submit(0);
    true
}

#[inline(always)]
fn fill<A: Address>(head: &mut DnsHead, key: &FlowKey<A>, direction: Direction, length: u32) {
    head.endpoint = key.endpoint;
    head.protocol = key.protocol;
    head.direction = direction as u8;
    head.local_port = key.local_port;
    head.family = A::FAMILY;
    head.zero = 0;
    head.length = length;
    head.zero2 = 0;
    // SAFETY: a helper without arguments.
    head.time = unsafe { bpf_ktime_get_boot_ns() };
    head.local = key.local.mapped();
    head.remote = key.remote.mapped();
}
