//! Sends a frame that the agent has made to an endpoint, by which an idle end of a connection is asked to speak.
//!
//! Run by the agent, never attached.

use aya_ebpf::{helpers::generated::bpf_clone_redirect, macros::classifier, programs::TcContext};

use crate::rejection::mark;

/// The agent gives the interface as the first word that a program may keep for itself.
#[classifier]
pub(crate) fn prompt(context: TcContext) -> i32 {
    let context = context.skb.skb;
    // SAFETY: the kernel passes a valid context to the program.
    let sent = unsafe {
        let ifindex = (*context).cb[0];
        (*context).cb[0] = 0;
        // By which the hook of that interface lets it pass.
        (*context).mark = mark();
        bpf_clone_redirect(context, ifindex, 0)
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "0, or the number of an error"
    )]
    let sent = sent as i32;
    sent
}
