//! A socket that one process makes and another uses: the kernel does not ask who holds it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, sendto,
    socket_with,
};

use crate::probe::{Outcome, PATIENCE, Protocol};
use crate::serve::Service;

const WORD: &[u8] = b"ping";

/// Of the namespace and the cgroup of whoever made it.
#[derive(Debug)]
pub struct Loose {
    protocol: Protocol,
    socket: OwnedFd,
}

impl Loose {
    /// Neither bound nor connected, of the family of `like`.
    pub fn make(protocol: Protocol, like: IpAddr) -> Result<Self> {
        let family = if like.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None);
        Ok(Self::of(protocol, socket.context("no socket")?))
    }

    /// Bound to a port of every address; over TCP it listens.
    pub fn listening(protocol: Protocol, port: u16) -> Result<Self> {
        let any = (std::net::Ipv6Addr::UNSPECIFIED, port);
        let socket = match protocol {
            Protocol::Tcp => TcpListener::bind(any).map(OwnedFd::from),
            Protocol::Udp => UdpSocket::bind(any).map(OwnedFd::from),
        };
        let socket = socket.with_context(|| format!("cannot listen on {protocol} {port}"))?;
        Ok(Self::of(protocol, socket))
    }

    /// One that somebody has made.
    pub fn of(protocol: Protocol, socket: OwnedFd) -> Self {
        Self { protocol, socket }
    }

    /// Connects it.
    pub fn connect(&self, to: SocketAddr) -> Outcome {
        Outcome::from_result(self.connected(to))
    }

    /// So many words to whom it is connected to, each of which has to come back.
    pub fn echoes(&self, number: u32) -> Outcome {
        Outcome::from_result((0..number).try_for_each(|_| {
            send(&self.socket, WORD, SendFlags::NOSIGNAL)?;
            self.hears()
        }))
    }

    /// A word to somebody and back: over TCP it connects for that, over UDP it does not.
    pub fn probe(&self, to: SocketAddr) -> Outcome {
        match self.protocol {
            Protocol::Tcp => match self.connect(to) {
                Outcome::Allowed => self.echoes(1),
                other => other,
            },
            Protocol::Udp => Outcome::from_result(self.told(to).and_then(|()| self.hears())),
        }
    }

    /// A datagram to somebody, whoever it is connected to, and no answer.
    pub fn tells(&self, to: SocketAddr) -> Outcome {
        Outcome::from_result(self.told(to))
    }

    /// Echoes what comes to one that listens, from threads of this process.
    pub fn serve(self) -> Result<Service> {
        Service::of(self.protocol, self.socket)
    }

    fn connected(&self, to: SocketAddr) -> io::Result<()> {
        set_socket_timeout(&self.socket, Timeout::Send, Some(PATIENCE))?;
        match connect(&self.socket, &to) {
            // What a call says that was not to wait any longer.
            Err(Errno::INPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
            result => Ok(result?),
        }
    }

    fn told(&self, to: SocketAddr) -> io::Result<()> {
        sendto(&self.socket, WORD, SendFlags::empty(), &to)?;
        Ok(())
    }

    fn hears(&self) -> io::Result<()> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(PATIENCE))?;
        let (_, length) = recv(&self.socket, &mut [0; WORD.len()][..], RecvFlags::empty())?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// For what else is done with it.
impl From<Loose> for OwnedFd {
    fn from(loose: Loose) -> Self {
        loose.socket
    }
}

impl AsFd for Loose {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
