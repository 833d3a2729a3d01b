//! What addresses are called: what endpoints were told by the resolvers that they asked.
//!
//! Believed is what answers a question that was seen: from whom it was put to, over the same ports, with its number and
//! its words; and of that, the addresses that the name asked for leads to. A pure state machine: time comes in
//! with each packet.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | a message of DNS as far as it matters here |

mod message;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use agent_common::{
    dns::DnsHead,
    protocol::{TCP, UDP},
    table::Direction,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::message::{Answer, Message, Question};
use super::{clock::BootTime, key};

/// A packet that was permitted between an endpoint and a resolver.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) head: DnsHead,
    pub(crate) payload: Box<[u8]>,
}

/// Resolvers give up earlier.
const PATIENCE: Duration = Duration::from_secs(10);
/// A name is used for as long as its time to live says, but for no shorter and no longer than this: who was told
/// connects a moment later, and nobody is to hold room for years.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_hours(24);
/// Of an endpoint: questions without an answer yet.
const QUESTIONS: usize = 256;
/// Of an endpoint: addresses with names.
const ADDRESSES: usize = 1024;
/// Of all endpoints.
const ALL_ADDRESSES: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Who is believed; all who are asked if there are none.
    resolvers: Vec<IpNet>,
    endpoints: HashMap<u16, Endpoint>,
    /// Addresses that have names.
    held: usize,
    counts: Arc<NameCounts>,
}

#[derive(Debug, Default)]
struct Endpoint {
    asked: HashMap<Asked, Pending>,
    known: HashMap<IpAddr, Known>,
}

/// A question by all but its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    protocol: u8,
    local: ([u8; 16], u16),
    remote: [u8; 16],
    number: u16,
}

#[derive(Debug)]
struct Pending {
    question: Question,
    at: BootTime,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    since: BootTime,
    until: BootTime,
}

/// What has become of messages. Each stands alone.
#[derive(Debug, Default)]
pub(crate) struct NameCounts {
    questions: AtomicU64,
    answers: AtomicU64,
    /// No DNS.
    malformed: AtomicU64,
    /// Answers to what was not asked, or not of these.
    unasked: AtomicU64,
    /// Of resolvers that are not to be believed.
    untrusted: AtomicU64,
    /// Parts of a message over TCP.
    parts: AtomicU64,
    /// Questions for which there was no room.
    crowded: AtomicU64,
    /// Addresses that have names now.
    held: AtomicU64,
}

/// As status shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameStatus {
    /// Addresses that have names.
    pub(crate) addresses: u64,
    pub(crate) questions: u64,
    /// That were believed.
    pub(crate) answers: u64,
    pub(crate) malformed: u64,
    pub(crate) unasked: u64,
    pub(crate) untrusted: u64,
    pub(crate) parts: u64,
    pub(crate) crowded: u64,
    /// For which the ring buffer had no room, or which were too long.
    pub(crate) lost: u64,
}

impl Names {
    pub(crate) fn new(resolvers: Vec<IpNet>, counts: Arc<NameCounts>) -> Self {
        Self {
            resolvers,
            counts,
            ..Self::default()
        }
    }

