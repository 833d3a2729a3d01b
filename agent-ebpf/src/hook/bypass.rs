//! Options by which the frames of a socket would pass every hook: refused to the sockets of an endpoint's
//! cgroup.
//!
//! Whose a socket is says the cgroup that it was made in, whoever holds it now.

use agent_common::{judge::Datapath, verdict::Reason};
use aya_ebpf::{
    macros::{cgroup_sockopt, lsm_cgroup},
    programs::{LsmContext, SockoptContext},
};

use crate::{datapath::Maps, hook::cgroup::endpoint, sockets::Nowhere};

const PASS: i32 = 1;
/// `EPERM` for who asks.
const REFUSE: i32 = 0;

/// `SOL_PACKET`, and what has its frames go straight to the device.
const PACKET: i32 = 263;
const QDISC_BYPASS: i32 = 20;
/// `SOL_XDP`, and without which an XDP socket sends nothing.
const XDP: i32 = 283;
const TX_RING: i32 = 3;

/// What the kernel shows a program of an option, on machines with the smallest pages.
const SHOWN: i32 = 4096;

/// Called before the protocol is, but not for callers of 32 bits (`in_compat_syscall`). Linux 5.3.
#[cgroup_sockopt(setsockopt)]
pub(crate) fn cgroup_setsockopt(context: SockoptContext) -> i32 {
    let context = context.sockopt;
    // SAFETY: the kernel passes a valid context to the program.
    let (level, option, length) =
        unsafe { ((*context).level, (*context).optname, (*context).optlen) };
    if refuses(level, option) {
        return REFUSE;
    }
    if length > SHOWN {
        // The kernel takes what the program has seen, which is not all of it, unless told to look at the caller's
        // own memory; before 6.5 it fails the call (`EFAULT`).
        // SAFETY: as above.
        unsafe { (*context).optlen = 0 };
    }
    PASS
}

/// Called for every caller, where the kernel was started with `bpf` among its security modules. Linux 6.0.
#[lsm_cgroup(hook = "socket_setsockopt")]
pub(crate) fn cgroup_lsm_setsockopt(context: LsmContext) -> i32 {
    // After the socket.
    let (level, option) = (context.arg(1), context.arg(2));
    if refuses(level, option) { REFUSE } else { PASS }
}

#[inline(always)]
fn refuses(level: i32, option: i32) -> bool {
    let refuses = matches!((level, option), (PACKET, QDISC_BYPASS) | (XDP, TX_RING));
    if refuses {
        Datapath::<[u8; 4]>::count(&Maps(Nowhere), endpoint(), Reason::Bypass, 0);
    }
    refuses
}
