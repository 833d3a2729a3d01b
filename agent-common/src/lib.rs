//! The contract between ringfence's programs in the kernel and its agent.
//!
//! Two kinds of things live here and nothing else: the *layouts* that cross the boundary
//! ([`abi`], [`event`], [`flow`], [`process`], [`table`]), and the *pure functions* that both sides must share,
//! so that one piece of code judges a packet wherever it is judged ([`parse`],
//! [`connect`], [`fragment`], [`decide`], [`denial`], [`judge`], [`neighbour`], [`refusal`], [`rejection`],
//! [`share`], [`socket_flow`], [`withdrawn`]).
//!
//! `no_std`, no allocation, no panics. Imported by everybody, imports nobody of ours.
//!
//! Byte order: addresses are in network order, as on the wire; ports and all other numbers are in
//! the order of the host. Clock: nanoseconds are of `CLOCK_BOOTTIME`, jiffies of the kernel.
#![no_std]
// BPF assembly needs it; the BPF build allows it, the host build never sees it.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(any(test, feature = "testing"))]
extern crate std;

pub mod abi;
pub mod connect;
pub mod decide;
pub mod denial;
mod dhcp;
pub mod dns;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod judge;
pub mod neighbour;
pub mod parse;
pub mod process;
pub mod protocol;
pub mod refusal;
pub mod rejection;
pub mod rtt;
pub mod share;
pub mod shared;
pub mod socket_flow;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
pub mod withdrawn;
