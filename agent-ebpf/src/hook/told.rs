//! Iterators over what sockets know of their flows: each tells the flow tables what has been counted there
//! since the last time. A note whose flow has left the table, has ended or was found to be another's rests.
//!
//! Linux 5.9, with types of its own (`CONFIG_DEBUG_INFO_BTF`). The agent makes them, and reads them before it
//! lists the tables; nothing is written to it.

use core::ffi::c_void;

use agent_common::{flow::FlowKey, socket_flow::SocketFlow};

use crate::datapath::FamilyMaps;

/// `struct bpf_iter__bpf_sk_storage_map` of the kernel.
#[repr(C)]
pub(crate) struct Stored {
    meta: *const c_void,
    map: *const c_void,
    socket: *const c_void,
    /// Not there after the last one.
    value: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/told_v4")]
pub(crate) extern "C" fn told_v4(stored: *const Stored) -> i32 {
    tell::<[u8; 4]>(stored)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/told_v6")]
pub(crate) extern "C" fn told_v6(stored: *const Stored) -> i32 {
    tell::<[u8; 16]>(stored)
}

/// Always 0: go on.
#[inline(always)]
fn tell<A: FamilyMaps>(stored: *const Stored) -> i32 {
    // SAFETY: the kernel passes a valid context to the program.
    let value = unsafe { (*stored).value };
    if value.is_null() {
        return 0;
    }
    // SAFETY: the agent attaches to the map of this family alone, whose values these are; what changes of
    // one stands alone.
    let noted = unsafe { &*value.cast::<SocketFlow<A>>() };
    let key: FlowKey<A> = *noted.key();
    // SAFETY: as for `Datapath::flow`.
    let agrees = match unsafe { A::flows().get(key) } {
        Some(flow) => {
            noted.tell(flow);
            noted.agrees(flow)
        }
        None => false,
    };
    if !agrees {
        // The next packet asks the table.
        noted.rest();
    }
    0
}
