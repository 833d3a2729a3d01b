//! Messages of which it is too early to say that they have arrived.
//!
//! IPFIX has no acknowledgement. That a collector is away is told a little after something was sent to it: by ICMP, or by the
//! reset of a connection. What was sent within that time is sent again: once too often rather than not at all.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::message::Message;
use crate::flow::sink::output::Settled;

/// How long it takes at most, most of the time, to be told that a collector is away.
const TOLD: Duration = Duration::from_secs(1);
/// Bytes; beyond them, messages are taken for arrived sooner.
const MOST: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Retained {
    /// The oldest first.
    sent: VecDeque<(Instant, Message)>,
    bytes: usize,
    /// What a collector that was away is to get first.
    again: VecDeque<Message>,
    /// What has become of others.
    settled: Settled,
}

impl Retained {
    pub(super) fn sent(&mut self, now: Instant, messages: impl IntoIterator<Item = Message>) {
        // Those of templates alone are sent at the begin of each session anyway.
        for message in messages.into_iter().filter(Message::has_records) {
            self.bytes += message.bytes().len();
            self.sent.push_back((now, message));
        }
    }

    /// The collector is away.
    pub(super) fn keep(&mut self) {
        self.bytes = 0;
        for (_, message) in std::mem::take(&mut self.sent).into_iter().rev() {
            self.again.push_front(message);
        }
    }

    /// It is back.
    pub(super) fn take_again(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.again).into()
    }

    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// What has become of messages by now.
    pub(super) fn settle(&mut self, now: Instant) -> Settled {
        while let Some((at, message)) = self.sent.front() {
            if now.duration_since(*at) < TOLD && self.bytes <= MOST {
                break;
            }
            self.bytes = self.bytes.saturating_sub(message.bytes().len());
            self.settled.exported += message.flows.iter().sum::<u64>();
            self.sent.pop_front();
        }
        std::mem::take(&mut self.settled)
    }

    /// None can be sent any more: those of which nothing was told are taken for arrived, and what is still to be sent
    /// is lost.
    pub(super) fn give_up(&mut self) {
        self.bytes = 0;
        for (_, message) in std::mem::take(&mut self.sent) {
            self.settled.exported += message.flows.iter().sum::<u64>();
        }
        for message in std::mem::take(&mut self.again) {
            for (lost, count) in self.settled.lost.iter_mut().zip(message.flows) {
                *lost += count;
            }
        }
    }
}
