//! What a host says of a packet as a cgroup's program sees it.
//!
//! Without an Ethernet header, so what is not IP is not looked at; whole, so a piece is dropped; and never known
//! to be of the node's own making.

use agent_common::{
    decide::Tables,
    judge::{Sight, judge, unparsed, unreadable},
    parse::{Headers, Network, network, parse},
    table::{Direction, Endpoint},
    testing::{FamilyFlows, Slice, Twin},
    verdict::{Reason, Verdict},
};
use agent_policy::compiled::At;

use crate::Held;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

pub(crate) fn judged(
    twin: &Twin<Held>,
    endpoint: Endpoint,
    direction: Direction,
    frame: &[u8],
) -> Verdict {
    match network(&Slice(frame)) {
        Network::V4 => of_family::<[u8; 4]>(twin, endpoint, direction, frame),
        Network::V6 => of_family::<[u8; 16]>(twin, endpoint, direction, frame),
        Network::Arp | Network::Other | Network::Short => {
            let sight = sight(twin, endpoint, direction, frame);
            unreadable::<[u8; 4], _>(twin, &sight, Reason::NotIp)
        }
    }
}

fn of_family<A: FamilyFlows>(
    twin: &Twin<Held>,
    endpoint: Endpoint,
    direction: Direction,
    frame: &[u8],
) -> Verdict
where
    for<'c> At<'c>: Tables<A>,
{
    let sight = sight(twin, endpoint, direction, frame);
    let packet = Slice(frame);
    let mut headers = Headers::<A>::EMPTY;
    match parse(&packet, ETHERNET, &mut headers) {
        Ok(()) => judge(twin, &packet, &headers, &sight),
        Err(reason) => unparsed(twin, &headers, &sight, reason),
    }
}

fn sight(twin: &Twin<Held>, endpoint: Endpoint, direction: Direction, frame: &[u8]) -> Sight {
    Sight {
        ifindex: 0,
        ..twin.sight(endpoint, direction, frame.len() - ETHERNET, false)
    }
}
