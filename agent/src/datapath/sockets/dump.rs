//! The list of sockets, as the kernel writes it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use agent_common::protocol::TCP;

use crate::datapath::sockets::{
    AF_INET, Connected, HEADER, MESSAGE, NLM_F_REQUEST, REQUEST, SOCK_DIAG_BY_FAMILY, cgroup,
    refusal,
};

const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;

/// Every state but `TCP_TIME_WAIT`: nobody is there any more, and a busy server has thousands.
const STATES: u32 = !(1 << 6);

/// Of `struct inet_diag_msg`, behind the header.
const FAMILY: usize = HEADER;
const STATE: usize = HEADER + 1;
const LOCAL_PORT: usize = HEADER + 4;
const REMOTE_PORT: usize = HEADER + 6;
const LOCAL: usize = HEADER + 8;
const REMOTE: usize = HEADER + 24;

/// A socket as it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// IPv4 of an IPv6 socket as IPv4. The remote end is unspecified where there is none.
    pub ends: Connected,
    pub state: State,
    /// Not told before Linux 5.9, nor of a connection that nobody has accepted yet.
    pub cgroup: Option<u64>,
}

/// What matters of a socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes what is sent to it by anybody.
    Listening,
    /// Has asked, and has no answer yet.
    Asking,
    /// Was asked, and its answer is on its way.
    Asked,
    /// `sent_fin`, `got_fin`: which ends have closed.
    Connected { sent_fin: bool, got_fin: bool },
    /// Neither: closed, or of a kind that is not known here.
    Other,
}

pub(super) fn request(family: u8, protocol: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST);
    let length = u32::try_from(REQUEST).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // A number, and the sender: the kernel's to fill.
    bytes.extend([0; 8]);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    // Any ports, addresses, interface.
    bytes.resize(REQUEST, 0);
    bytes
}

/// Takes the sockets of one datagram; true at the end of the list.
pub(super) fn collect(datagram: &[u8], protocol: u8, found: &mut Vec<Found>) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let length =
            usize::try_from(u32_at(rest, 0).ok_or_else(invalid)?).map_err(|_| invalid())?;
        // A length that leads nowhere would be followed for ever.
        let message = rest
            .get(..length)
            .filter(|message| message.len() >= HEADER)
            .ok_or_else(invalid)?;
        match u16_at(message, 4).map(u16::from_ne_bytes) {
            Some(NLMSG_DONE) => {
                // A list that failed ends with why: 0, or a negative error number.
                let code = u32_at(message, HEADER).unwrap_or_default().cast_signed();
                return match code.wrapping_neg() {
                    error @ 1.. => Err(io::Error::from_raw_os_error(error)),
                    _ => Ok(true),
                };
            }
            Some(SOCK_DIAG_BY_FAMILY) => found.push(socket(message, protocol).ok_or_else(invalid)?),
            _ => match refusal(message) {
                None => {}
                Some(0) => return Ok(true),
                Some(error) => return Err(io::Error::from_raw_os_error(error)),
            },
        }
        // Messages start at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn socket(message: &[u8], protocol: u8) -> Option<Found> {
    // All of it, or it is not what it says.
    message.get(..HEADER + MESSAGE)?;
    let is_v4 = *message.get(FAMILY)? == AF_INET;
    let port = |at| u16_at(message, at).map(u16::from_be_bytes);
    let remote_port = port(REMOTE_PORT)?;
    let ends = Connected {
        protocol,
        local: (address(message, LOCAL, is_v4)?, port(LOCAL_PORT)?),
        remote: (address(message, REMOTE, is_v4)?, remote_port),
    };
    Some(Found {
        ends,
        state: state(protocol, *message.get(STATE)?, remote_port),
        cgroup: cgroup(message),
    })
}

/// By the numbers of the kernel's `tcp_states.h`, which UDP shares.
fn state(protocol: u8, number: u8, remote_port: u16) -> State {
    let connected = |sent_fin, got_fin| State::Connected { sent_fin, got_fin };
    match (protocol == TCP, number) {
        (_, 1) => connected(false, false),
        (true, 2) => State::Asking,
        (true, 3 | 12) => State::Asked,
        (true, 4 | 5) => connected(true, false),
        (true, 8) => connected(false, true),
        (true, 9 | 11) => connected(true, true),
        (true, 10) => State::Listening,
        (false, 7) if remote_port == 0 => State::Listening,
        _ => State::Other,
    }
}

