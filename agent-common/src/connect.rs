//! A connection that a socket asks for, before there is a packet of it.
//!
//! Of an endpoint by cgroup a denied packet is dropped, and the kernel takes that for a loss: who connects
//! waits for a time-out. Asked here it is refused at once, if policy says `reject`. Only what is sure to be
//! denied: where the packet may come to be another, its hook is to judge.

use crate::{
    flow::{FlowKey, tcp},
    judge::{Datapath, Facts, Sight, answer_to, is_spared, refuse},
    protocol,
    rejection::Rejectable,
    table::{NO_SOCKET, THIS_NODE, TRANSLATED},
};

/// Whether a TCP socket of the endpoint is refused a connection; it is then counted and reported as its
/// first packet would have been.
///
/// The source address and port have not been chosen yet, and policy asks for neither. Left to the
/// packet are: what stays on this node, or may, because there the other socket has a say
/// ([ADR 16](../../agent/docs/adr/0016-sockets-of-one-node.md)); and a Service's address, which may be
/// translated after this.
#[inline(always)]
pub fn refuses<A: Rejectable, D: Datapath<A>>(
    datapath: &D,
    sight: &Sight,
    remote: A,
    remote_port: u16,
) -> bool {
    // Loopback, under whichever name, and what no connection can be made to.
    if is_spared(sight) || !remote.is_one_host() || datapath.owns(sight.endpoint, &remote) {
        return false;
    }
    let identity = datapath.identity(&remote).at(sight.word);
    if identity & (THIS_NODE | TRANSLATED) != 0 {
        return false;
    }
    let key = FlowKey {
        endpoint: sight.endpoint.id,
        protocol: protocol::TCP,
        zero: 0,
        local_port: 0,
        remote_port,
        local: A::UNSPECIFIED,
        remote,
    };
    // Of no origin but that the endpoint begins.
    let verdict = answer_to(datapath, &key, sight, 0, NO_SOCKET);
    if verdict.allows() || !verdict.rejects() {
        return false;
    }
    // Whatever comes of it, it was denied.
    !refuse(datapath, &key, sight, Facts::of_flags(tcp::SYN), verdict).allows()
}

#[cfg(test)]
mod tests;
