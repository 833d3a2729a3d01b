//! How long a flow may be silent before its entry is given back.

use std::time::Duration;

use agent_common::{
    flow::{FlowState, tcp},
    protocol,
    verdict::Reason,
};

/// How long a TCP flow is kept that is half-open or closing, and any that has been reported closed.
pub(crate) const CLOSED: Duration = Duration::from_secs(30);
/// Pooled connections stay idle for hours; two hours are what hosts keep alive by default.
pub(crate) const ESTABLISHED: Duration = Duration::from_mins(135);
/// A flow that was revoked: longer than hosts try to send what nobody acknowledges (RFC 1122,
/// 4.2.3.5, and the 15 tries of Linux), so that none of it is taken for a new flow.
pub(crate) const REVOKED: Duration = Duration::from_mins(35);
pub(crate) const UDP: Duration = Duration::from_mins(1);
pub(crate) const ICMP: Duration = Duration::from_secs(10);
pub(crate) const OTHER: Duration = Duration::from_mins(1);

/// The limit of a flow, by its protocol and the TCP flags of both sides.
pub(crate) fn limit(protocol: u8, state: &FlowState) -> Duration {
    if protocol == protocol::TCP && state.reason == Reason::Revoked as u8 {
        return REVOKED;
    }
    if state.closed != 0 {
        return CLOSED;
    }
    match protocol {
        protocol::TCP => {
            let [initiator, responder] = state.tcp_flags;
            let closing = (initiator | responder) & (tcp::FIN | tcp::RST) != 0;
            let acknowledged = initiator & responder & tcp::ACK != 0;
            if acknowledged && !closing {
                ESTABLISHED
            } else {
                CLOSED
            }
        }
        protocol::UDP => UDP,
        protocol::ICMP | protocol::ICMPV6 => ICMP,
        _ => OTHER,
    }
}

/// How long a flow has been silent, by the kernel's jiffies.
///
/// A packet may come between the listing and the reading of the jiffies: that is not idle at all.
pub(crate) fn silence(state: &FlowState, jiffies: u64, hz: u64) -> Duration {
    let millis = jiffies.saturating_sub(state.last_seen).saturating_mul(1000) / hz.max(1);
    Duration::from_millis(millis)
}
