//! ICMP errors, which are about a flow.

use super::{
    Datapath, Sight,
    policy::{is_foreign, is_permitted},
};
use crate::{
    flow::FlowKey,
    parse::{Extent, Family, Headers, Packet},
    table::Direction,
};

/// Whether an ICMP error speaks, `at` so many bytes, about a flow that is live and still permitted.
///
/// It must go to the sender of the packet that it quotes, and come from an address that the endpoint
/// may use: otherwise any permitted flow would let its endpoint send to anybody.
#[inline(never)]
pub(super) fn is_related<A: Family, D: Datapath<A>>(
    datapath: &D,
    packet: &impl Packet,
    at: u16,
    error: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    let mut quoted = Headers::<A>::EMPTY;
    if A::whole(packet, usize::from(at), &mut quoted, Extent::Quoted).is_err() {
        return false;
    }
    // The error travels against the packet that it quotes.
    let key = FlowKey::new(sight.endpoint.id, &quoted, sight.direction.opposite());
    let is_astray = match sight.direction {
        Direction::Egress => error.remote != key.remote || is_foreign(datapath, error, sight),
        Direction::Ingress => error.local != key.local,
    };
    if is_astray {
        return false;
    }
    let Some(flow) = datapath.flow(&key) else {
        return false;
    };
    flow.generation.get() == sight.word.generation()
        || is_permitted(datapath, &key, sight, flow.origin)
}
