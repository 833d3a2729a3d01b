//! Iterators over the flow tables: what is written to their reader are the keys of flows that policy
//! no longer permits, and nothing else.
//!
//! Linux 5.8, with types of its own (`CONFIG_DEBUG_INFO_BTF`). The agent makes them and reads them.

use core::ffi::c_void;

use agent_common::{
    flow::{Flow, FlowKey},
    parse::Family,
    table::Endpoint,
    withdrawn::{TOUCHED, is_withdrawn},
};
use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write, macros::map, maps::Array};

use crate::{
    datapath::{FamilyMaps, Maps, word},
    sockets::Nowhere,
};

/// Endpoint → its flags and [`TOUCHED`], if its flows are to be looked at. Never pinned: it is the
/// agent's own.
#[map]
static LOOKED_AT: Array<u32> = Array::with_max_entries(1024, 0);

/// `struct bpf_iter__bpf_map_elem` of the kernel.
#[repr(C)]
pub(crate) struct Element {
    meta: *const Meta,
    map: *const c_void,
    /// Neither key nor value is there after the last element.
    key: *const c_void,
    value: *const c_void,
}

/// The head of `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    reader: *mut seq_file,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/withdrawn_v4")]
pub(crate) extern "C" fn withdrawn_v4(element: *const Element) -> i32 {
    look::<[u8; 4]>(element)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/withdrawn_v6")]
pub(crate) extern "C" fn withdrawn_v6(element: *const Element) -> i32 {
    look::<[u8; 16]>(element)
}

#[expect(clippy::cast_possible_truncation, reason = "40 bytes at most")]
const fn key_bytes<A>() -> u32 {
    size_of::<FlowKey<A>>() as u32
}

/// Always 0: go on.
#[inline(always)]
fn look<A: FamilyMaps + Family>(element: *const Element) -> i32 {
    // SAFETY: the kernel passes a valid context to the program.
    let (key, flow) = unsafe { ((*element).key, (*element).value) };
    if key.is_null() || flow.is_null() {
        return 0;
    }
    // SAFETY: the agent attaches to the flow table of this family alone; the kernel compares the sizes.
    let (key, flow) = unsafe { (key.cast::<FlowKey<A>>().read(), &*flow.cast::<Flow>()) };
    let Some(looked_at) = LOOKED_AT.get(u32::from(key.endpoint)) else {
        return 0;
    };
    if *looked_at & TOUCHED == 0 {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half are the flags"
    )]
    let endpoint = Endpoint {
        id: key.endpoint,
        flags: *looked_at as u16,
    };
    let Some(word) = word(endpoint) else {
        return 0;
    };
    if is_withdrawn(&Maps(Nowhere), &key, flow, endpoint, word) {
        // What finds no room is asked for again: the kernel comes back to this element.
        // SAFETY: the reader of this context, and as many bytes as the key has, without padding.
        unsafe {
            bpf_seq_write(
                (*(*element).meta).reader,
                (&raw const key).cast(),
                key_bytes::<A>(),
            );
        }
    }
    0
}
