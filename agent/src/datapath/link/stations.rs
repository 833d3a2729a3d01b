//! Whom frames to an endpoint are addressed to: link addresses behind an interface, as far as this node knows them.

use std::{collections::BTreeSet, io, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use crate::datapath::{
    link::{Link, LinkError, by_index, failed, first},
    netlink,
};

/// What this node knows of its neighbours at one moment.
#[derive(Debug, Default)]
pub(crate) struct Stations(Vec<Station>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Station {
    /// The interface that it was seen at.
    interface: u32,
    /// Bridges know none.
    address: Option<IpAddr>,
    mac: [u8; 6],
}

/// At one interface, at most: more than a few are a bridge of somebody else's behind it.
const MOST: usize = 8;

impl Stations {
    /// From the tables of neighbours, of both families, and of bridges.
    pub(crate) fn list() -> Result<Self, LinkError> {
        let mut stations = Vec::new();
        for family in [AddressFamily::Unspec, AddressFamily::Bridge] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let found = netlink::dump(RouteNetlinkMessage::GetNeighbour(request));
            let found = found.map_err(failed("list neighbours"))?;
            stations.extend(found.into_iter().filter_map(|object| match object {
                Ok(RouteNetlinkMessage::NewNeighbour(message)) => station(family, &message),
                // One that cannot be read is not asked.
                Ok(_) | Err(_) => None,
            }));
        }
        Ok(Self(stations))
    }

    /// Who may have an address behind an interface: the likeliest first.
    pub(crate) fn behind(&self, link: &Link, address: IpAddr) -> Vec<[u8; 6]> {
        let Self(stations) = self;
        let of = |wanted: &dyn Fn(&Station) -> bool| -> Vec<[u8; 6]> {
            let stations = stations.iter().filter(|station| wanted(station));
            stations.map(|station| station.mac).collect()
        };
        // A bridge has the address for a neighbour, and its port leads there.
        let by_address = of(&|station| station.address == Some(address));
        let by_interface = of(&|station| station.interface == link.index);
        let mut seen = BTreeSet::new();
        let all = by_address
            .into_iter()
            .chain(far_end(link))
            .chain(by_interface);
        all.filter(|mac| Some(*mac) != link.mac && seen.insert(*mac))
            .take(MOST)
            .collect()
    }
}

fn station(family: AddressFamily, message: &NeighbourMessage) -> Option<Station> {
    // Of a bridge, a permanent one is its port's own.
    if family == AddressFamily::Bridge && message.header.state == NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let mac = mac.filter(|mac: &[u8; 6]| is_of_one(*mac))?;
    Some(Station {
        interface: message.header.ifindex,
        address,
        mac,
    })
}

/// Neither a group's nor nobody's.
fn is_of_one(mac: [u8; 6]) -> bool {
    let [first, ..] = mac;
    first & 1 == 0 && mac != [0; 6]
}

/// The link address of a veth's other end, wherever it is.
fn far_end(link: &Link) -> Option<[u8; 6]> {
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let found = match link.leads_to_netns {
        None => by_index(link.leads_to?),
        Some(namespace) => there(link.leads_to?, namespace),
    };
    match found {
        Ok(far) => far.mac,
        Err(error) => {
            tracing::debug!(interface = link.name, %error, "the other end is not seen");
            None
        }
    }
}

/// An interface in another namespace, which the kernel tells of without going there (Linux 4.20).
fn there(index: u32, namespace: i32) -> Result<Link, LinkError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes.push(LinkAttribute::IfNetnsId(namespace));
    let found = netlink::get(RouteNetlinkMessage::GetLink(request));
    let found = found.map_err(failed("look into another namespace"))?;
    first(&found)
        .ok_or(io::ErrorKind::NotFound.into())
        .map_err(failed("look into another namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link() -> Link {
        Link {
            index: 7,
            name: "tap0".to_owned(),
            kind: Some("tun".to_owned()),
            leads_to: None,
            leads_to_netns: None,
            hardware: 1,
            mac: Some(OWN),
            is_up: true,
        }
    }

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 1, last]
    }

    fn at(interface: u32, address: Option<&str>, mac: [u8; 6]) -> Station {
        Station {
            interface,
            address: address.map(|text| text.parse().unwrap()),
            mac,
        }
    }

    #[test]
    fn who_has_the_address_is_asked_before_who_else_is_there() {
        let stations = Stations(vec![
            at(7, None, mac(1)),
            at(7, Some("10.0.0.9"), mac(2)),
            at(3, Some("10.0.0.1"), mac(3)),
            at(3, Some("10.0.0.2"), mac(4)),
            at(7, None, mac(3)),
            at(7, None, OWN),
        ]);
        let asked = stations.behind(&link(), "10.0.0.1".parse().unwrap());
        assert_eq!(asked, [mac(3), mac(1), mac(2)]);
    }

    #[test]
    fn of_many_a_few_are_asked() {
        let stations = Stations((0..100).map(|last| at(7, None, mac(last))).collect());
        let asked = stations.behind(&link(), "10.0.0.1".parse().unwrap());
        assert_eq!(asked.len(), MOST);
    }

    #[test]
    fn groups_and_nobody_are_no_stations() {
        for nobody in [[0; 6], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
            assert!(!is_of_one(nobody), "{nobody:?}");
        }
        assert!(is_of_one(mac(1)));
    }
}
