//! Ends sockets of this node whose flows are no longer permitted, so that their owners see an error
//! at once instead of waiting for answers that are dropped.
//!
//! `SOCK_DESTROY` of `sock_diag` (Linux 4.5 for TCP, 4.9 for UDP; `CONFIG_INET_DIAG_DESTROY`): calls of the
//! owner fail with `ECONNABORTED`. Always in the network namespace of the thread that opened the
//! [`Sockets`], wherever they are used.
//!
//! Who asks needs `CAP_NET_ADMIN`; who opened the socket does not, which the helper relies on.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
};

use agent_common::protocol::{TCP, UDP};
use agent_policy::model::EndpointSpec;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::datapath::{helper::Helper, link};

mod dump;

pub use self::dump::{Found, State};

/// A connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connected {
    /// TCP or UDP, by its number.
    pub protocol: u8,
    pub local: (IpAddr, u16),
    pub remote: (IpAddr, u16),
}

/// Whose sockets may be ended.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'g> {
    /// Those of some cgroups, by their ids.
    Groups(&'g BTreeSet<u64>),
    /// All of the network namespace.
    Namespace,
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
/// Of a request: a bit for each state that is asked for.
const STATES: std::ops::Range<usize> = HEADER + 4..HEADER + 8;
const PORTS_AND_ADDRESSES: usize = 36;
const COOKIE: std::ops::Range<usize> = 40..48;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Of an answer, before its attributes.
const MESSAGE: usize = 72;
const INET_DIAG_CGROUP_ID: u16 = 21;

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

    /// What [`Self::new`] opens, to be given to somebody else.
    pub(crate) fn open() -> io::Result<OwnedFd> {
        Self::new()?.socket.as_fd().try_clone_to_owned()
    }

    /// Every TCP and UDP socket of both families, whatever its state.
    ///
    /// They come and go while they are listed: one that is there all the while is in it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the kernel lacks one of the modules `tcp_diag` and `udp_diag`.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for protocol in [TCP, UDP] {
            for family in [AF_INET, AF_INET6] {
                let request = dump::request(family, protocol);
                self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
                loop {
                    let (datagram, _) = self.socket.recv_from_full()?;
                    if dump::collect(&datagram, protocol, &mut found)? {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Those of the network namespace that an endpoint is.
    ///
    /// Made for one use and not kept: a socket in a namespace keeps it alive, and so the interface that
    /// leads there, after everybody else has left.
    ///
    /// # Errors
    ///
    /// If nothing leads there from here, as to a virtual machine, or if there is no helper to go there.
    pub(crate) fn behind(spec: &EndpointSpec, helper: Option<&Helper>) -> anyhow::Result<Self> {
        let Some(link) = link::resolve(spec) else {
            anyhow::bail!("{spec} is no network namespace");
        };
        let Some(helper) = helper else {
            anyhow::bail!("entering the network namespace of {spec} needs CAP_SYS_ADMIN");
        };
        let socket = helper.socket_behind(&link?)?.into_raw_fd();
        // SAFETY: it was ours until now, and nobody else has its number.
        let socket = unsafe { Socket::from_raw_fd(socket) };
        Ok(Self { socket })
    }

    /// Whether the kernel can end sockets of a protocol, having loaded what it needs for that.
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    pub(crate) fn can_end(protocol: u8) -> io::Result<bool> {
        let sockets = Self::new()?;
        let nowhere = (IpAddr::from(Ipv4Addr::UNSPECIFIED), 0);
        let mut request = request(Connected {
            protocol,
            local: nowhere,
            remote: nowhere,
        });
        // Nobody has this cookie: nothing is ended.
        if let Some(cookie) = request
            .get_mut(REQUEST_ID..REQUEST_ID + ID)
            .and_then(|id| id.get_mut(COOKIE))
        {
            cookie.fill(0);
        }
        // That there is no such socket, the kernel says with the same number as that nobody answers for
        // the protocol: which of both, a list of the sockets in none of all states tells.
        let mut none = request.clone();
        if let Some(states) = none.get_mut(STATES) {
            states.fill(0);
        }
        if sockets
            .ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &mut none)?
            .is_none()
        {
            return Ok(false);
        }
        match sockets.ask(SOCK_DESTROY, NLM_F_ACK, &mut request) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }

    /// Ends a socket of somebody's; whether there was one.
    ///
    /// Somebody else may have the same addresses and ports by now. Before Linux 5.9 nobody tells of what
    /// cgroup a socket is, and none of theirs is ended.
    ///
    /// The kernel looks for a socket as for a packet, and so may find one that listens, or that is
    /// connected to nobody: those serve others too, and are left alone.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` of a kernel that cannot end sockets; `EPERM` without `CAP_NET_ADMIN`.
    pub fn end(&self, connected: Connected, owner: Owner<'_>) -> io::Result<bool> {
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
        let is_owned = match owner {
            Owner::Groups(groups) => cgroup(&answer).is_some_and(|id| groups.contains(&id)),
            Owner::Namespace => true,
        };
        if !same(wanted, found) || !is_owned {
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
