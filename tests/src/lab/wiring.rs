//! How peers are joined to the host, and the addresses of the lab's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::lab::{Netns, Peer};

pub(super) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

// Documentation prefixes: if a packet ever left the lab, no router would carry it.
const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);
pub(super) const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

/// The two layouts that container networks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// As Docker and the CNI plugin `bridge`: peers are ports of `br0`, which holds the gateway.
    Bridged,
    /// As the CNI plugin `ptp`: the gateway's address on every host side, a host route to each.
    Routed,
}

impl Wiring {
    pub(super) fn prepare(self, host: &Netns) -> Result<()> {
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv6/conf/all/forwarding", "1")?;
        match self {
            Self::Routed => Ok(()),
            // An address of its own: else the bridge takes the lowest of its ports', changes it when
            // a port joins, and peers go on sending to the old one. Without a querier, snooping
            // may take a while to let neighbour discovery through.
            Self::Bridged => host.ip(&format!(
                "link add br0 address 02:00:00:00:77:01 type bridge mcast_snooping 0\n\
                 link set br0 addrgenmode none up\n\
                 addr add {GATEWAY_V4}/24 dev br0\n\
                 addr add {GATEWAY_V6}/64 dev br0 nodad\n"
            )),
        }
    }

    pub(super) fn join(self, host: &Netns, peer: &Peer) -> Result<()> {
        let Peer {
            interface, v4, v6, ..
        } = peer;
        connect(host, peer)?;
        match self {
            Self::Bridged => {
                host.ip(&format!("link set {interface} master br0"))?;
                peer.ip(&format!(
                    "addr add {v4}/24 dev eth0\n\
                     addr add {v6}/64 dev eth0 nodad\n"
                ))?;
            }
            Self::Routed => {
                host.ip(&format!(
                    "addr add {GATEWAY_V4}/32 dev {interface}\n\
                     addr add {GATEWAY_V6}/128 dev {interface} nodad\n\
                     route add {v4}/32 dev {interface}\n\
                     route add {v6}/128 dev {interface}\n"
                ))?;
                peer.ip(&format!(
                    "addr add {v4}/32 dev eth0\n\
                     addr add {v6}/128 dev eth0 nodad\n\
                     route add {GATEWAY_V4}/32 dev eth0\n\
                     route add {GATEWAY_V6}/128 dev eth0\n"
                ))?;
            }
        }
        default_routes(peer, GATEWAY_V4, GATEWAY_V6)
    }
}

pub(super) fn join_outside(host: &Netns, peer: &Peer) -> Result<()> {
    connect(host, peer)?;
    host.ip(&format!(
        "addr add {UPLINK_V4}/24 dev {interface}\n\
         addr add {UPLINK_V6}/64 dev {interface} nodad\n",
        interface = peer.interface()
    ))?;
    peer.ip(&format!(
        "addr add {OUTSIDE_V4}/24 dev eth0\n\
         addr add {OUTSIDE_V6}/64 dev eth0 nodad\n"
    ))?;
    default_routes(peer, UPLINK_V4, UPLINK_V6)
}

/// A veth pair, both ends up, without addresses.
///
/// A peer that comes back has the hardware address that it had: others still remember it.
fn connect(host: &Netns, peer: &Peer) -> Result<()> {
    let (interface, namespace) = (peer.interface(), peer.name());
    let [_, _, _, number] = peer.v4.octets();
    host.ip(&format!(
        "link add {interface} type veth peer name eth0 address 02:00:00:00:78:{number:02x} \
         netns {namespace}\n\
         link set {interface} addrgenmode none up\n"
    ))?;
    peer.ip("link set eth0 addrgenmode none up\n")
}

fn default_routes(peer: &Peer, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    peer.ip(&format!(
        "route add default via {v4}\nroute add default via {v6} dev eth0\n"
    ))
}
