//! Options of sockets, as a process of either word size sets them.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result};

/// What a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Packet,
    Xdp,
}

/// Whose system call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Of64Bits,
    Of32Bits,
}

/// An option and what it is to be.
#[derive(Clone, Debug)]
pub struct SocketOption {
    pub kind: Kind,
    pub level: i32,
    pub name: i32,
    pub value: Vec<u8>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it is then; nothing of options that cannot be read.
    Set(String),
    /// The number of the error.
    Refused(i32),
}

/// A socket whose options are set.
#[derive(Debug)]
pub struct OptionSocket(OwnedFd);

impl OptionSocket {
    pub fn new(kind: Kind) -> Result<Self> {
        let (domain, kind) = match kind {
            Kind::Tcp => (libc::AF_INET, libc::SOCK_STREAM),
            Kind::Packet => (libc::AF_PACKET, libc::SOCK_RAW),
            Kind::Xdp => (libc::AF_XDP, libc::SOCK_RAW),
        };
        // SAFETY: a call without pointers.
        let socket = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("no such socket");
        }
        // SAFETY: just made, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    pub fn set(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        let Self(socket) = self;
        // SAFETY: as many bytes as are said, read before the call returns.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                value.as_ptr().cast(),
                length(value)?,
            )
        };
        answered(set)
    }

    /// What it is, up to 16 bytes; empty if it cannot be read.
    pub fn get(&self, level: i32, name: i32) -> io::Result<Vec<u8>> {
        let Self(socket) = self;
        let mut value = vec![0_u8; 16];
        let mut length = length(&value)?;
        // SAFETY: as many bytes as are said, written before the call returns.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                level,
                name,
                value.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        value.truncate(if got == 0 { length as usize } else { 0 });
        Ok(value)
    }

    /// By the system call of a program of 32 bits, which a program of 64 bits may make too.
    #[cfg(target_arch = "x86_64")]
    pub fn set_by_32_bits(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        const SETSOCKOPT: i64 = 366;
        let Self(socket) = self;
        let pages = value.len().next_multiple_of(4096);
        // SAFETY: new memory, where 32 bits reach.
        let low = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if low == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut answer = SETSOCKOPT;
        // SAFETY: as many bytes as were mapped; the call reads them and changes no other register.
        unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr(), low.cast(), value.len());
            std::arch::asm!(
                "xchg rbx, {socket}",
                "int 0x80",
                "xchg rbx, {socket}",
                socket = inout(reg) i64::from(socket.as_raw_fd()) => _,
                inout("rax") answer,
                in("rcx") i64::from(level),
                in("rdx") i64::from(name),
                in("rsi") low,
                in("rdi") value.len(),
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
            libc::munmap(low, pages);
        }
        // Of 32 bits, whatever the others are.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower half is the answer"
        )]
        let answer = answer as i32;
        if answer < 0 {
            return Err(io::Error::from_raw_os_error(-answer));
        }
        Ok(())
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn set_by_32_bits(&self, _: i32, _: i32, _: &[u8]) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// Segments of a connection that the other end has not acknowledged.
pub fn unacknowledged(stream: &TcpStream) -> Result<u32> {
    // SAFETY: zeros are valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info))?;
    // SAFETY: as many bytes as are said, of which the kernel writes those that it has.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    answered(got)?;
    Ok(info.tcpi_unacked)
}

fn length(value: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(value.len()).map_err(io::Error::other)
}

fn answered(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Packet => "PACKET",
            Self::Xdp => "XDP",
        })
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "PACKET" => Ok(Self::Packet),
            "XDP" => Ok(Self::Xdp),
            other => anyhow::bail!("no kind of socket: {other}"),
        }
    }
}

impl FromStr for Answer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(error) = text.strip_prefix("error ") {
            return Ok(Self::Refused(error.parse()?));
        }
        let set = text.strip_prefix("set to ").context("no answer")?;
        Ok(Self::Set(set.to_owned()))
    }
}
