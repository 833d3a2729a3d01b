//! Another packet each time, for the benchmark: the kernel repeats one packet as it is.
//!
//! The program changes addresses and ports where they stand and goes on with the program under
//! test, which is the very one that ships. The same with an empty program behind it is what must
//! be subtracted.

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    macros::{classifier, map},
    maps::{Array, ProgramArray},
    programs::TcContext,
};
use network_types::eth::EthHdr;

/// The random state; how many peers there are; whether ports change, by one or at random; and how many bits
/// there are below a peer's network.
#[map]
static ROTATION: Array<u64> = Array::with_max_entries(4, 0);

/// What comes next.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Ports are not the next ones.
const AT_RANDOM: u64 = 2;

/// Where networks are scattered: 24 bits below the first byte of an IPv4 address.
const PEER_BITS: u32 = 24;

#[classifier]
pub(crate) fn rotate(context: TcContext) -> i32 {
    if turn(&context).is_none() {
        return TC_ACT_SHOT;
    }
    // SAFETY: the map holds programs of this type alone; it returns only if there is none.
    unsafe { NEXT.tail_call(&context, 0) };
    TC_ACT_SHOT
}

#[inline(always)]
fn turn(context: &TcContext) -> Option<()> {
    let state = ROTATION.get_ptr_mut(0)?;
    let (peers, ports, host_bits) = (*ROTATION.get(1)?, *ROTATION.get(2)?, *ROTATION.get(3)?);
    // SAFETY: one program runs at a time.
    let random = unsafe {
        // The generator of Knuth's MMIX: its upper bits are good.
        *state = (*state)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 32
    };
    // SAFETY: the kernel passes a valid context to the program.
    let (start, end) = unsafe {
        (
            (*context.skb.skb).data as usize,
            (*context.skb.skb).data_end as usize,
        )
    };
    let network = start + EthHdr::LEN;
    if network + 44 > end {
        return None;
    }
    // SAFETY: within the linear part, as just checked.
    let is_v4 = unsafe { (network as *const u8).read() } >> 4 == 4;
    let (peer, port) = if is_v4 { (16, 20) } else { (28, 40) };
    if peers > 0 {
        let number = (random * peers) >> 32;
        let below = random & ((1 << (host_bits & 31)) - 1);
        let address = (scattered(number) << (host_bits & 31)) | below;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower bits are what is wanted"
        )]
        let bytes = ((address as u32) & ((1 << PEER_BITS) - 1) | (10 << PEER_BITS)).to_be();
        // SAFETY: as above.
        unsafe { ((network + peer) as *mut u32).write_unaligned(bytes) };
    }
    if ports > 0 {
        let at = (network + port) as *mut u16;
        // SAFETY: as above.
        unsafe {
            let next = if ports == AT_RANDOM {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "some bits are what is wanted"
                )]
                let some = (random >> 8) as u16;
                some
            } else {
                u16::from_be(at.read_unaligned()).wrapping_add(1)
            };
            at.write_unaligned(next.to_be());
        }
    }
    Some(())
}

/// Networks are told apart by their number, and are not neighbours.
#[inline(always)]
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b1)
}
