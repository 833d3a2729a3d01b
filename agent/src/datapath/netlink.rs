//! One question to the kernel's routing socket, answered at once.
//!
//! Blocking, and bound to the network namespace of the calling thread: the questions are few and
//! answered from memory, and a caller that has entered a namespace is sure of the one it asks.

use std::{
    io,
    os::fd::{AsFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
};

use rtnetlink::{
    MulticastGroup,
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocketExt as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

/// What a dump found: an object that the library cannot read is somebody's all the same.
pub(crate) type Found = Result<RouteNetlinkMessage, DecodeError>;

/// Has the kernel do something. `flags` beside those of every request.
pub(crate) fn act(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    exchange(message, NLM_F_ACK | flags).map(drop)
}

/// Every object that matches.
pub(crate) fn dump(message: RouteNetlinkMessage) -> io::Result<Vec<Found>> {
    exchange(message, NLM_F_DUMP)
}

/// The answer to a question about one object.
pub(crate) fn get(message: RouteNetlinkMessage) -> io::Result<Vec<Found>> {
    exchange(message, NLM_F_ACK)
}

fn exchange(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Found>> {
    let Asking(socket) = Asking::here()?;
    exchange_over(&socket, message, flags, usize::MAX)
}

/// No pod has so many interfaces, or addresses, but one that means to fill our memory.
const MOST: usize = 1024;

/// A socket to ask by, of the network namespace in which it was made, wherever it is used.
///
/// It keeps that namespace alive.
#[derive(Debug)]
pub(crate) struct Asking(Socket);

impl Asking {
    /// Of the calling thread's network namespace.
    pub(crate) fn here() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Objects that the filter of a dump does not match would otherwise come too; 4.20 and later.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self(socket))
    }

    /// To be given to somebody else.
    pub(crate) fn into_descriptor(self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// What [`Self::into_descriptor`] made.
    pub(crate) fn over(descriptor: OwnedFd) -> Self {
        // SAFETY: it was ours until now, and nobody else has its number.
        Self(unsafe { Socket::from_raw_fd(descriptor.into_raw_fd()) })
    }

    /// Every object that matches, of a namespace whose owner may have filled it.
    ///
    /// # Errors
    ///
    /// If there are more than [`MOST`], too.
    pub(crate) fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<Found>> {
        let Self(socket) = self;
        exchange_over(socket, message, NLM_F_DUMP, MOST)
    }

    /// Has it readable from now on once interfaces or addresses of its namespace have changed.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ] {
            self.0.add_membership(group as u32)?;
        }
        Ok(())
    }

    /// To be called in a tokio runtime.
    pub(crate) fn into_listening(self) -> io::Result<Listening> {
        let socket = self.into_descriptor()?.into_raw_fd();
        // SAFETY: it was ours until now, and nobody else has its number.
        Ok(Listening(unsafe { TokioSocket::from_raw_fd(socket) }))
    }
}

/// Hears of what changes in a namespace, and keeps it alive.
pub(crate) struct Listening(TokioSocket);

impl Listening {
    /// Waits for a change. Cancelling loses nothing.
    pub(crate) async fn changed(&mut self) {
        let Self(socket) = self;
        // What it was, and whether it could be heard, shows when it is looked at.
        drop(socket.recv_from_full().await);
    }
}

fn exchange_over(
    socket: &Socket,
    message: RouteNetlinkMessage,
    flags: u16,
    most: usize,
) -> io::Result<Vec<Found>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if collect(&datagram, &mut found)? {
            return Ok(found);
        }
        if found.len() > most {
            let message = format!("more than {most} objects of a kind are there");
            return Err(io::Error::other(message));
        }
    }
}

/// Takes the messages of one datagram; true at the end of the answer.
fn collect(datagram: &[u8], found: &mut Vec<Found>) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = NetlinkBuffer::new_checked(rest)
            .map_err(io::Error::other)?
            .length() as usize;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
        // Messages start at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
            Ok(NetlinkPayload::Error(_) | NetlinkPayload::Done(_)) => return Ok(true),
            Ok(NetlinkPayload::InnerMessage(message)) => found.push(Ok(message)),
            Ok(_) => {}
            Err(error) => found.push(Err(error)),
        }
    }
    Ok(false)
}
