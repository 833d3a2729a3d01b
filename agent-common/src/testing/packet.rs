//! Packets, by what they are: addresses, options, extension headers, fragments, transport.
//!
//! Lengths are right unless a test cuts the packet; checksums are zero, because nobody on this
//! path looks at them.

use std::{vec, vec::Vec};

use network_types::eth::EtherType;

use crate::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// Next-header numbers of IPv6 extensions.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;

/// Where frames come from unless they say otherwise.
pub const LINK: [u8; 6] = [2; 6];

/// A packet in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketBuilder {
    network: Network,
    protocol: u8,
    transport: Vec<u8>,
    /// Which packet a fragment is of.
    number: u16,
    /// Hop limit or time to live, if not what a host would set.
    hops: Option<u8>,
    /// Where the frame says that it comes from.
    link: [u8; 6],
    /// Whom it is for.
    to: [u8; 6],
    /// Bytes of the frame that are left in the end.
    cut: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    V4 {
        source: [u8; 4],
        destination: [u8; 4],
        options: Vec<u8>,
        fragment: u16,
        version_and_length: Option<u8>,
    },
    V6 {
        source: [u8; 16],
        destination: [u8; 16],
        extensions: Vec<(u8, Vec<u8>)>,
        version: u8,
    },
    Other(u16),
}

impl PacketBuilder {
    pub fn v4(source: [u8; 4], destination: [u8; 4]) -> Self {
        Self::of(Network::V4 {
            source,
            destination,
            options: Vec::new(),
            fragment: 0,
            version_and_length: None,
        })
    }

    pub fn v6(source: [u8; 16], destination: [u8; 16]) -> Self {
        Self::of(Network::V6 {
            source,
            destination,
            extensions: Vec::new(),
            version: 6,
        })
    }

    /// A message of ARP: 1 asks, 2 answers. Its sender has the link address [`LINK`].
    pub fn arp(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Self {
        let mut message = vec![0, 1, 8, 0, 6, 4];
        message.extend(operation.to_be_bytes());
        message.extend(LINK);
        message.extend(sender);
        message.extend([0; 6]);
        message.extend(target);
        Self {
            transport: message,
            ..Self::of(Network::Other(0x0806))
        }
    }

    /// A frame of neither IP nor ARP.
    pub fn other(ether_type: u16) -> Self {
        Self::of(Network::Other(ether_type))
    }

    fn of(network: Network) -> Self {
        Self {
            network,
            protocol: 59,
            transport: vec![0; 8],
            number: 1,
            hops: None,
            link: LINK,
            to: LINK,
            cut: None,
        }
    }

    /// Another destination of the frame.
    #[must_use]
    pub fn to_link(mut self, link: [u8; 6]) -> Self {
        self.to = link;
        self
    }

    /// Another source of the frame than [`LINK`].
    #[must_use]
    pub fn with_link(mut self, link: [u8; 6]) -> Self {
        self.link = link;
        self
    }

    /// IPv4 options of `words` words: a router alert, then no-operations; at most 10.
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        if let Network::V4 { options, .. } = &mut self.network {
            *options = vec![1; words.min(10) * 4];
            if let [kind, length, ..] = options.as_mut_slice() {
                (*kind, *length) = (148, 4);
            }
        }
        self
    }

    /// The first byte of an IPv4 header as it is given, right or wrong.
    #[must_use]
    pub fn version_and_length(mut self, byte: u8) -> Self {
        match &mut self.network {
            Network::V4 {
                version_and_length, ..
            } => *version_and_length = Some(byte),
            Network::V6 { version, .. } => *version = byte >> 4,
            Network::Other(_) => {}
        }
        self
    }

    /// The number of the packet that the fragments from here on are of.
    #[must_use]
    pub fn numbered(mut self, number: u16) -> Self {
        self.number = number;
        self
    }

