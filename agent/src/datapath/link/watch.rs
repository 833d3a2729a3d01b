//! Interfaces, addresses and filters that come, change and go.

use std::io;

use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use crate::datapath::link::{Link, link};

/// The kernel's announcements, for the network namespace in which it was made.
///
/// Read straight from the socket and not through a queue of a library's: a reader that is slow loses
/// announcements in the kernel, which says so, instead of filling memory.
pub struct Watch {
    socket: TokioSocket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, or something about it has changed.
    Link(Link),
    /// It is gone, or was moved to another network namespace.
    LinkGone(Link),
    /// It is a port of a bridge, or none any more: nothing else is told of it.
    Port,
    /// An address of some interface came or went.
    Addresses,
    /// A filter or a queueing discipline came or went.
    Filters,
    /// Announcements were lost: look at everything.
    Lost,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Tells what changes from now on: make it first, then look. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Tc,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let mask = groups
            .iter()
            .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
        Ok(Self { socket })
    }

    /// Waits for the next announcement; several may come at once.
    ///
    /// Cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// Those of the socket; lost announcements are [`Change::Lost`], not an error.
    pub async fn changed(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut changes = match self.socket.recv_from_full().await {
                Ok((datagram, _)) => read(&datagram),
                // The socket's buffer was full; what is in it still is to be read, and adds nothing.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => vec![Change::Lost],
                Err(error) => return Err(error),
            };
            changes.dedup();
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

fn read(datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(buffer) = NetlinkBuffer::new_checked(rest) else {
            changes.push(Change::Lost);
            break;
        };
        let length = buffer.length() as usize;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        changes.extend(match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => change(message),
            Ok(_) => None,
            // Something changed that cannot be read: what it was shows when everything is looked at.
            Err(_) => Some(Change::Lost),
        });
    }
    changes
}

fn change(message: RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Bridge =>
        {
            Some(Change::Port)
        }
        RouteNetlinkMessage::NewLink(message) => Some(Change::Link(link(&message))),
        RouteNetlinkMessage::DelLink(message) => Some(Change::LinkGone(link(&message))),
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
            Some(Change::Addresses)
        }
        RouteNetlinkMessage::NewTrafficFilter(_)
        | RouteNetlinkMessage::DelTrafficFilter(_)
        | RouteNetlinkMessage::NewQueueDiscipline(_)
        | RouteNetlinkMessage::DelQueueDiscipline(_) => Some(Change::Filters),
        _ => None,
    }
}
