//! One question to the kernel's routing socket, answered at once.
//!
//! Blocking, and bound to the network namespace of the calling thread: the questions are few and
//! answered from memory, and a caller that has entered a namespace is sure of the one it asks.

use std::io;

use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
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
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // Objects that the filter of a dump does not match would otherwise come too; 4.20 and later.
    socket.set_netlink_get_strict_chk(true)?;
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
