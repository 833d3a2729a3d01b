//! IPFIX messages (RFC 7011, §3): a header, and sets of records.

use crate::flow::{clock::WallTime, record::Kind};

const VERSION: u16 = 10;
pub(super) const HEADER: usize = 16;
pub(super) const SET_HEADER: usize = 4;

/// A message that is whole but for what it is sent as: time and sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    bytes: Vec<u8>,
    /// Records that are no templates.
    records: u32,
    /// Flow records by [`Kind`].
    pub(super) flows: [u64; Kind::ALL.len()],
}

/// Puts records into as few messages as they need.
#[derive(Debug)]
pub(super) struct Packer {
    domain: u32,
    /// Bytes of a message.
    most: usize,
    done: Vec<Message>,
    open: Message,
    set: Option<OpenSet>,
}

#[derive(Clone, Copy, Debug)]
struct OpenSet {
    number: u16,
    /// Where its header is.
    at: usize,
}

/// What a record counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Template,
    Flow(Kind),
    Other,
}

impl Message {
    fn new(domain: u32) -> Self {
        let mut bytes = Vec::with_capacity(1500);
        bytes.extend(VERSION.to_be_bytes());
        // Length, export time and sequence number.
        bytes.extend([0; 10]);
        bytes.extend(domain.to_be_bytes());
        Self {
            bytes,
            records: 0,
            flows: [0; Kind::ALL.len()],
        }
    }

    /// As it is sent now, `before` it so many records in this session. Answers how many there are with it.
    pub(super) fn stamp(&mut self, now: WallTime, before: u32) -> u32 {
        let seconds = u32::try_from(now.0 / 1_000_000_000).unwrap_or_default();
        put(&mut self.bytes, 4, &seconds.to_be_bytes());
        put(&mut self.bytes, 8, &before.to_be_bytes());
        before.wrapping_add(self.records)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Other than templates.
    pub(super) fn has_records(&self) -> bool {
        self.records > 0
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER
    }
}

impl Packer {
    pub(super) fn new(domain: u32, most: usize) -> Self {
        Self {
            domain,
            most,
            done: Vec::new(),
            open: Message::new(domain),
            set: None,
        }
    }

    /// Appends a record to a set of this number. One that is larger than a message may be is in one of its own.
    pub(super) fn put(&mut self, set: u16, record: &[u8], counted: Counted) {
        let is_open = |it: &Self| it.set.is_some_and(|open| open.number == set);
        let header = if is_open(self) { 0 } else { SET_HEADER };
        if self.open.bytes.len() + header + record.len() > self.most && !self.open.is_empty() {
            self.close_message();
        }
        if !is_open(self) {
            self.close_set();
            let at = self.open.bytes.len();
            self.set = Some(OpenSet { number: set, at });
            self.open.bytes.extend(set.to_be_bytes());
            self.open.bytes.extend([0; 2]);
        }
        self.open.bytes.extend(record);
        match counted {
            Counted::Template => {}
            Counted::Other => self.open.records += 1,
            Counted::Flow(of) => {
                self.open.records += 1;
                let counts = Kind::ALL.into_iter().zip(&mut self.open.flows);
                for (_, count) in counts.filter(|(kind, _)| *kind == of) {
                    *count += 1;
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<Message> {
        if !self.open.is_empty() {
            self.close_message();
        }
        self.done
    }

    fn close_message(&mut self) {
        self.close_set();
        let mut message = std::mem::replace(&mut self.open, Message::new(self.domain));
        let length = length(message.bytes.len());
        put(&mut message.bytes, 2, &length);
        self.done.push(message);
    }

    fn close_set(&mut self) {
        if let Some(OpenSet { at, .. }) = self.set.take() {
            let length = length(self.open.bytes.len() - at);
            put(&mut self.open.bytes, at + 2, &length);
        }
    }
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_lengths_time_and_sequence_where_rfc_7011_has_them() {
        let mut packer = Packer::new(0x0a0b_0c0d, 100);
        packer.put(256, &[1, 2], Counted::Flow(Kind::End));
        packer.put(256, &[3], Counted::Other);
        packer.put(2, &[4], Counted::Template);
        let [mut message] = <[Message; 1]>::try_from(packer.finish()).unwrap();
        assert_eq!(message.stamp(WallTime(5_999_999_999), u32::MAX), 1);
        #[rustfmt::skip]
        assert_eq!(message.bytes(), [
            0, 10,  0, 28,  0, 0, 0, 5,  255, 255, 255, 255,  10, 11, 12, 13,
            1, 0,  0, 7,  1, 2, 3,
            0, 2,  0, 5,  4,
        ]);
        assert_eq!(message.flows, [0, 0, 1, 0]);
    }

    #[test]
    fn messages_are_no_longer_than_they_may_be() {
        let mut packer = Packer::new(0, 40);
        for _ in 0..5 {
            packer.put(256, &[0; 10], Counted::Other);
        }
        packer.put(257, &[0; 30], Counted::Other);
        let lengths: Vec<_> = packer.finish().iter().map(|it| it.bytes.len()).collect();
        assert_eq!(lengths, [40, 40, 30, 50], "one that fits nowhere is alone");
        assert_eq!(Packer::new(0, 40).finish(), []);
    }
}
