//! Whose sockets are whose: noted in the socket itself, and asked when a packet of it is reported.

use core::{ffi::c_void, ptr};

use agent_common::process::Process;
use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::SkStorage,
    helpers::generated::{bpf_get_listener_sock, bpf_sk_fullsock, bpf_sk_storage_get},
    macros::btf_map,
};

/// In each socket that a process of this machine made, bound or connected: which one that was.
#[btf_map]
static PROCESSES: SkStorage<Process> = SkStorage::new();

#[inline(always)]
fn map() -> *mut c_void {
    (&raw const PROCESSES).cast_mut().cast()
}

/// Notes it; false if there is no room in the socket.
///
/// # Safety
///
/// `socket` must be what the kernel takes for a socket in a program of this type.
#[inline(always)]
pub(crate) unsafe fn note(socket: *mut c_void, process: &Process) -> bool {
    let first = ptr::from_ref(process).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the caller's promise, and a value of the map's size.
    let noted = unsafe { bpf_sk_storage_get(map(), socket, first, create) };
    let noted = noted.cast::<Process>();
    if noted.is_null() {
        return false;
    }
    // SAFETY: memory of the socket's, which lives while the program runs. Whoever reads it meanwhile may
    // find a part of each; so would who looks a moment later at a socket of two owners.
    unsafe { *noted = *process };
    true
}

/// Whose socket a packet is of, or null.
///
/// An answer to a request for a connection is of no socket yet: then whose the one is that listens.
#[inline(always)]
pub(crate) fn of_packet(context: *mut __sk_buff) -> *const Process {
    // SAFETY: the kernel passes a valid context to the program, and all these are its own sockets.
    unsafe {
        let seen = (*context).__bindgen_anon_2.sk;
        if seen.is_null() {
            return ptr::null();
        }
        let mut socket = bpf_sk_fullsock(seen);
        if socket.is_null() {
            socket = bpf_get_listener_sock(seen);
            if socket.is_null() {
                return ptr::null();
            }
        }
        bpf_sk_storage_get(map(), socket.cast(), ptr::null_mut(), 0).cast()
    }
}