    pub(crate) fn hear(&mut self, heard: &Heard) {
        let Heard { head, payload } = heard;
        let counts = Arc::clone(&self.counts);
        let remote = key::address(head.family, head.remote);
        let is_believed =
            self.resolvers.is_empty() || self.resolvers.iter().any(|it| it.contains(&remote));
        if !is_believed {
            counts.untrusted.fetch_add(1, Relaxed);
            return;
        }
        match head.protocol {
            UDP => self.message(head, payload),
            TCP => {
                let mut rest = &payload[..];
                while let Some((length, after)) = rest.split_first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*length));
                    let Some((message, after)) = after.split_at_checked(length) else {
                        break;
                    };
                    self.message(head, message);
                    rest = after;
                }
                if !rest.is_empty() {
                    counts.parts.fetch_add(1, Relaxed);
                }
            }
            _ => {}
        }
        counts.held.store(self.held as u64, Relaxed);
    }

    fn message(&mut self, head: &DnsHead, bytes: &[u8]) {
        let counts = Arc::clone(&self.counts);
        let asked = |number| Asked {
            protocol: head.protocol,
            local: (head.local, head.local_port),
            remote: head.remote,
            number,
        };
        let at = BootTime(head.time);
        let is_sent = head.direction == Direction::Egress as u8;
        match message::read(bytes) {
            Some(Message::Question(number, question)) if is_sent => {
                counts.questions.fetch_add(1, Relaxed);
                let pending = Pending { question, at };
                if !self.endpoint(head.endpoint).ask(asked(number), pending) {
                    counts.crowded.fetch_add(1, Relaxed);
                }
            }
            Some(Message::Answer(number, answer)) if !is_sent => {
                let endpoint = self.endpoints.get_mut(&head.endpoint);
                let question = endpoint.and_then(|it| it.answered(asked(number), &answer, at));
                let Some(question) = question else {
                    counts.unasked.fetch_add(1, Relaxed);
                    return;
                };
                counts.answers.fetch_add(1, Relaxed);
                self.learn(head.endpoint, &question, &answer, at);
            }
            Some(Message::Other) => {}
            Some(_) => drop(counts.unasked.fetch_add(1, Relaxed)),
            None => drop(counts.malformed.fetch_add(1, Relaxed)),
        }
    }

    fn endpoint(&mut self, id: u16) -> &mut Endpoint {
        self.endpoints.entry(id).or_default()
    }

    fn learn(&mut self, id: u16, question: &Question, answer: &Answer, at: BootTime) {
        let is_full = self.held >= ALL_ADDRESSES;
        let endpoint = self.endpoints.entry(id).or_default();
        let name: Arc<str> = question.name.as_str().into();
        for (address, time_to_live) in &answer.addresses {
            let lives = (*time_to_live).clamp(SHORTEST, LONGEST);
            let until = at.plus(lives);
            if let Some(known) = endpoint.known.get_mut(address) {
                if known.name != name || known.until < at {
                    *known = Known {
                        name: Arc::clone(&name),
                        since: at,
                        until,
                    };
                }
                known.until = known.until.max(until);
                continue;
            }
            if is_full || endpoint.known.len() >= ADDRESSES {
                // Of nobody else's.
                let oldest = endpoint.known.iter().min_by_key(|(_, known)| known.until);
                let Some(oldest) = oldest.map(|(address, _)| *address) else {
                    continue;
                };
                endpoint.known.remove(&oldest);
                self.held -= 1;
            }
            let known = Known {
                name: Arc::clone(&name),
                since: at,
                until,
            };
            endpoint.known.insert(*address, known);
            self.held += 1;
        }
    }

    /// What the endpoint had been told that this address is, at a moment.
    pub(crate) fn of(&self, endpoint: u16, address: IpAddr, at: BootTime) -> Option<Arc<str>> {
        let known = self.endpoints.get(&endpoint)?.known.get(&address)?;
        let is_then = (known.since..=known.until).contains(&at);
        is_then.then(|| Arc::clone(&known.name))
    }

    /// Endpoints that there are no more: their numbers may be others' next.
    pub(crate) fn forget(&mut self, gone: &HashSet<u16>) {
        self.endpoints.retain(|id, endpoint| {
            let stays = !gone.contains(id);
            if !stays {
                self.held -= endpoint.known.len();
            }
            stays
        });
    }
}

impl Endpoint {
    /// False if there is no room.
    fn ask(&mut self, asked: Asked, pending: Pending) -> bool {
        if self.asked.len() >= QUESTIONS {
            let now = pending.at;
            self.asked
                .retain(|_, pending| now.since(pending.at) < PATIENCE);
        }
        let has_room = self.asked.len() < QUESTIONS || self.asked.contains_key(&asked);
        if has_room {
            self.asked.insert(asked, pending);
        }
        has_room
    }

    /// The question that this is the answer to. One that is not leaves it open, since the right one may come.
    fn answered(&mut self, asked: Asked, answer: &Answer, at: BootTime) -> Option<Question> {
        let pending = self.asked.get(&asked)?;
        if pending.question != answer.question || at.since(pending.at) >= PATIENCE {
            return None;
        }
        Some(self.asked.remove(&asked)?.question)
    }
}

impl NameCounts {
    /// `lost` is what the kernel had no room for.
    pub(crate) fn status(&self, lost: u64) -> NameStatus {
        NameStatus {
            addresses: self.held.load(Relaxed),
            questions: self.questions.load(Relaxed),
            answers: self.answers.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            unasked: self.unasked.load(Relaxed),
            untrusted: self.untrusted.load(Relaxed),
            parts: self.parts.load(Relaxed),
            crowded: self.crowded.load(Relaxed),
            lost,
        }
    }
}
