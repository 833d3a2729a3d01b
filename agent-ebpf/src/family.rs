//! From a packet of one family to its verdict.

use agent_common::{
    fragment,
    judge::{Sight, judge, unparsed},
    parse::{Class, Extent, Family, Headers},
    verdict::{Reason, Verdict},
};

use crate::{
    datapath::{FamilyMaps, Maps, indistinct},
    packet::Buffer,
    sockets::Sockets,
    verifier::forgotten,
};

/// Judges the packet whose network header begins at `offset`.
#[inline(always)]
pub(crate) fn judge_family<A: FamilyMaps + Family, S: Sockets>(
    maps: &Maps<S>,
    packet: &Buffer,
    offset: usize,
    sight: &Sight,
) -> Verdict {
    let mut headers = Headers::<A>::EMPTY;
    if !A::plain(packet, offset, &mut headers) {
        let mut read = Headers::<A>::EMPTY;
        if let Err(reason) = A::whole(packet, offset, &mut read, Extent::Whole) {
            let is_piece = S::PIECES && matches!(reason, Reason::Fragment);
            if !is_piece || !fragment::follow(maps, packet, offset, &mut read, sight) {
                return unparsed(maps, &read, sight, reason);
            }
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
    let begins_pieces = S::PIECES && indistinct(headers.begins_pieces());
    let verdict = judge(maps, packet, &headers, sight);
    if begins_pieces && verdict.allows() {
        fragment::remember::<A, _>(maps, packet, offset, sight);
    }
    verdict
}
