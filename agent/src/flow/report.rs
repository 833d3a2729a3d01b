//! What the tracker has to say, in numbers only: names are added by [`super::enrich`].

use agent_common::{
    denial::Denied,
    event::DenialKey,
    flow::{FlowKey, FlowState},
    process::Process,
    table::Direction,
};

use super::{
    clock::{BootTime, WallTime},
    key::{FlowId, Key},
    record::{EndReason, Kind, Loss, Tampering},
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    Flow(FlowReport),
    Denials(DenialReport),
    Loss(Loss),
    Tampering(Tampering),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowReport {
    pub(crate) kind: Kind,
    pub(crate) id: FlowId,
    pub(crate) key: Key,
    pub(crate) direction: Direction,
    /// Bits of [`agent_common::flow::Flow`]'s constants.
    pub(crate) origin: u8,
    /// When it began, as `start`.
    pub(crate) opened: BootTime,
    /// When what it tells of happened.
    pub(crate) at: BootTime,
    pub(crate) start: WallTime,
    pub(crate) end: Option<WallTime>,
    /// From the initiator and from the responder, since the last report.
    pub(crate) delta: [Count; 2],
    /// 0 where the packet's flags were not handed over.
    pub(crate) tcp_flags: [u8; 2],
    /// [`agent_common::rtt::RoundTrip`] as a number.
    pub(crate) rtt: u16,
    pub(crate) end_reason: Option<EndReason>,
    /// [`agent_common::verdict::Reason`] as a number.
    pub(crate) reason: u8,
    pub(crate) rule: u32,
    pub(crate) generation: u32,
    /// Whose socket it is at the endpoint's side.
    pub(crate) process: Process,
    /// 0 if it is not known, or a cgroup saw it.
    pub(crate) ifindex: u32,
}

/// Denied packets of one kind, their source port folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DenialReport {
    pub(crate) key: DenialKey,
    /// When the first of them was denied.
    pub(crate) since: BootTime,
    pub(crate) start: WallTime,
    pub(crate) end: WallTime,
    pub(crate) delta: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A listing of the kernel's tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepInput {
    /// When the listing *began*: what is missing from it may have been opened since.
    pub(crate) listed_at: BootTime,
    /// The kernel's jiffies, read after the listing.
    pub(crate) jiffies: u64,
    /// Jiffies a second.
    pub(crate) hz: u64,
    pub(crate) lost: Lost,
    pub(crate) flows_v4: Vec<(FlowKey<[u8; 4]>, FlowState)>,
    pub(crate) flows_v6: Vec<(FlowKey<[u8; 16]>, FlowState)>,
    pub(crate) denials: Vec<(DenialKey, Denied)>,
}

/// What the kernel had no room for, since this agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Events, in the ring buffer.
    pub(crate) events: u64,
    /// Permitted packets whose flow the table did not take.
    pub(crate) flows: u64,
}

/// An entry that is to leave the kernel's flow table.
///
/// It may have been used again since it was listed: whoever removes it looks again first, and
/// leaves it alone if `opened` or `last_seen` differ. It will be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) key: Key,
    pub(crate) opened: u64,
    pub(crate) last_seen: u64,
}

// === impl Count ===

impl Count {
    pub(crate) fn pair(packets: [u64; 2], bytes: [u64; 2]) -> [Self; 2] {
        let [packets_forward, packets_reverse] = packets;
        let [bytes_forward, bytes_reverse] = bytes;
        [
            Self {
                packets: packets_forward,
                bytes: bytes_forward,
            },
            Self {
                packets: packets_reverse,
                bytes: bytes_reverse,
            },
        ]
    }

    /// Processors race on the counters, so one reading may be behind another.
    pub(crate) fn minus(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            packets: self.packets.max(other.packets),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }
}
