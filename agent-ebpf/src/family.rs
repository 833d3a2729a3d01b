//! From a packet of one family to its verdict.

use agent_common::{
    judge::{Sight, judge, unparsed},
    parse::{Class, Extent, Family, Headers},
    verdict::Verdict,
};

use crate::{
    datapath::{FamilyMaps, Maps},
    packet::Buffer,
    sockets::Sockets,
    verifier::forgotten,
};

/// Judges the packet whose network header begins at `offset`.
#[inline(always)]
pub(crate) fn judge_family<A: FamilyMaps + Family>(
    maps: &Maps<impl Sockets>,
    packet: &Buffer,
    offset: usize,
    sight: &Sight,
) -> Verdict {
    let mut headers = Headers::<A>::EMPTY;
    if !A::plain(packet, offset, &mut headers) {
        let mut read = Headers::<A>::EMPTY;
        if let Err(reason) = A::whole(packet, offset, &mut read, Extent::Whole) {
            return unparsed(maps, &read, sight, reason);
        }
        headers = read;
    }
    let Headers {
        protocol,
        tcp_flags,
        class,
        ..
    } = headers;
    let facts = u32::from_le_bytes([protocol, tcp_flags, class as u8, 0]);
    #[expect(clippy::cast_possible_truncation, reason = "32 bits went in")]
    let facts = forgotten(u64::from(facts), u64::from(sight.length)) as u32;
    let [protocol, tcp_flags, class, _] = facts.to_le_bytes();
    headers.protocol = protocol;
    headers.tcp_flags = tcp_flags;
    // SAFETY: the number of a `Class`, as before.
    headers.class = unsafe { core::mem::transmute::<u8, Class>(class) };
    judge(maps, packet, &headers, sight)
}
