//! Flows noted in their sockets, see `agent_common::socket_flow`.

use core::{ffi::c_void, ptr};

use agent_common::{
    flow::{Flow, FlowKey},
    socket_flow::SocketFlow,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};

use crate::datapath::FamilyMaps;

/// Whether flows are noted, set by the agent when it loads the programs: only if it can read the notes.
#[unsafe(no_mangle)]
static NOTES: u32 = 0;

#[btf_map]
pub(crate) static SOCKET_FLOWS_V4: SkStorage<SocketFlow<[u8; 4]>> = SkStorage::new();

#[btf_map]
pub(crate) static SOCKET_FLOWS_V6: SkStorage<SocketFlow<[u8; 16]>> = SkStorage::new();

#[inline(always)]
fn are_noted() -> bool {
    // SAFETY: a static of our own; volatile, because the agent changes it before the load.
    unsafe { (&raw const NOTES).read_volatile() != 0 }
}

#[inline(always)]
fn map<A: FamilyMaps>() -> *mut c_void {
    ptr::from_ref(A::socket_flows()).cast_mut().cast()
}

/// What the packet's socket knows. No look for the whole socket: the kernel itself knows of none at those
/// that are not whole yet, or no more.
#[inline(always)]
pub(crate) fn of_packet<'p, A: FamilyMaps>(context: *mut __sk_buff) -> Option<&'p SocketFlow<A>> {
    if !are_noted() {
        return None;
    }
    // SAFETY: the kernel passes a valid context to the program, and this is its own socket. The memory is the
    // socket's, which lives while the program runs, and what changes of it stands alone.
    unsafe {
        let socket = (*context).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let noted = bpf_sk_storage_get(map::<A>(), socket.cast(), ptr::null_mut(), 0);
        noted.cast::<SocketFlow<A>>().as_ref()
    }
}

/// Notes a flow, if the socket knows none yet or this one. A function of its own, to spare the stack of those
/// that judge.
#[inline(never)]
pub(crate) fn note<A: FamilyMaps>(context: *mut __sk_buff, key: &FlowKey<A>, flow: &Flow) {
    if !are_noted() {
        return;
    }
    let mut first = SocketFlow::new(key, flow);
    // SAFETY: as above; the value has the map's size, and is there as a whole or not at all.
    let noted = unsafe {
        let socket = (*context).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let first = (&raw mut first).cast();
        bpf_sk_storage_get(map::<A>(), socket.cast(), first, create)
            .cast::<SocketFlow<A>>()
            .as_ref()
    };
    if let Some(noted) = noted
        && noted.key().is_same(key)
    {
        noted.note(flow);
    }
}
