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

use self::message::{Content, Question};
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
    /// When room was made last. To look through all names takes long, and who fills them is not to have it done
    /// with each answer.
    cleared: BootTime,
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
        let Some(message) = message::read(bytes) else {
            counts.malformed.fetch_add(1, Relaxed);
            return;
        };
        match message.content() {
            Content::Question(number, question) if is_sent => {
                counts.questions.fetch_add(1, Relaxed);
                let pending = Pending { question, at };
                if !self.endpoint(head.endpoint).ask(asked(number), pending) {
                    counts.crowded.fetch_add(1, Relaxed);
                }
            }
            Content::Answer(number, question) if !is_sent => {
                let endpoint = self.endpoints.get_mut(&head.endpoint);
                // Before anything is made of it: whoever likes sends answers.
                if !endpoint.is_some_and(|it| it.has_asked(asked(number), &question, at)) {
                    counts.unasked.fetch_add(1, Relaxed);
                    return;
                }
                counts.answers.fetch_add(1, Relaxed);
                if !question.name.is_empty() {
                    self.learn(head.endpoint, &question.name, &message.addresses(), at);
                }
            }
            Content::Other => {}
            Content::Question(..) | Content::Answer(..) => {
                counts.unasked.fetch_add(1, Relaxed);
            }
        }
    }

    fn endpoint(&mut self, id: u16) -> &mut Endpoint {
        self.endpoints.entry(id).or_default()
    }

    fn learn(&mut self, id: u16, name: &str, addresses: &[(IpAddr, Duration)], at: BootTime) {
        if self.held + addresses.len() > ALL_ADDRESSES && at.since(self.cleared) >= PATIENCE {
            self.cleared = at;
            self.drop_ended(at, Duration::ZERO);
        }
        let mut is_full = self.held + addresses.len() > ALL_ADDRESSES;
        let endpoint = self.endpoints.entry(id).or_default();
        let name: Arc<str> = name.into();
        for (address, time_to_live) in addresses {
            let until = at.plus((*time_to_live).clamp(SHORTEST, LONGEST));
            if let Some(known) = endpoint.known.get_mut(address)
                && known.name == name
            {
                known.until = known.until.max(until);
                continue;
            }
            let known = Known {
                name: Arc::clone(&name),
                since: at,
                until,
            };
            let is_new = endpoint.known.insert(*address, known).is_none();
            if is_new && (is_full || endpoint.known.len() > ADDRESSES) {
                // The one that ends first of those before, and nobody else's; if there is none, this one.
                let before = endpoint.known.iter().filter(|(it, _)| *it != address);
                let first = before.min_by_key(|(_, known)| known.until);
                let first = first.map_or(*address, |(address, _)| *address);
                endpoint.known.remove(&first);
            } else if is_new {
                self.held += 1;
                is_full = self.held >= ALL_ADDRESSES;
            }
        }
    }

    /// Names of which the time was over so long ago, and that no flow has begun with since.
    pub(crate) fn drop_ended(&mut self, now: BootTime, ago: Duration) {
        let mut held = 0;
        self.endpoints.retain(|_, endpoint| {
            let Endpoint { asked, known } = endpoint;
            known.retain(|_, known| known.until.plus(ago) >= now);
            asked.retain(|_, pending| now.since(pending.at) < PATIENCE);
            held += known.len();
            !known.is_empty() || !asked.is_empty()
        });
        self.held = held;
        self.counts.held.store(held as u64, Relaxed);
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

    /// Whether this is the answer to something that was asked, which it thereby is no more. One that is not leaves it
    /// open, since the right one may come.
    fn has_asked(&mut self, asked: Asked, question: &Question, at: BootTime) -> bool {
        let is_it =
            |pending: &Pending| pending.question == *question && at.since(pending.at) < PATIENCE;
        self.asked.get(&asked).is_some_and(is_it) && self.asked.remove(&asked).is_some()
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
