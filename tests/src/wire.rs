//! Frames as somebody with the right to forge them sends and sees them: past every protocol of the kernel's.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::lab::Netns;

/// An interface's packet socket.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

/// Bytes of a frame that no lab exceeds.
const LONGEST: usize = 9000;

/// All types of frames, or one of them.
const EVERYTHING: u16 = 0x0003;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

impl Netns {
    /// Sends a frame from an interface of this namespace.
    pub fn sends_frame(&self, interface: &str, frame: &[u8]) -> Result<()> {
        self.within(|| Wire::open(interface)?.send(frame))
    }

    /// Hears frames of one type at an interface of this namespace, from now on.
    pub fn hears_frames(&self, interface: &str, kind: u16) -> Result<Wire> {
        self.within(|| Wire::listen(interface, kind))
    }

    /// The link address of an interface.
    pub fn link_address(&self, interface: &str) -> Result<[u8; 6]> {
        let shown = self.ask("ip", &["-o", "link", "show", "dev", interface])?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "link/ether");
        let address = words.next().context("it has no link address")?;
        let bytes: Result<Vec<u8>, _> = address
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect();
        bytes?
            .try_into()
            .ok()
            .with_context(|| format!("not a link address: {address}"))
    }
}

impl Wire {
    /// For sending alone, at an interface of this thread's namespace.
    pub fn open(interface: &str) -> Result<Self> {
        Self::bound(interface, 0)
    }

    fn listen(interface: &str, kind: u16) -> Result<Self> {
        Self::bound(interface, kind)
    }

    /// Everything that passes an interface of this thread's namespace, what it sends included.
    pub fn everything(interface: &str) -> Result<Self> {
        Self::bound(interface, EVERYTHING)
    }

    fn bound(interface: &str, kind: u16) -> Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let index = i32::try_from(index)?;
        anyhow::ensure!(index != 0, "no interface {interface}");
        let kinds = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: a call without pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kinds, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("a packet socket needs CAP_NET_RAW");
        }
        // SAFETY: just made, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET)?,
            sll_protocol: kind.to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
        // SAFETY: an address of that many bytes, read before the call returns.
        let bound = unsafe {
            let address = (&raw const address).cast::<libc::sockaddr>();
            libc::bind(socket.as_raw_fd(), address, length)
        };
        if bound != 0 {
            return Err(io::Error::last_os_error()).context("cannot bind a packet socket");
        }
        Ok(Self { socket })
    }

    /// Has frames go out past the interface's queueing discipline.
    pub fn bypass(&self) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: an integer of that many bytes, read before the call returns.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of_val(&on))?,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error()).context("PACKET_QDISC_BYPASS");
        }
        Ok(())
    }

    /// Sends a frame. One that a program drops on its way is sent all the same, or there was no room.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        match send(&self.socket, frame, SendFlags::empty()) {
            Ok(_) | Err(Errno::NOBUFS) => Ok(()),
            Err(error) => Err(error).context("cannot send a frame"),
        }
    }

    /// The next frame of which `wanted` is true, if one comes in time.
    pub fn hears(&self, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let mut is_heard = false;
        self.listens(patience, |frame| {
            is_heard = wanted(frame);
            is_heard
        })?;
        Ok(is_heard)
    }

    /// Which of these frames come in time.
    pub fn hears_of(&self, patience: Duration, frames: &[Vec<u8>]) -> Result<Vec<bool>> {
        self.hears_each(patience, frames, |wanted, frame| wanted == frame)
    }

    /// Of which of these a frame comes in time.
    pub fn hears_each<T>(
        &self,
        patience: Duration,
        all: &[T],
        is: impl Fn(&T, &[u8]) -> bool,
    ) -> Result<Vec<bool>> {
        let mut heard = vec![false; all.len()];
        self.listens(patience, |frame| {
            for (heard, wanted) in heard.iter_mut().zip(all) {
                *heard |= is(wanted, frame);
            }
            !heard.contains(&false)
        })?;
        Ok(heard)
    }

    /// Gives each frame away that comes in time, until `enough` says so.
    fn listens(&self, patience: Duration, mut enough: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let until = Instant::now() + patience;
        let mut frame = vec![0; LONGEST];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            match recv(&self.socket, &mut frame[..], RecvFlags::empty()) {
                Ok((_, length)) if enough(frame.get(..length).unwrap_or_default()) => {
                    return Ok(());
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot hear frames"),
            }
        }
    }
}

/// The same frame with the checksums that a receiver looks at: of an IPv4 header, and of TCP, ICMP and, over
/// IPv6, UDP that follow the network header at once.
#[must_use]
pub fn with_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let words = frame.get(ETHERNET).map_or(0, |first| first & 0x0f);
            let transport = ETHERNET + usize::from(words) * 4;
            let header = frame.get(ETHERNET..transport).map(sum);
            put(&mut frame, ETHERNET + 10, header.map(complement));
            let covered = frame.get(ETHERNET + 12..ETHERNET + IPV4).map(sum);
            let protocol = frame.get(ETHERNET + 9).copied().unwrap_or_default();
            match protocol {
                1 => put_transport(&mut frame, transport, 2, Some(0)),
                6 => {
                    let beside = pseudo(&frame, transport, protocol, covered);
                    put_transport(&mut frame, transport, 16, beside);
                }
                _ => {}
            }
        }
        Some([0x86, 0xdd]) => {
            let next = frame.get(ETHERNET + 6).copied().unwrap_or_default();
            let at = match next {
                6 => 16,
                17 => 6,
                58 => 2,
                _ => return frame,
            };
            let covered = frame.get(ETHERNET + 8..ETHERNET + IPV6).map(sum);
            let transport = ETHERNET + IPV6;
            let beside = pseudo(&frame, transport, next, covered);
            put_transport(&mut frame, transport, at, beside);
        }
        _ => {}
    }
    frame
}

/// What a checksum covers beside the message: addresses, length and protocol.
fn pseudo(frame: &[u8], transport: usize, protocol: u8, addresses: Option<u32>) -> Option<u32> {
    let length = u32::try_from(frame.get(transport..)?.len()).ok()?;
    Some(addresses? + length + u32::from(protocol))
}

fn put_transport(frame: &mut [u8], transport: usize, at: usize, beside: Option<u32>) {
    let message = frame.get(transport..).map(sum);
    let total = message
        .zip(beside)
        .map(|(message, beside)| message + beside);
    put(frame, transport + at, total.map(complement));
}

fn put(frame: &mut [u8], at: usize, checksum: Option<u16>) {
    let place = frame.get_mut(at..at + 2);
    if let Some((place, checksum)) = place.zip(checksum) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Of words of 16 bits (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum()
}

fn complement(sum: u32) -> u16 {
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    let [_, _, high, low] = (!folded).to_be_bytes();
    u16::from_be_bytes([high, low])
}
