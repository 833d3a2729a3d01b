//! Which flows of the table policy no longer permits, without waiting for their next packet.

use crate::{
    flow::{Flow, FlowKey, Side, tcp},
    judge::{Datapath, Sight, is_permitted},
    parse::Family,
    protocol,
    table::{Direction, Endpoint, Word},
    verdict::Reason,
};

/// Beside an endpoint's flags, which have 16 bits: its flows are to be looked at.
pub const TOUCHED: u32 = 1 << 16;

/// Whether a flow is one of sockets, and the endpoint's word no longer permits it.
///
/// Nothing is changed: the next packet of the flow finds the same by itself, and reports it.
#[inline(always)]
pub fn is_withdrawn<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    flow: &Flow,
    endpoint: Endpoint,
    word: Word,
) -> bool {
    let has_sockets = key.protocol == protocol::TCP || key.protocol == protocol::UDP;
    // Who began one that was taken up in the middle is a guess.
    let is_known = flow.origin & Flow::ADOPTED == 0;
    if !has_sockets || !is_known || flow.generation.get() == word.generation() || has_ended(flow) {
        return false;
    }
    let sight = Sight {
        endpoint,
        word,
        // Of no packet: what is asked is in the flow.
        direction: Direction::Egress,
        length: 0,
        made_here: false,
        ifindex: 0,
    };
    !is_permitted(datapath, key, &sight, flow.origin)
}

/// One that a packet has found revoked since has not, until the endpoint takes leave of it: its socket is there
/// still.
#[inline(always)]
fn has_ended(flow: &Flow) -> bool {
    // By name: the kernel's iterators read a flow at fixed places alone.
    let [initiator, responder] = &flow.tcp_flags;
    let own = match flow.side(Direction::Egress) {
        Side::Initiator => initiator,
        Side::Responder => responder,
    };
    let has_left = own.get() & tcp::RST != 0;
    flow.closed.get() != 0 && (flow.reason.get() != Reason::Revoked as u8 || has_left)
}
