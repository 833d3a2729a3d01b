//! Has the agent know what endpoints ask their resolvers, and what those answer, see `agent_common::dns`.

use agent_common::{
    dns::{DnsHead, DnsPacket, LONG, SHORT},
    event::Loss,
    judge::Sight,
    parse::{Headers, Packet},
    protocol::{Address, TCP},
    table::Direction,
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns, generated::bpf_skb_load_bytes},
    macros::map,
    maps::RingBuf,
};

use crate::{datapath::lose, packet::Buffer, verifier::forgotten};

/// Whether it is to know, set by the agent when it loads the programs.
#[unsafe(no_mangle)]
static NAMES: u32 = 0;

/// Apart from events: whoever floods a resolver is to cost nobody a record.
#[map]
pub(crate) static DNS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

const UDP_HEADER: usize = 8;
/// Of TCP: its own length in words, in the upper half.
const DATA_OFFSET: usize = 12;

/// A function of its own, for those who judge have no room on the stack. `transport` is where the header of TCP or
/// UDP begins.
#[inline(never)]
pub(crate) fn tell<A: Address>(
    context: *mut __sk_buff,
    headers: &Headers<A>,
    sight: &Sight,
    transport: usize,
) {
    // SAFETY: a static of our own; volatile, because the agent changes it before the load.
    if unsafe { (&raw const NAMES).read_volatile() } == 0 {
        return;
    }
    let header = if headers.protocol == TCP {
        let Some(words) = Buffer::new(context).load::<u8>(transport + DATA_OFFSET) else {
            return;
        };
        usize::from(words >> 4) * 4
    } else {
        UDP_HEADER
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a packet is shorter than 4 GiB"
    )]
    let payload = (transport + header) as u32;
    // SAFETY: the kernel passes a valid context to the program.
    let length = unsafe { (*context).len }.saturating_sub(payload);
    if length == 0 {
        return;
    }
    let told = if length as usize <= SHORT {
        put::<A, SHORT>(context, headers, sight, payload, length)
    } else if length as usize <= LONG {
        put::<A, LONG>(context, headers, sight, payload, length)
    } else {
        false
    };
    if !told {
        lose(Loss::Name);
    }
}

/// Whether there was room for it.
#[inline(always)]
fn put<A: Address, const ROOM: usize>(
    context: *mut __sk_buff,
    headers: &Headers<A>,
    sight: &Sight,
    payload: u32,
    length: u32,
) -> bool {
    const { assert!(ROOM.is_power_of_two()) };
    let Some(mut room) = DNS.reserve::<DnsPacket<ROOM>>(0) else {
        return false;
    };
    // SAFETY: memory of the map's, valid for any bytes as every layout of the contract is.
    let packet = unsafe { room.assume_init_mut() };
    fill(&mut packet.head, headers, sight, length);
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
fn fill<A: Address>(head: &mut DnsHead, headers: &Headers<A>, sight: &Sight, length: u32) {
    let Headers {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        ..
    } = *headers;
    let (local, remote, local_port) = match sight.direction {
        Direction::Egress => (source, destination, source_port),
        Direction::Ingress => (destination, source, destination_port),
    };
    head.endpoint = sight.endpoint.id;
    head.protocol = protocol;
    head.direction = sight.direction as u8;
    head.local_port = local_port;
    head.family = A::FAMILY;
    head.zero = 0;
    head.length = length;
    head.zero2 = 0;
    // SAFETY: a helper without arguments.
    head.time = unsafe { bpf_ktime_get_boot_ns() };
    head.local = local.mapped();
    head.remote = remote.mapped();
}
