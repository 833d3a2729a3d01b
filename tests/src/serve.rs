//! Echo listeners, on both families at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::lab::Netns;
use crate::probe::Protocol;

/// How often a waiting thread looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// A running echo service; ends on drop, with its connections.
#[derive(Debug)]
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Echoes on `port` of every address in this namespace. The port is open when this returns.
    pub fn serve(&self, protocol: Protocol, port: u16) -> Result<Service> {
        let opened = self.within(|| Socket::open(protocol, port));
        let socket = opened
            .with_context(|| format!("cannot listen on {protocol} {port} in {}", self.name()))?;
        Ok(socket.into_service())
    }

    pub fn serve_tcp(&self, port: u16) -> Result<Service> {
        self.serve(Protocol::Tcp, port)
    }

    pub fn serve_udp(&self, port: u16) -> Result<Service> {
        self.serve(Protocol::Udp, port)
    }
}

impl Service {
    /// Echoes at a socket that listens, over TCP, or is bound.
    pub fn of(protocol: Protocol, socket: OwnedFd) -> Result<Self> {
        let socket = Socket::of(protocol, socket).context("cannot listen")?;
        Ok(socket.into_service())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join().is_ok();
        }
    }
}

/// Serves until the process is killed: for a process of its own.
pub fn forever(protocol: Protocol, port: u16) -> Result<()> {
    let socket = Socket::open(protocol, port)
        .with_context(|| format!("cannot listen on {protocol} {port}"))?;
    println!("listening");
    socket.serve(&AtomicBool::new(false));
    Ok(())
}

/// A socket belongs to the namespace it was made in, so only making it happens there.
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    fn open(protocol: Protocol, port: u16) -> std::io::Result<Self> {
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let socket = match protocol {
            Protocol::Tcp => TcpListener::bind(any).map(OwnedFd::from),
            Protocol::Udp => UdpSocket::bind(any).map(OwnedFd::from),
        };
        Self::of(protocol, socket?)
    }

    fn of(protocol: Protocol, socket: OwnedFd) -> std::io::Result<Self> {
        match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from(socket);
                set_socket_timeout(&listener, Timeout::Recv, Some(TURN))?;
                Ok(Self::Tcp(listener))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from(socket);
                socket.set_read_timeout(Some(TURN))?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn into_service(self) -> Service {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || self.serve(&stopped));
        Service {
            stop,
            thread: Some(thread),
        }
    }

    fn serve(&self, stop: &AtomicBool) {
        match self {
            Self::Tcp(listener) => accept(listener, stop),
            Self::Udp(socket) => echo_datagrams(socket, stop),
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if let Ok((stream, _)) = listener.accept() {
                scope.spawn(move || echo(stream, stop));
            }
        }
    });
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    if stream
        .set_read_timeout(Some(TURN))
        .and(stream.set_nodelay(true))
        .is_err()
    {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream
                    .write_all(buffer.get(..length).unwrap_or_default())
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _sent = socket
                .send_to(buffer.get(..length).unwrap_or_default(), from)
                .is_ok();
        }
    }
}
