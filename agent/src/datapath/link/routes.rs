//! Where the node's own traffic leaves.

use std::{collections::BTreeSet, io};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};

use crate::datapath::{
    link::{LinkError, failed},
    netlink,
};

/// The interfaces that a default route of the calling thread's network namespace leads to, in whichever
/// table and of whichever family.
pub(crate) fn uplinks() -> Result<BTreeSet<u32>, LinkError> {
    let mut uplinks = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let found = netlink::dump(RouteNetlinkMessage::GetRoute(request));
        for object in found.map_err(failed("list routes"))? {
            // One that cannot be read may be the one.
            let object = object
                .map_err(io::Error::other)
                .map_err(failed("read a route"))?;
            if let RouteNetlinkMessage::NewRoute(route) = object
                && route.header.destination_prefix_length == 0
            {
                uplinks.extend(leads_to(&route));
            }
        }
    }
    Ok(uplinks)
}

fn leads_to(route: &RouteMessage) -> impl Iterator<Item = u32> {
    route.attributes.iter().flat_map(|attribute| {
        let (one, several) = match attribute {
            RouteAttribute::Oif(index) => (Some(*index), [].as_slice()),
            RouteAttribute::MultiPath(hops) => (None, hops.as_slice()),
            _ => (None, [].as_slice()),
        };
        let several = several.iter().map(|hop| hop.interface_index);
        one.into_iter().chain(several)
    })
}
