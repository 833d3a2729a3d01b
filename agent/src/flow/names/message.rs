//! A message of DNS (RFC 1035, 4), as far as it says which addresses a name has.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::RData,
};

/// A message that was read.
#[derive(Debug)]
pub(super) struct Message<'m>(Packet<'m>);

/// What it is, with its number, by which a resolver's answer is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Question(u16, Question),
    Answer(u16, Question),
    /// About something else than addresses.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// As people write it, in small letters (RFC 4343), without a dot at its end.
    pub(super) name: String,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Of a message before its questions.
const HEADER: usize = 12;
/// Of a question and of a record, which have at least a root, a type and a class; and a time and a length.
const QUESTION: usize = 5;
const RECORD: usize = 11;
/// Names that lead on to another.
const CHAIN: usize = 16;
/// Of one answer.
const ADDRESSES: usize = 64;

/// `None` of what is no message.
pub(super) fn read(bytes: &[u8]) -> Option<Message<'_>> {
    if !has_room(bytes)? {
        return None;
    }
    Packet::parse(bytes).ok().map(Message)
}

impl Message<'_> {
    pub(super) fn content(&self) -> Content {
        let Self(packet) = self;
        let number = packet.id();
        match (self.asked(), packet.has_flags(PacketFlag::RESPONSE)) {
            (None, _) => Content::Other,
            (Some((name, family)), false) => Content::Question(number, Question::new(name, family)),
            (Some((name, family)), true) => Content::Answer(number, Question::new(name, family)),
        }
    }

    /// The one question, if it is for addresses.
    fn asked(&self) -> Option<(&Name<'_>, Family)> {
        let Self(packet) = self;
        let [asked] = packet.questions.as_slice() else {
            return None;
        };
        if packet.opcode() != OPCODE::StandardQuery {
            return None;
        }
        let family = match (asked.qtype, asked.qclass) {
            (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN)) => Family::V4,
            (QTYPE::TYPE(TYPE::AAAA), QCLASS::CLASS(CLASS::IN)) => Family::V6,
            _ => return None,
        };
        Some((&asked.qname, family))
    }

    /// That the name asked for leads to, and for how long. To be asked of what is the answer to a question.
    pub(super) fn addresses(&self) -> Vec<(IpAddr, Duration)> {
        let Self(packet) = self;
        match self.asked() {
            Some((name, family)) if packet.rcode() == RCODE::NoError => {
                addresses(name, family, &packet.answers)
            }
            _ => Vec::new(),
        }
    }
}

impl Question {
    fn new(name: &Name<'_>, family: Family) -> Self {
        Self {
            name: text(name),
            family,
        }
    }
}

/// Whether it is long enough for as much as it says it holds: who reads it makes room for that first.
fn has_room(bytes: &[u8]) -> Option<bool> {
    let (_, counts) = bytes.get(..HEADER)?.split_first_chunk::<4>()?;
    let counts: Vec<usize> = counts
        .chunks_exact(2)
        .filter_map(|count| Some(u16::from_be_bytes(count.try_into().ok()?).into()))
        .collect();
    let (questions, records) = counts.split_first()?;
    let records: usize = records.iter().sum();
    Some(HEADER + questions * QUESTION + records * RECORD <= bytes.len())
}

/// Those of `name` itself, or of what it is said to be another name for.
fn addresses<'r, 'm>(
    name: &'r Name<'m>,
    family: Family,
    records: &'r [ResourceRecord<'m>],
) -> Vec<(IpAddr, Duration)> {
    let mut owner = name;
    let mut lives = Duration::MAX;
    for _ in 0..CHAIN {
        let next = of(owner, records).find_map(|record| match &record.rdata {
            RData::CNAME(target) => Some((&target.0, time_to_live(record.ttl))),
            _ => None,
        });
        let Some((target, time)) = next else { break };
        owner = target;
        lives = lives.min(time);
    }
    let found = of(owner, records).filter_map(|record| {
        let address = match (&record.rdata, family) {
            (RData::A(it), Family::V4) => IpAddr::V4(Ipv4Addr::from(it.address)),
            (RData::AAAA(it), Family::V6) => IpAddr::V6(Ipv6Addr::from(it.address)),
            _ => return None,
        };
        Some((address, lives.min(time_to_live(record.ttl))))
    });
    found.take(ADDRESSES).collect()
}

fn of<'r, 'm>(
    owner: &'r Name<'m>,
    records: &'r [ResourceRecord<'m>],
) -> impl Iterator<Item = &'r ResourceRecord<'m>> {
    let records = records.iter().filter(|it| it.class == CLASS::IN);
    records.filter(move |it| it.name == *owner)
}

/// What is more than 31 bits is nothing (RFC 2181, 8).
fn time_to_live(seconds: u32) -> Duration {
    let is_sound = i32::try_from(seconds).is_ok();
    Duration::from_secs(if is_sound { seconds.into() } else { 0 })
}

/// As a zone file has it (RFC 1035, 5.1; RFC 4343, 2.1): any bytes may be in it, and break no line.
fn text(name: &Name<'_>) -> String {
    let mut text = String::new();
    for (place, label) in name.as_bytes().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' | b'"' => text.extend(['\\', char::from(*byte)]),
                // No name of a workload has a letter but these.
                b'!'..=b'~' if *byte != b'/' => text.push(char::from(byte.to_ascii_lowercase())),
                _ => write!(text, "\\{byte:03}").unwrap_or_default(),
            }
        }
    }
    text
}
