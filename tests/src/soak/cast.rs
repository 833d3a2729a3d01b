//! Who takes part, what they can be asked, and the traffic that never stops.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::cgroup::{Cgroup, Confined};
use crate::flood::{Flood, Receiver};
use crate::lab::{Lab, Peer};
use crate::probe::{Outcome, Protocol};
use crate::prober::Prober;
use crate::scene::{OTHER_PORT, PORT};
use crate::serve::Service;
use crate::soak::world::{Actor, COUNTED, GUESTS, RESIDENTS, World};
use crate::stream::Stream;

/// Datagrams a second, over each family, of who is permitted and of who is denied.
const PERMITTED: u32 = 250;
const DENIED: u32 = 1_000;
/// How often a permitted exchange is tried before it counts as denied: a machine that does not
/// come round to it in time has denied nothing. Of what is denied one success is enough.
const TRIES: usize = 3;

/// Dropped in order.
pub(super) struct Cast {
    receiver: Receiver,
    _services: Vec<Service>,
    guests: BTreeMap<Actor, Guest>,
    group: Option<Group>,
    residents: BTreeMap<Actor, Peer>,
    helper: PathBuf,
    pub(super) lab: Lab,
}

struct Guest {
    _services: Vec<Service>,
    peer: Peer,
}

struct Group {
    _processes: Vec<Confined>,
    group: Cgroup,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Actor(Actor),
    Group,
}

/// One exchange, and whether policy permits it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    asker: Asker,
    protocol: Protocol,
    to: SocketAddr,
    pub(super) is_permitted: bool,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            asker,
            protocol,
            to,
            is_permitted,
        } = self;
        match asker {
            Asker::Actor(actor) => f.write_str(&actor.name())?,
            Asker::Group => f.write_str("group")?,
        }
        let said = if *is_permitted { "permitted" } else { "denied" };
        write!(f, " to {to} {protocol}, {said} by policy")
    }
}

impl Cast {
    pub(super) fn gather(helper: PathBuf) -> Result<Self> {
        let lab = Lab::bridged()?;
        let mut residents = BTreeMap::new();
        let mut services = Vec::new();
        for actor in RESIDENTS {
            let peer = lab.peer(&actor.name(), actor.number())?;
            for protocol in Protocol::ALL {
                for port in [PORT, OTHER_PORT] {
                    services.push(peer.serve(protocol, port)?);
                }
            }
            residents.insert(actor, peer);
        }
        let resident = |actor| residents.get(&actor).context("a resident");
        let receiver = resident(Actor::Server)?.hear(COUNTED)?;
        // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
        for actor in [Actor::Friend, Actor::Stranger] {
            for address in resident(Actor::Server)?.addresses() {
                let answered = resident(actor)?.ping(address) == Outcome::Allowed;
                ensure!(answered, "{address} does not answer");
            }
        }
        Ok(Self {
            receiver,
            _services: services,
            guests: BTreeMap::new(),
            group: None,
            residents,
            helper,
            lab,
        })
    }

    pub(super) fn is_here(&self, actor: Actor) -> bool {
        self.residents.contains_key(&actor) || self.guests.contains_key(&actor)
    }

    pub(super) fn guest_arrives(&mut self, actor: Actor) -> Result<()> {
        let peer = self.lab.peer(&actor.name(), actor.number())?;
        let guest = Guest {
            _services: vec![peer.serve_tcp(PORT)?],
            peer,
        };
        self.guests.insert(actor, guest);
        Ok(())
    }

    pub(super) fn guest_leaves(&mut self, actor: Actor) {
        self.guests.remove(&actor);
    }

    /// The group's path.
    pub(super) fn group_arrives(&mut self) -> Result<String> {
        let group = Cgroup::create(&self.lab, "service", &self.helper)?;
        let path = group.name().to_owned();
        let processes = vec![group.serve(self.lab.host(), Protocol::Tcp, PORT)?];
        self.group = Some(Group {
            _processes: processes,
            group,
        });
        Ok(path)
    }

