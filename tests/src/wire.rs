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
        let until = Instant::now() + patience;
        let mut frame = vec![0; LONGEST];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            match recv(&self.socket, &mut frame[..], RecvFlags::empty()) {
                Ok((_, length)) if wanted(frame.get(..length).unwrap_or_default()) => {
                    return Ok(true);
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot hear frames"),
            }
        }
    }
}

/// The same frame with the checksums that a receiver looks at: of an IPv4 header, and of UDP and `ICMPv6`
/// without extension headers and options.
#[must_use]
pub fn with_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let sum = frame.get(ETHERNET..ETHERNET + IPV4).map(sum);
            put(&mut frame, ETHERNET + 10, sum.map(complement));
        }
        Some([0x86, 0xdd]) => {
            let next = frame.get(ETHERNET + 6).copied().unwrap_or_default();
            let at = match next {
                17 => 6,
                58 => 2,
                _ => return frame,
            };
            let addresses = frame.get(ETHERNET + 8..ETHERNET + IPV6).map(sum);
            let message = frame.get(ETHERNET + IPV6..);
            let total = message.zip(addresses).and_then(|(message, addresses)| {
                let length = u32::try_from(message.len()).ok()?;
                Some(addresses + sum(message) + length + u32::from(next))
            });
            put(&mut frame, ETHERNET + IPV6 + at, total.map(complement));
        }
        _ => {}
    }
    frame
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
