//! Endpoints that get their addresses by DHCP (RFC 2131, RFC 8415), whatever policy says.

use crate::{
    flow::FlowKey,
    judge::{Datapath, Sight},
    parse::Family,
    protocol::{self, Address},
    table::{Direction, Endpoint},
};

/// Whether a packet is not to be judged by its flow and policy alone.
#[inline(always)]
pub(crate) fn may_be_dhcp<A>(key: &FlowKey<A>, endpoint: Endpoint) -> bool {
    endpoint.has(Endpoint::DHCP_CLIENT) && key.protocol == protocol::UDP
}

/// Whether what [`may_be_dhcp`] is: the endpoint asks for its configuration, or is told it.
///
/// Judged packet by packet: the answer comes from another address than was asked, and to one that the
/// endpoint has not got yet. A function of its own, to spare the stack of those that judge.
#[inline(never)]
pub(crate) fn is_dhcp<A: Family, D: Datapath<A>>(
    datapath: &D,
    key: &FlowKey<A>,
    sight: &Sight,
) -> bool {
    if (key.local_port, key.remote_port) != A::DHCP_PORTS {
        return false;
    }
    let sends = matches!(sight.direction, Direction::Egress);
    if A::FAMILY == 4 {
        return match sends {
            true if key.local == A::UNSPECIFIED => key.remote == A::DHCP_SERVERS,
            // Who has an address yet asks, and is told, by that one.
            false if key.local == A::DHCP_SERVERS => true,
            true | false => datapath.owns(sight.endpoint, &key.local),
        };
    }
    is_of_link(&key.local)
        && if sends {
            key.remote == A::DHCP_SERVERS
        } else {
            is_of_link(&key.remote)
        }
}

#[inline(always)]
fn is_of_link<A: Address>(address: &A) -> bool {
    address.is_local_scope() && *address != A::UNSPECIFIED
}