    /// A fragment at `offset` times 8 bytes; `more` follow. In IPv6, the last extension header.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        let offset = offset & 0x1fff;
        match &mut self.network {
            Network::V4 { fragment, .. } => *fragment = offset | u16::from(more) << 13,
            Network::V6 { extensions, .. } => {
                let position = (offset << 3 | u16::from(more)).to_be_bytes();
                let number = self.number.to_be_bytes();
                let body = vec![0, position[0], position[1], 0, 0, number[0], number[1]];
                extensions.retain(|(kind, _)| *kind != FRAGMENT);
                extensions.push((FRAGMENT, body));
            }
            Network::Other(_) => {}
        }
        self
    }

    /// Where it is in its packet, in units of 8 bytes; `None` if it is no fragment.
    pub fn piece(&self) -> Option<u16> {
        match &self.network {
            Network::V4 { fragment, .. } => (*fragment != 0).then_some(fragment & 0x1fff),
            Network::V6 { extensions, .. } => extensions.iter().find_map(|(kind, body)| {
                let position = [*body.get(1)?, *body.get(2)?];
                (*kind == FRAGMENT).then_some(u16::from_be_bytes(position) >> 3)
            }),
            Network::Other(_) => None,
        }
    }

    /// An IPv6 extension header with `units` units more than the shortest.
    #[must_use]
    pub fn extension(mut self, kind: u8, units: u8) -> Self {
        if let Network::V6 { extensions, .. } = &mut self.network {
            let length = match kind {
                AUTHENTICATION => (usize::from(units) + 2) * 4,
                _ => (usize::from(units) + 1) * 8,
            };
            let mut body = vec![0; length - 1];
            body[0] = units;
            extensions.push((kind, body));
        }
        self
    }

    #[must_use]
    pub fn tcp(self, source: u16, destination: u16, flags: u8) -> Self {
        let mut header = ports(source, destination, 20);
        header[12] = 5 << 4;
        header[13] = flags;
        self.protocol(TCP, header)
    }

    #[must_use]
    pub fn udp(self, source: u16, destination: u16) -> Self {
        let mut header = ports(source, destination, 8);
        header[5] = 8;
        self.protocol(UDP, header)
    }

    #[must_use]
    pub fn sctp(self, source: u16, destination: u16) -> Self {
        self.sctp_chunk(source, destination, 0)
    }

    /// With its first chunk: 0 is DATA, 1 INIT (RFC 9260).
    #[must_use]
    pub fn sctp_chunk(self, source: u16, destination: u16, chunk: u8) -> Self {
        let mut transport = ports(source, destination, 12);
        transport.extend([chunk, 0, 0, 4]);
        self.protocol(SCTP, transport)
    }

    /// A message of the ICMP that belongs to the packet's family.
    #[must_use]
    pub fn icmp(self, kind: u8, code: u8, id: u16) -> Self {
        let [high, low] = id.to_be_bytes();
        let protocol = self.icmp_protocol();
        self.protocol(protocol, vec![kind, code, 0, 0, high, low, 0, 1])
    }

    /// A neighbour solicitation or advertisement about an address.
    #[must_use]
    pub fn neighbour(self, kind: u8, target: [u8; 16]) -> Self {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target);
        self.protocol(ICMPV6, message)
    }

    /// One more option of a neighbour message, with a link address: 1 is the source's, 2 the target's.
    #[must_use]
    pub fn link_option(mut self, kind: u8, link: [u8; 6]) -> Self {
        self.transport.extend([kind, 1]);
        self.transport.extend(link);
        self
    }

    /// Other bytes in the place of those that begin at `at`, behind the network header.
    #[must_use]
    pub fn patched(mut self, at: usize, bytes: &[u8]) -> Self {
        let patched = self.transport.iter_mut().skip(at).zip(bytes);
        patched.for_each(|(old, new)| *old = *new);
        self
    }

    /// An ICMP error that quotes `bytes` bytes of a packet from its network header on.
    #[must_use]
    pub fn icmp_error(self, kind: u8, code: u8, quoted: &Self, bytes: usize) -> Self {
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        let mut quote = quoted.packet();
        quote.truncate(bytes);
        message.extend(quote);
        let protocol = self.icmp_protocol();
        self.protocol(protocol, message)
    }

    /// Any protocol with any bytes.
    #[must_use]
    pub fn protocol(mut self, protocol: u8, transport: Vec<u8>) -> Self {
        self.protocol = protocol;
        self.transport = transport;
        self
    }

    /// Another hop limit or time to live than a host would set.
    #[must_use]
    pub fn with_hops(mut self, hops: u8) -> Self {
        self.hops = Some(hops);
        self
    }

    /// Neighbour and router messages go no further than their link, and say so.
    fn hops(&self) -> u8 {
        self.hops
            .unwrap_or(match (self.protocol, self.transport.first()) {
                (58, Some(130..=132 | 143)) => 1,
                (58, Some(133..=137)) => 255,
                _ => 64,
            })
    }

    /// So many bytes behind the transport header.
    #[must_use]
    pub fn payload(mut self, bytes: usize) -> Self {
        self.transport.extend(vec![0xa5; bytes]);
        self
    }

    /// Ends the frame after so many bytes.
    #[must_use]
    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// The Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        // network_types gives these numbers as they lie in memory.
        let ether_type = match &self.network {
            Network::V4 { .. } => (EtherType::Ipv4 as u16).to_ne_bytes(),
            Network::V6 { .. } => (EtherType::Ipv6 as u16).to_ne_bytes(),
            Network::Other(number) => number.to_be_bytes(),
        };
        let mut frame = self.to.to_vec();
        frame.extend(self.link);
        frame.extend(ether_type);
        frame.extend(self.packet());
        frame.truncate(self.cut.unwrap_or(usize::MAX));
        frame
    }

    /// From the network header on, uncut.
    pub fn packet(&self) -> Vec<u8> {
        match &self.network {
            Network::V4 {
                source,
                destination,
                options,
                fragment,
                version_and_length,
            } => {
                let words = 5 + options.len() / 4;
                let first = u8::try_from(4 << 4 | words).unwrap_or(u8::MAX);
                let mut header = vec![version_and_length.unwrap_or(first), 0];
                header.extend(length(words * 4 + self.transport.len()));
                header.extend(self.number.to_be_bytes());
                header.extend(fragment.to_be_bytes());
                header.extend([self.hops(), self.protocol, 0, 0]);
                header.extend(source);
                header.extend(destination);
                header.extend(options);
                header.extend(&self.transport);
                header
            }
            Network::V6 {
                source,
                destination,
                extensions,
                version,
            } => {
                let numbers = extensions.iter().map(|(number, _)| *number);
                let mut next = numbers.chain([self.protocol]);
                let mut body = Vec::new();
                let first = next.next().unwrap_or(self.protocol);
                for ((_, extension), following) in extensions.iter().zip(next) {
                    body.push(following);
                    body.extend(extension);
                }
                body.extend(&self.transport);
                let mut header = vec![version << 4, 0, 0, 0];
                header.extend(length(body.len()));
                header.extend([first, self.hops()]);
                header.extend(source);
                header.extend(destination);
                header.extend(body);
                header
            }
            Network::Other(_) => self.transport.clone(),
        }
    }

    fn icmp_protocol(&self) -> u8 {
        match self.network {
            Network::V6 { .. } => ICMPV6,
            Network::V4 { .. } | Network::Other(_) => ICMP,
        }
    }
}

/// A transport header of `length` bytes that begins with ports.
fn ports(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut header = vec![0; length];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}
