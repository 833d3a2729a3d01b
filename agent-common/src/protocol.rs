//! Protocol numbers and address families.

use core::{fmt::Debug, hash::Hash};

use network_types::ip::IpProto;

pub const ICMP: u8 = IpProto::Icmp as u8;
pub const TCP: u8 = IpProto::Tcp as u8;
pub const UDP: u8 = IpProto::Udp as u8;
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
pub const SCTP: u8 = IpProto::Sctp as u8;

/// An address of one family, in network byte order.
pub trait Address: Copy + Eq + Ord + Hash + Debug + 'static {
    /// 4 or 6.
    const FAMILY: u8;
    const BITS: u32;
    const UNSPECIFIED: Self;

    /// Whom a DHCP client asks that knows no server: everybody, or all servers and relays of its link
    /// (RFC 2131, 4.1; RFC 8415, 7.1).
    const DHCP_SERVERS: Self;
    /// The ports of DHCP, of a client and of a server (RFC 2131, 4.1; RFC 8415, 7.2).
    const DHCP_PORTS: (u16, u16);

    /// The address as IPv6 sees it; IPv4 becomes `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
    fn mapped(self) -> [u8; 16];

    /// Unspecified, or valid on one link only: an interface may always send from these, though not to themselves.
    fn is_local_scope(&self) -> bool;
}

impl Address for [u8; 4] {
    const FAMILY: u8 = 4;
    const BITS: u32 = 32;
    const UNSPECIFIED: Self = [0; 4];
    const DHCP_SERVERS: Self = [255; 4];
    const DHCP_PORTS: (u16, u16) = (68, 67);

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        // As one number: an array of bytes would be written byte by byte.
        (0xffff_0000_0000 | u128::from(u32::from_be_bytes(self))).to_be_bytes()
    }

    #[inline(always)]
    fn is_local_scope(&self) -> bool {
        let [a, b, ..] = *self;
        *self == Self::UNSPECIFIED || (a == 169 && b == 254)
    }
}

impl Address for [u8; 16] {
    const FAMILY: u8 = 6;
    const BITS: u32 = 128;
    const UNSPECIFIED: Self = [0; 16];
    const DHCP_SERVERS: Self = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
    const DHCP_PORTS: (u16, u16) = (546, 547);

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        self
    }

    #[inline(always)]
    fn is_local_scope(&self) -> bool {
        let [a, b, ..] = *self;
        *self == Self::UNSPECIFIED || (a == 0xfe && b & 0xc0 == 0x80)
    }
}
