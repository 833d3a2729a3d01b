//! A transport session with a collector (RFC 7011, §8 and §10): a socket, and what has been sent by it.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::message::Message;
use crate::flow::{
    clock::WallTime,
    sink::remote::{Remote, datagrams_to},
};

#[derive(Debug)]
pub(super) struct Session {
    link: Link,
    /// Records that were sent by it.
    records: u32,
    /// When templates were sent the last time.
    pub(super) templates_at: Instant,
    /// When it was found out where the collector is.
    pub(super) found_at: Instant,
}

#[derive(Debug)]
enum Link {
    Udp { socket: UdpSocket, peer: SocketAddr },
    Tcp(TcpStream),
}

/// For a datagram to find room, and for all messages of one batch to be taken by a stream.
const TRANSFER: Duration = Duration::from_secs(5);
/// How long a new socket is listened to: where nobody is, the first datagram is answered by ICMP.
const TRIAL: Duration = Duration::from_millis(200);
/// Bytes that a collector may say; nothing is expected.
const CHATTER: usize = 16 << 10;

impl Session {
    /// By UDP, at one of the addresses that the name has: another one with each `attempt`.
    pub(super) fn udp(to: &Remote, attempt: usize) -> io::Result<Self> {
        let found = to.resolve()?;
        let peer = found.get(attempt % found.len().max(1)).copied();
        let peer = peer.ok_or_else(|| io::Error::other("no address"))?;
        let socket = datagrams_to(peer)?;
        socket.set_write_timeout(Some(TRANSFER))?;
        socket.set_read_timeout(Some(TRIAL))?;
        Ok(Self::by(Link::Udp { socket, peer }))
    }

    pub(super) fn tcp(to: &Remote) -> io::Result<Self> {
        let stream = to.connect()?;
        stream.set_write_timeout(Some(TRANSFER))?;
        Ok(Self::by(Link::Tcp(stream)))
    }

    fn by(link: Link) -> Self {
        Self {
            link,
            records: 0,
            templates_at: Instant::now(),
            found_at: Instant::now(),
        }
    }

    /// What tells it from others.
    #[cfg(test)]
    pub(super) fn name(&self) -> SocketAddr {
        let name = match &self.link {
            Link::Udp { socket, .. } => socket.local_addr(),
            Link::Tcp(stream) => stream.local_addr(),
        };
        name.unwrap()
    }

    /// # Errors
    ///
    /// The session is over: it is not known how much of it has been taken.
    pub(super) fn send(&mut self, messages: &mut [Message]) -> io::Result<()> {
        let now = WallTime::now();
        for message in &mut *messages {
            self.records = message.stamp(now, self.records);
        }
        match &mut self.link {
            Link::Udp { socket, .. } => {
                for message in messages {
                    socket.send(message.bytes())?;
                }
                Ok(())
            }
            Link::Tcp(stream) => {
                let bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).copied().collect();
                write_within(stream, &bytes, TRANSFER)
            }
        }
    }

    /// Waits for a moment whether a new session is refused.
    pub(super) fn try_out(&mut self) -> io::Result<()> {
        match &self.link {
            Link::Udp { socket, .. } => match socket.recv(&mut [0]) {
                Err(error) if !is_silence(&error) => Err(error),
                Ok(_) | Err(_) => Ok(()),
            },
            // A connection that is there was not refused.
            Link::Tcp(_) => Ok(()),
        }
    }

    /// Whether the collector has been there until now, as far as one is told. Does not wait.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match &mut self.link {
            Link::Udp { socket, .. } => socket.take_error()?.map_or(Ok(()), Err),
            Link::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                let heard = hear(stream);
                stream.set_nonblocking(false)?;
                heard
            }
        }
    }

    /// Whether the name still leads there. While it cannot be looked up, it does.
    pub(super) fn is_still_at(&mut self, to: &Remote) -> bool {
        let Link::Udp { peer, .. } = &self.link else {
            return true;
        };
        self.found_at = Instant::now();
        to.resolve().map_or(true, |found| found.contains(peer))
    }
}

/// A stream that takes some bytes now and then takes them for ever.
fn write_within(stream: &mut TcpStream, bytes: &[u8], within: Duration) -> io::Result<()> {
    let begun = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        if begun.elapsed() >= within {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A collector says nothing but that it closes. What it says otherwise is passed over, so that this is noticed.
fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let mut said = 0;
    let mut some = [0; 4096];
    while said < CHATTER {
        match stream.read(&mut some) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => said += length,
            Err(error) if is_silence(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
