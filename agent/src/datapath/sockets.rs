//! Ends sockets of this node whose flows are no longer permitted, so that their owners see an error
//! at once instead of waiting for answers that are dropped.
//!
//! `SOCK_DESTROY` of `sock_diag` (Linux 4.5 for TCP, 4.9 for UDP; `CONFIG_INET_DIAG_DESTROY`): calls of the
//! owner fail with `ECONNABORTED`. Only in the network namespace of the calling thread.

use std::{collections::BTreeSet, io, net::IpAddr};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// A connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connected {
    /// TCP or UDP, by its number.
    pub protocol: u8,
    pub local: (IpAddr, u16),
    pub remote: (IpAddr, u16),
}

/// Asks the kernel about sockets, by one of its own that is kept for many questions.
#[derive(Debug)]
pub struct Sockets {
    socket: Socket,
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg` of the kernel's headers.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Where the identity of the socket stands, in request and answer: ports and addresses, big-endian,
/// the interface, and a cookie that no other socket ever has.
const REQUEST_ID: usize = HEADER + 8;
const ANSWER_ID: usize = HEADER + 4;
const ID: usize = 48;
const PORTS_AND_ADDRESSES: usize = 36;
const COOKIE: std::ops::Range<usize> = 40..48;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// Of an answer, before its attributes.
const MESSAGE: usize = 72;
const INET_DIAG_CGROUP_ID: u16 = 21;

const UDP: u8 = 17;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// === impl Sockets ===

impl Sockets {
    /// # Errors
    ///
    /// If the kernel has no `sock_diag`.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        Ok(Self { socket })
    }

    /// Ends a socket of one of some cgroups, by their ids; whether there was one.
    ///
    /// Somebody else may have the same addresses and ports by now. Before Linux 5.9 nobody tells whose
    /// socket it is, and none is ended.
    ///
    /// The kernel looks for a socket as for a packet, and so may find one that listens, or that is
    /// connected to nobody: those serve others too, and are left alone.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` of a kernel that cannot end sockets; `EPERM` without `CAP_NET_ADMIN`.
    pub fn end(&self, connected: Connected, groups: &BTreeSet<u64>) -> io::Result<bool> {
        let mut request = request(connected);
        let mut query = if connected.protocol == UDP {
            request_of_udp(connected)
        } else {
            request.clone()
        };
        let Some(answer) = self.ask(SOCK_DIAG_BY_FAMILY, 0, &mut query)? else {
            return Ok(false);
        };
        let wanted = request.get(REQUEST_ID..REQUEST_ID + ID);
        let found = answer.get(ANSWER_ID..ANSWER_ID + ID);
        let (Some(wanted), Some(found)) = (wanted, found) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if !same(wanted, found) || !cgroup(&answer).is_some_and(|id| groups.contains(&id)) {
            return Ok(false);
        }
        // That one and no other, should it have been closed meanwhile.
        let cookie = found.get(COOKIE).map(<[u8]>::to_vec).unwrap_or_default();
        if let Some(place) = request
            .get_mut(REQUEST_ID..REQUEST_ID + ID)
            .and_then(|id| id.get_mut(COOKIE))
        {
            place.copy_from_slice(&cookie);
        }
        Ok(self.ask(SOCK_DESTROY, NLM_F_ACK, &mut request)?.is_some())
    }

    /// `None` if there is no such socket.
    fn ask(&self, kind: u16, flags: u16, request: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        let flags = NLM_F_REQUEST | flags;
        if let Some(header) = request.get_mut(4..8) {
            header[..2].copy_from_slice(&kind.to_ne_bytes());
            header[2..].copy_from_slice(&flags.to_ne_bytes());
        }
        self.socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        match refusal(&answer) {
            None | Some(0) => Ok(Some(answer)),
            Some(libc::ENOENT | libc::ESTALE) => Ok(None),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn request(connected: Connected) -> Vec<u8> {
    let Connected {
        protocol,
        local,
        remote,
    } = connected;
    let family = if local.0.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = Vec::with_capacity(REQUEST);
    let length = u32::try_from(REQUEST).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    // The kind and its flags, a number and the sender: the last two are the kernel's to fill.
    bytes.extend([0; 12]);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.1.to_be_bytes());
    bytes.extend(remote.1.to_be_bytes());
    bytes.extend(words(local.0));
    bytes.extend(words(remote.0));
    // Any interface, any cookie.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([u8::MAX; 8]);
    bytes
}

/// Of a single UDP socket, the kernel takes the source for the far end, other than of TCP and other
/// than where it is to be ended (`udp_dump_one`, Linux 3.3 to 6.18).
fn request_of_udp(connected: Connected) -> Vec<u8> {
    request(Connected {
        local: connected.remote,
        remote: connected.local,
        ..connected
    })
}

fn words(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&address.octets());
            words
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Whether it is the socket that was asked for, ports and addresses; not one that merely takes what
/// is sent there. An IPv4 connection of an IPv6 socket is told by its mapped addresses.
fn same(wanted: &[u8], found: &[u8]) -> bool {
    let of = |id: &[u8]| id.get(..PORTS_AND_ADDRESSES).map(<[u8]>::to_vec);
    of(wanted) == of(found) || of(found) == of(wanted).map(mapped)
}

fn mapped(mut id: Vec<u8>) -> Vec<u8> {
    for start in [4, 20] {
        if let Some(words) = id.get_mut(start..start + 16) {
            let v4 = [words[0], words[1], words[2], words[3]];
            words[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            words[12..].copy_from_slice(&v4);
        }
    }
    id
}

/// The id of the cgroup that a socket belongs to.
fn cgroup(answer: &[u8]) -> Option<u64> {
    let mut rest = answer.get(HEADER + MESSAGE..)?;
    loop {
        let length = u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?);
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let length = usize::from(length);
        if kind == INET_DIAG_CGROUP_ID {
            return Some(u64::from_ne_bytes(rest.get(4..length)?.try_into().ok()?));
        }
        // Attributes start at multiples of four.
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// The error number of an answer that is one; 0 is an acknowledgement.
fn refusal(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = answer.get(HEADER..HEADER + 4)?.try_into().ok()?;
    (kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(code).wrapping_neg())
}