    pub(super) fn group_leaves(&mut self) {
        self.group = None;
    }

    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// The names of all that is there and in the inventory.
    pub(super) fn endpoints(&self, world: &World) -> Vec<String> {
        let actors = RESIDENTS.into_iter().chain(GUESTS);
        let here = actors.filter(|actor| self.is_here(*actor) && world.is_known(*actor));
        let mut names: Vec<_> = here.map(|actor| format!("shop/{}", actor.name())).collect();
        if self.group.is_some() && world.group.is_some() {
            names.push("host/service".to_owned());
        }
        names
    }

    /// All that policy has something to say about.
    pub(super) fn questions(&self, world: &World) -> Vec<Question> {
        let mut questions = Vec::new();
        let mut ask = |asker, protocol, to, is_permitted| {
            questions.push(Question {
                asker,
                protocol,
                to,
                is_permitted,
            });
        };
        let here = RESIDENTS.into_iter().chain(GUESTS);
        for actor in here.filter(|actor| self.is_here(*actor) && *actor != Actor::Server) {
            // The captive's own policy lets it go nowhere near.
            for protocol in Protocol::ALL {
                for to in Actor::Server.at(PORT) {
                    let is_permitted = world.admits(actor, protocol);
                    ask(Asker::Actor(actor), protocol, to, is_permitted);
                }
            }
        }
        let [v4, v6] = Actor::Server.at(OTHER_PORT);
        ask(Asker::Actor(Actor::Friend), Protocol::Tcp, v4, false);
        ask(Asker::Actor(Actor::Wanderer), Protocol::Udp, v6, false);
        for protocol in Protocol::ALL {
            for to in Actor::Friend.at(PORT) {
                ask(Asker::Actor(Actor::Captive), protocol, to, false);
                ask(Asker::Actor(Actor::Server), protocol, to, true);
            }
            for to in Actor::Friend.at(OTHER_PORT) {
                ask(Asker::Actor(Actor::Captive), protocol, to, true);
            }
        }
        for guest in self.guests.keys().copied() {
            for to in guest.at(PORT) {
                let is_open = !world.is_known(guest);
                ask(Asker::Actor(Actor::Friend), Protocol::Tcp, to, true);
                ask(Asker::Actor(Actor::Stranger), Protocol::Tcp, to, is_open);
            }
        }
        if self.group.is_some() {
            let may_reach = world.group.as_ref().is_none_or(|group| group.may_reach);
            for to in Actor::Friend.at(PORT) {
                ask(Asker::Group, Protocol::Tcp, to, may_reach);
            }
            let is_open = world.group.is_none();
            for address in self.lab.host_addresses() {
                let to = SocketAddr::new(address, PORT);
                ask(Asker::Actor(Actor::Friend), Protocol::Tcp, to, true);
                ask(Asker::Actor(Actor::Stranger), Protocol::Tcp, to, is_open);
            }
        }
        questions
    }

    /// An error if anything is otherwise than policy says.
    pub(super) fn verify(&self, questions: &[Question]) -> Result<()> {
        let answers: Vec<Result<()>> = thread::scope(|scope| {
            let asked: Vec<_> = questions
                .iter()
                .map(|question| scope.spawn(|| self.answer(question)))
                .collect();
            let joined = asked.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|answer| answer.expect("a probe does not panic"))
                .collect()
        });
        answers.into_iter().collect()
    }

    fn answer(&self, question: &Question) -> Result<()> {
        let tries = if question.is_permitted { TRIES } else { 1 };
        let mut seen = Outcome::TimedOut;
        for _ in 0..tries {
            seen = self.probe(question)?;
            if seen == Outcome::Allowed {
                break;
            }
        }
        let passes = seen == Outcome::Allowed;
        ensure!(passes == question.is_permitted, "{question}: {seen}");
        Ok(())
    }

    fn probe(&self, question: &Question) -> Result<Outcome> {
        let Question {
            asker,
            protocol,
            to,
            is_permitted: _,
        } = *question;
        match asker {
            Asker::Actor(actor) => Ok(self.peer(actor)?.probe(protocol, to)),
            Asker::Group => {
                let group = self.group.as_ref().context("the group")?;
                group.group.probe(self.lab.host(), protocol, to)
            }
        }
    }

    pub(super) fn peer(&self, actor: Actor) -> Result<&Peer> {
        let guest = || self.guests.get(&actor).map(|guest| &guest.peer);
        let peer = self.residents.get(&actor).or_else(guest);
        peer.with_context(|| format!("{} is not here", actor.name()))
    }
}

