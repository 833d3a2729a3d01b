//! Sockets of an endpoint's cgroup that ask for a connection.
//!
//! Of TCP alone: a UDP socket that is connected sends nothing yet, and may be asking for its own address
//! only, as `getaddrinfo` does. What it sends is judged when it does so.

use agent_common::{
    connect::refuses, judge::Sight, protocol::TCP, rejection::Rejectable, table::Direction,
};
use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    datapath::{FamilyMaps, Maps, word},
    hook::cgroup::endpoint,
    sockets::Nowhere,
};

const PASS: i32 = 1;
/// `EPERM` for who asks.
const REFUSE: i32 = 0;

/// What an IPv4 address begins with in IPv6 (RFC 4291, 2.5.5.2), word by word in network order.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

#[cgroup_sock_addr(connect4)]
pub(crate) fn cgroup_connect4(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    if !is_tcp(context) {
        return PASS;
    }
    // SAFETY: the kernel passes a valid context to the program.
    let address = unsafe { (*context).user_ip4 };
    ask(context, address.to_ne_bytes())
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn cgroup_connect6(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    if !is_tcp(context) {
        return PASS;
    }
    // SAFETY: as above.
    let words = unsafe {
        [
            (&raw const (*context).user_ip6[0]).read_volatile(),
            (&raw const (*context).user_ip6[1]).read_volatile(),
            (&raw const (*context).user_ip6[2]).read_volatile(),
            (&raw const (*context).user_ip6[3]).read_volatile(),
        ]
    };
    let [first, second, third, last] = words;
    if [first, second, third] == MAPPED {
        return ask(context, last.to_ne_bytes());
    }
    // SAFETY: as many bytes, valid as such.
    ask(context, unsafe {
        core::mem::transmute::<[u32; 4], [u8; 16]>(words)
    })
}

#[inline(always)]
fn is_tcp(context: *mut bpf_sock_addr) -> bool {
    // SAFETY: the kernel passes a valid context to the program.
    unsafe { (*context).protocol == u32::from(TCP) }
}

#[inline(always)]
fn ask<A: FamilyMaps + Rejectable>(context: *mut bpf_sock_addr, remote: A) -> i32 {
    let endpoint = endpoint();
    let Some(word) = word(endpoint) else {
        return PASS;
    };
    let sight = Sight {
        endpoint,
        word,
        direction: Direction::Egress,
        length: 0,
        made_here: false,
        ifindex: 0,
    };
    // SAFETY: the kernel passes a valid context to the program.
    let port = unsafe { (*context).user_port };
    let [high, low, ..] = port.to_ne_bytes();
    let port = u16::from_be_bytes([high, low]);
    if refuses(&Maps(Nowhere), &sight, remote, port) {
        REFUSE
    } else {
        PASS
    }
}
