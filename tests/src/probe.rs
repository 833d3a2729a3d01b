//! One attempt to communicate, and what came of it.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::lab::Netns;

/// How long an answer may take. Denied traffic costs this each time, so it is short; a permitted
/// packet crosses a lab in microseconds, so it is long enough.
pub const PATIENCE: Duration = Duration::from_millis(800);

/// What an attempt met with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The other end answered.
    Allowed,
    /// No answer: dropped somewhere.
    TimedOut,
    /// The kernel reported an error, with its text.
    Refused(String),
}

impl Outcome {
    pub(crate) fn from_result(result: std::io::Result<()>) -> Self {
        result.map_or_else(|error| Self::of(&error), |()| Self::Allowed)
    }

    fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Refused(error) => write!(f, "refused: {error}"),
        }
    }
}

/// The inverse of `Display`, for outcomes that another process prints.
impl FromStr for Outcome {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "allowed" => Ok(Self::Allowed),
            "timed out" => Ok(Self::TimedOut),
            other => {
                let error = other.strip_prefix("refused: ");
                let error = error.with_context(|| format!("not an outcome: {other:?}"))?;
                Ok(Self::Refused(error.to_owned()))
            }
        }
    }
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The inverse of `Display`.
impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            other => bail!("not a protocol: {other:?}"),
        }
    }
}

impl Netns {
    /// Tries an exchange with an echo service, from this namespace.
    pub fn probe(&self, protocol: Protocol, to: SocketAddr) -> Outcome {
        self.within(|| probe(protocol, to))
    }

    /// An error unless `to` answers.
    pub fn reaches(&self, protocol: Protocol, to: SocketAddr) -> Result<()> {
        self.meets(protocol, to, &Outcome::Allowed)
    }

    /// An error unless what is sent to `to` vanishes. A refusal is an error too: denied traffic
    /// is dropped, and an echo service that is not there must not pass for a policy.
    pub fn is_dropped_to(&self, protocol: Protocol, to: SocketAddr) -> Result<()> {
        self.meets(protocol, to, &Outcome::TimedOut)
    }

    fn meets(&self, protocol: Protocol, to: SocketAddr, expected: &Outcome) -> Result<()> {
        let seen = self.probe(protocol, to);
        let from = self.name();
        ensure!(
            seen == *expected,
            "{from} to {to} {protocol}: {seen}, expected: {expected}"
        );
        Ok(())
    }

    pub fn tcp(&self, to: SocketAddr) -> Outcome {
        self.probe(Protocol::Tcp, to)
    }

    pub fn udp(&self, to: SocketAddr) -> Outcome {
        self.probe(Protocol::Udp, to)
    }

    /// Sends one echo request and waits for its reply.
    pub fn ping(&self, to: IpAddr) -> Outcome {
        self.ping_with(to, 0)
    }

    /// As [`Netns::ping`], with so many bytes of data.
    pub fn ping_with(&self, to: IpAddr, bytes: usize) -> Outcome {
        self.within(|| Outcome::from_result(ping(to, bytes)))
    }
}

/// As [`Netns::probe`], from where the thread is.
pub fn probe(protocol: Protocol, to: SocketAddr) -> Outcome {
    Outcome::from_result(match protocol {
        Protocol::Tcp => tcp(to),
        Protocol::Udp => udp(to),
    })
}

/// One echo request and its reply, from where the thread is.
pub fn echo(to: IpAddr) -> Outcome {
    Outcome::from_result(ping(to, 0))
}

/// Connects a socket, which over UDP sends nothing.
pub fn connect(protocol: Protocol, to: SocketAddr) -> Outcome {
    Outcome::from_result(match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
        Protocol::Udp => UdpSocket::bind(any_port(to.ip())).and_then(|socket| socket.connect(to)),
    })
}

/// Connects and has a few bytes echoed: a handshake alone does not show that replies pass.
fn tcp(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    let mut echo = [0; 4];
    stream.read_exact(&mut echo)
}

fn udp(to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(any_port(to.ip()))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"ping")?;
    let mut echo = [0; 16];
    socket.recv(&mut echo).map(|_| ())
}

/// Of the same family.
pub fn any_port(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

static NEXT_PING: AtomicU16 = AtomicU16::new(1);

/// What differs between the two echo protocols.
struct Echo {
    family: AddressFamily,
    protocol: rustix::net::Protocol,
    request: u8,
    reply: u8,
    /// Bytes before the ICMP header in what a raw socket receives.
    skip: usize,
}

fn ping(to: IpAddr, bytes: usize) -> std::io::Result<()> {
    let echo = match to {
        IpAddr::V4(_) => Echo {
            family: AddressFamily::INET,
            protocol: ipproto::ICMP,
            request: 8,
            reply: 0,
            skip: 20,
        },
        IpAddr::V6(_) => Echo {
            family: AddressFamily::INET6,
            protocol: ipproto::ICMPV6,
            request: 128,
            reply: 129,
            skip: 0,
        },
    };
    let raw = socket_with(
        echo.family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(echo.protocol),
    )?;
    // Sending and receiving with an address is all that is needed of it, and std has that safely.
    let socket = UdpSocket::from(raw);
    let number = NEXT_PING.fetch_add(1, Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    let mut asked = request(echo.request, number).to_vec();
    // Zeros leave the checksum as it is.
    asked.resize(asked.len() + bytes, 0);
    socket.send_to(&asked, SocketAddr::new(to, 0))?;
    let mut packet = vec![0; 128 + bytes];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let (length, from) = socket.recv_from(&mut packet)?;
        let icmp = packet.get(echo.skip..length).unwrap_or_default();
        let ours = icmp.first() == Some(&echo.reply)
            && icmp.get(6..8) == Some(&number.to_be_bytes())
            && from.ip() == to;
        if ours {
            return Ok(());
        }
    }
}

/// An echo request without data. The kernel fills the checksum of `ICMPv6`, but not of ICMP.
fn request(kind: u8, number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    let sum = u32::from(kind) * 0x100 + 0x7266 + u32::from(number);
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, check_high, check_low] = (!(folded & 0xffff)).to_be_bytes();
    [kind, 0, check_high, check_low, 0x72, 0x66, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_being_printed() {
        for outcome in [
            Outcome::Allowed,
            Outcome::TimedOut,
            Outcome::Refused("connection reset".into()),
        ] {
            let read: Outcome = outcome.to_string().parse().expect("what Display wrote");
            assert_eq!(read, outcome);
        }
    }
}
