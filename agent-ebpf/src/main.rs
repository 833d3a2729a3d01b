//! ringfence in the kernel: adapters between the hooks and the contract, no policy of their own.
//!
//! A hook reads: parse → judge → return. What judging means stands in `agent-common`, where it is
//! tested on the host; here the maps are bound to it.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of the hooks hand their context over by value"
)]
#![feature(asm_experimental_arch)]

mod datapath;
mod family;
mod hook;
mod maps;
mod names;
mod packet;
mod processes;
mod rejection;
mod socket_flows;
mod sockets;
mod verifier;

/// Some of the helpers are reserved for programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program that could get here.
    loop {}
}
