//! Interfaces as the kernel announces them, to a listener that does nothing else.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::lab::Netns;

// From linux/rtnetlink.h and linux/if_link.h.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;

/// `struct nlmsghdr`, and `struct ifinfomsg` after it.
const HEADER: usize = 16;
const INFO: usize = 16;

/// A socket of the group `RTNLGRP_LINK`.
#[derive(Debug)]
pub struct Announcements {
    socket: OwnedFd,
}

impl Netns {
    /// Hears from now on of interfaces of this namespace.
    pub fn announcements(&self) -> Result<Announcements> {
        self.within(|| {
            let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
            // Protocol 0, the default, is `NETLINK_ROUTE`.
            let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)
                .context("cannot make a netlink socket")?;
            bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))
                .context("cannot listen for interfaces")?;
            Ok(Announcements { socket })
        })
    }
}

impl Announcements {
    /// Waits for the first one of an interface of this name, and tells when it was here.
    pub fn wait_for(&self, name: &str, patience: Duration) -> Result<SystemTime> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))
            .context("cannot set a time-out")?;
        let mut datagram = vec![0; 64 << 10];
        loop {
            let received = recv(&self.socket, &mut datagram, RecvFlags::empty());
            let (length, _) = received.with_context(|| format!("{name} is not announced"))?;
            let here = SystemTime::now();
            let datagram = datagram.get(..length).unwrap_or_default();
            if names(datagram).any(|its| its == name.as_bytes()) {
                return Ok(here);
            }
        }
    }

    /// Forgets what has come so far.
    pub fn forget(&self) {
        let mut datagram = [0; 1];
        while recv(&self.socket, &mut datagram, RecvFlags::DONTWAIT).is_ok() {}
    }
}

/// The names of the interfaces that a datagram says are there.
fn names(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    records(datagram, |message| {
        let length = u32::from_ne_bytes(*message.first_chunk()?);
        usize::try_from(length).ok()
    })
    .filter(|message| number(message, 4) == Some(RTM_NEWLINK))
    .filter_map(|message| {
        let attributes = message.get(HEADER + INFO..)?;
        let mut attributes = records(attributes, |attribute| {
            number(attribute, 0).map(usize::from)
        });
        let name = attributes.find(|attribute| number(attribute, 2) == Some(IFLA_IFNAME))?;
        name.get(4..)?.strip_suffix(&[0])
    })
}

/// What lies one after the other, each at a multiple of four bytes.
fn records(bytes: &[u8], length: impl Fn(&[u8]) -> Option<usize>) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let length = length(rest).filter(|length| *length >= 4)?;
        at += length.next_multiple_of(4);
        rest.get(..length)
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?;
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}