/// What runs from beginning to end: connections that are permitted whatever happens.
pub(super) struct Lasting(Vec<Stream>);

impl Lasting {
    pub(super) fn begin(cast: &Cast) -> Result<Self> {
        let mut streams = Vec::new();
        for to in Actor::Server.at(PORT) {
            streams.push(cast.peer(Actor::Friend)?.stream(to)?);
        }
        for to in Actor::Friend.at(OTHER_PORT) {
            streams.push(cast.peer(Actor::Captive)?.stream(to)?);
        }
        Ok(Self(streams))
    }

    pub(super) fn goes_on(&self) -> Result<()> {
        self.0.iter().try_for_each(Stream::advances)
    }

    /// Bytes that came back, and segments that were sent more than once.
    pub(super) fn end(self) -> Result<(u64, u64)> {
        let (mut echoed, mut again) = (0, 0);
        for stream in self.0 {
            let progress = stream.finish();
            ensure!(progress.broken.is_none(), "a stream broke: {progress:?}");
            echoed += progress.echoed;
            again += u64::from(progress.retransmitted);
        }
        Ok((echoed, again))
    }
}

/// What is tried all through a phase.
pub(super) struct Traffic {
    denied: Vec<Prober>,
    permitted_floods: Vec<(Flood, u64)>,
    denied_floods: Vec<Flood>,
}

/// How much of it there was.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Volume {
    pub(super) attempts: u64,
    pub(super) denied_datagrams: u64,
    pub(super) permitted_datagrams: u64,
}

impl Traffic {
    pub(super) fn begin(cast: &Cast) -> Result<Self> {
        let mut denied = Vec::new();
        for protocol in Protocol::ALL {
            for to in Actor::Server.at(PORT) {
                denied.push(cast.peer(Actor::Stranger)?.prober(protocol, to));
            }
            for to in Actor::Friend.at(PORT) {
                denied.push(cast.peer(Actor::Captive)?.prober(protocol, to));
            }
        }
        let (mut permitted_floods, mut denied_floods) = (Vec::new(), Vec::new());
        for (family, to) in Actor::Server.at(COUNTED).into_iter().enumerate() {
            let friend = cast.peer(Actor::Friend)?;
            let heard = friend.addresses().get(family).copied();
            let heard = cast.receiver.heard(heard.context("an address")?);
            permitted_floods.push((friend.flood(to, PERMITTED)?, heard));
            denied_floods.push(cast.peer(Actor::Stranger)?.flood(to, DENIED)?);
        }
        Ok(Self {
            denied,
            permitted_floods,
            denied_floods,
        })
    }

    /// Waits until so many more attempts were made, at a hundred a second, and none succeeded.
    pub(super) fn goes_on(&self, attempts: u64) -> Result<()> {
        let due: Vec<u64> = self
            .denied
            .iter()
            .map(|prober| prober.attempts() + attempts)
            .collect();
        for (prober, due) in self.denied.iter().zip(due) {
            prober.makes(due.saturating_sub(prober.attempts()))?;
            let successes = prober.successes();
            ensure!(successes == 0, "{successes} denied attempts got through");
        }
        Ok(())
    }

    pub(super) fn end(self, cast: &Cast) -> Result<Volume> {
        let Self {
            mut denied,
            permitted_floods,
            denied_floods,
        } = self;
        denied.iter_mut().for_each(Prober::halt);
        let mut volume = Volume::default();
        for prober in denied {
            volume.attempts += prober.attempts();
            prober.finish_denied()?;
        }
        let friends = cast.peer(Actor::Friend)?.addresses();
        for ((flood, heard), from) in permitted_floods.into_iter().zip(friends) {
            let sent = flood.finish();
            cast.receiver
                .hears(from, heard + sent)
                .context("permitted")?;
            volume.permitted_datagrams += sent;
        }
        let strangers = cast.peer(Actor::Stranger)?.addresses();
        for (flood, from) in denied_floods.into_iter().zip(strangers) {
            volume.denied_datagrams += flood.finish();
            cast.receiver.hears(from, 0).context("denied")?;
        }
        Ok(volume)
    }
}
