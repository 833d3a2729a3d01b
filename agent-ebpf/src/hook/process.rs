//! Processes of the whole machine, where they make, bind or connect a socket. Never refuses anything, and
//! sees no packet.

use core::ffi::c_void;

use agent_common::{event::Loss, process::Process};
use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_probe_read_kernel,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
    },
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};

use crate::{datapath::lose, processes::note};

/// Where the kernel keeps a thread's process, and there when it began, in its `task_struct`. Set by the
/// agent when it loads these programs; 0 if it does not know.
#[unsafe(no_mangle)]
static PROCESS_AT: u32 = 0;
#[unsafe(no_mangle)]
static STARTED_AT: u32 = 0;

const PASS: i32 = 1;

#[cgroup_sock(sock_create)]
pub(crate) fn process_creates(context: SockContext) -> i32 {
    note_current(context.sock.cast())
}

#[cgroup_sock(post_bind4)]
pub(crate) fn process_binds4(context: SockContext) -> i32 {
    note_current(context.sock.cast())
}

#[cgroup_sock(post_bind6)]
pub(crate) fn process_binds6(context: SockContext) -> i32 {
    note_current(context.sock.cast())
}

#[cgroup_sock_addr(connect4)]
pub(crate) fn process_connects4(context: SockAddrContext) -> i32 {
    note_current(connecting(&context))
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn process_connects6(context: SockAddrContext) -> i32 {
    note_current(connecting(&context))
}

#[inline(always)]
fn connecting(context: &SockAddrContext) -> *mut c_void {
    // SAFETY: the kernel passes a valid context to the program, in which there always is a socket.
    unsafe { (*context.sock_addr).__bindgen_anon_1.sk.cast() }
}

#[inline(always)]
fn note_current(socket: *mut c_void) -> i32 {
    let [_, pid] = halves(bpf_get_current_pid_tgid());
    let [uid, _] = halves(bpf_get_current_uid_gid());
    let process = Process {
        pid,
        uid,
        started: started(),
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
    };
    // SAFETY: the socket that this program is about.
    if !unsafe { note(socket, &process) } {
        lose(Loss::Process);
    }
    PASS
}

/// The lower half first.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// When the process of this thread began; 0 if that is not known.
#[inline(always)]
fn started() -> u64 {
    // SAFETY: statics of our own; volatile, because the agent changes them before the load.
    let (process_at, started_at) = unsafe {
        (
            (&raw const PROCESS_AT).read_volatile(),
            (&raw const STARTED_AT).read_volatile(),
        )
    };
    if started_at == 0 {
        return 0;
    }
    // SAFETY: the kernel checks each address that it reads for us.
    unsafe {
        let thread = bpf_get_current_task();
        let process = bpf_probe_read_kernel((thread + u64::from(process_at)) as *const u64);
        let started = process.and_then(|process| {
            bpf_probe_read_kernel((process + u64::from(started_at)) as *const u64)
        });
        started.unwrap_or(0)
    }
}