fn address(message: &[u8], at: usize, is_v4: bool) -> Option<IpAddr> {
    let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
    let [a, b, c, d, ..] = bytes;
    Some(if is_v4 {
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(bytes).to_canonical()
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..at + 2)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::UDP;

    use super::*;
    use crate::datapath::sockets::{AF_INET6, INET_DIAG_CGROUP_ID, NLMSG_ERROR};

    const PEER: [u8; 4] = [10, 77, 0, 3];

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn told(family: u8, state: u8, ports: [u16; 2], addresses: [[u8; 16]; 2]) -> Vec<u8> {
        let mut body = vec![family, state, 0, 0];
        for port in ports {
            body.extend(port.to_be_bytes());
        }
        for address in addresses {
            body.extend(address);
        }
        body.resize(MESSAGE, 0);
        body
    }

    fn in_group(mut body: Vec<u8>, group: u64) -> Vec<u8> {
        // Another attribute of five bytes first, and the three that fill it up.
        body.extend([5, 0, 8, 0, 1, 0, 0, 0]);
        body.extend(12_u16.to_ne_bytes());
        body.extend(INET_DIAG_CGROUP_ID.to_ne_bytes());
        body.extend(group.to_ne_bytes());
        body
    }

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&address);
        words
    }

    fn mapped(address: [u8; 4]) -> [u8; 16] {
        Ipv4Addr::from(address).to_ipv6_mapped().octets()
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let ends = [v4([10, 77, 0, 2]), v4(PEER)];
        let mut datagram = message(
            SOCK_DIAG_BY_FAMILY,
            &in_group(told(AF_INET, 1, [443, 4000], ends), 77),
        );
        let mut found = Vec::new();
        assert!(!collect(&datagram, TCP, &mut found).unwrap());
        datagram = message(
            SOCK_DIAG_BY_FAMILY,
            &told(AF_INET6, 10, [443, 0], [[0; 16]; 2]),
        );
        datagram.extend(message(NLMSG_DONE, &[0; 4]));
        assert!(collect(&datagram, TCP, &mut found).unwrap());
        let connected = Found {
            ends: Connected {
                protocol: TCP,
                local: ([10, 77, 0, 2].into(), 443),
                remote: (PEER.into(), 4000),
            },
            state: State::Connected {
                sent_fin: false,
                got_fin: false,
            },
            cgroup: Some(77),
        };
        let nobody = Ipv6Addr::UNSPECIFIED.into();
        let listening = Found {
            ends: Connected {
                protocol: TCP,
                local: (nobody, 443),
                remote: (nobody, 0),
            },
            state: State::Listening,
            cgroup: None,
        };
        assert_eq!(found, [connected, listening]);
    }

    #[test]
    fn what_an_ipv6_socket_says_in_ipv4_is_ipv4() {
        let ends = [mapped([10, 77, 0, 2]), mapped(PEER)];
        let datagram = message(SOCK_DIAG_BY_FAMILY, &told(AF_INET6, 1, [53, 4000], ends));
        let mut found = Vec::new();
        collect(&datagram, UDP, &mut found).unwrap();
        assert_eq!(found[0].ends.remote, (PEER.into(), 4000));
        assert!(found[0].ends.local.0.is_ipv4());
    }

    #[test]
    fn states_say_who_has_closed() {
        let of = |number| state(TCP, number, 1);
        let connected = |sent_fin, got_fin| State::Connected { sent_fin, got_fin };
        assert_eq!(of(2), State::Asking);
        assert_eq!([of(3), of(12)], [State::Asked; 2]);
        assert_eq!([of(4), of(5)], [connected(true, false); 2]);
        assert_eq!(of(8), connected(false, true));
        assert_eq!([of(9), of(11)], [connected(true, true); 2]);
        assert_eq!([of(7), of(0), of(200)], [State::Other; 3]);
        assert_eq!(state(UDP, 7, 0), State::Listening);
        assert_eq!(state(UDP, 7, 9), State::Other);
        assert_eq!(state(UDP, 10, 0), State::Other);
    }

    #[test]
    fn a_refusal_is_an_error_and_nonsense_too() {
        let mut found = Vec::new();
        let refused = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        let failed = message(NLMSG_DONE, &(-libc::ENOENT).to_ne_bytes());
        for answer in [refused, failed] {
            let error = collect(&answer, TCP, &mut found).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        }
        let whole = message(SOCK_DIAG_BY_FAMILY, &told(AF_INET, 1, [1, 2], [[0; 16]; 2]));
        for length in 1..whole.len() {
            assert!(
                collect(&whole[..length], TCP, &mut found).is_err(),
                "{length} bytes"
            );
            // Nor if the message says itself that it is short.
            let mut short = whole[..length].to_vec();
            if length >= 4 {
                short[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
            }
            assert!(collect(&short, TCP, &mut found).is_err(), "{length} bytes");
        }
        // An empty message would be read for ever.
        assert!(collect(&[0; 64], TCP, &mut found).is_err());
        assert!(found.is_empty());
    }
}
