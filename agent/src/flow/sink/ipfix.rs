//! Flow records by IPFIX (RFC 7011, 7012 and 5103) to a collector.
//!
//! | module | holds |
//! |---|---|
//! | [`element`] | elements and their values |
//! | [`table`] | kinds of records, and their templates |
//! | [`flow`], [`other`] | which elements there are |
//! | [`message`], [`encoder`] | lines as messages |
//! | [`session`], [`retained`] | messages on their way |

mod element;
mod encoder;
mod flow;
mod message;
mod other;
mod retained;
mod session;
mod table;

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub(crate) use self::element::REVERSE;
use self::{encoder::Encoder, message::Message, retained::Retained, session::Session};
use super::{
    output::{Failure, Output, Settled},
    remote::Remote,
};
use crate::flow::record::Line;

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IpfixSettings {
    pub(crate) to: Remote,
    pub(crate) transport: Transport,
    pub(crate) observation_domain: u32,
    /// Between two times that UDP takes all templates. A stream takes them once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template_seconds: Option<u64>,
    /// Of one message, without the headers of what carries it.
    pub(crate) message_bytes: u16,
    /// Who has given our own elements their numbers.
    pub(crate) enterprise: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    #[default]
    Udp,
    Tcp,
}

/// Bytes of a message into which each record fits, and each template.
pub(crate) const SMALLEST_MESSAGE: u16 = 600;

/// A name may lead elsewhere after so long.
const FIND: Duration = Duration::from_mins(1);
/// Between two attempts to reach a collector for the sake of what was sent before it was away.
const AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Ipfix {
    settings: IpfixSettings,
    encoder: Encoder,
    session: Option<Session>,
    retained: Retained,
    /// At a collector that has refused.
    attempt: usize,
    attempted_at: Instant,
}

impl Transport {
    /// Bytes of a message: of a datagram, what IPv4 leaves of it; of a stream, what the header can tell.
    pub(crate) fn most_bytes(self) -> u16 {
        match self {
            Self::Udp => 65_507,
            Self::Tcp => u16::MAX,
        }
    }

    /// What passes in one frame nearly everywhere; and as much as there may be.
    pub(crate) fn default_bytes(self) -> u16 {
        match self {
            Self::Udp => 1400,
            Self::Tcp => self.most_bytes(),
        }
    }
}

impl Output for Ipfix {
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure> {
        self.hand_over(lines).map_err(Failure::Away)?;
        Ok(self.retained.settle(Instant::now()))
    }

    fn tick(&mut self) -> Settled {
        if let Err(error) = self.keep_up() {
            tracing::debug!(to = %self.settings.to, "IPFIX: {error:#}");
        }
        self.retained.settle(Instant::now())
    }

    fn finish(&mut self) -> Settled {
        if self.retained.has_again() {
            drop(self.session());
        }
        self.retained.give_up();
        self.retained.settle(Instant::now())
    }
}

impl Ipfix {
    pub(super) fn new(settings: IpfixSettings) -> Self {
        let IpfixSettings {
            observation_domain,
            enterprise,
            message_bytes,
            ..
        } = settings;
        Self {
            encoder: Encoder::new(observation_domain, enterprise, message_bytes.into()),
            session: None,
            retained: Retained::default(),
            attempt: 0,
            attempted_at: Instant::now(),
            settings,
        }
    }

    fn hand_over(&mut self, lines: &[Cow<'_, Line>]) -> anyhow::Result<()> {
        self.session()?;
        if self.encoder.is_full() {
            // What was sent cannot be read by the templates to come.
            self.retained.give_up();
            self.encoder.forget();
            self.session = None;
            self.session()?;
        }
        let mut messages = self.encoder.encode(lines);
        self.send(&mut messages)?;
        self.retained.sent(Instant::now(), messages);
        Ok(())
    }

    /// What is to be done whatever comes.
    fn keep_up(&mut self) -> anyhow::Result<()> {
        let is_due = self.attempted_at.elapsed() >= AGAIN;
        if self.session.is_some() || self.retained.has_again() && is_due {
            self.session()?;
        }
        Ok(())
    }

    /// Sees to it that there is a session as it is to be, as far as one is told.
    fn session(&mut self) -> anyhow::Result<()> {
        if let Some(session) = &mut self.session {
            if session.check().is_err() {
                // It may have come back meanwhile.
                self.drop_session();
            } else if session.found_at.elapsed() >= FIND && !session.is_still_at(&self.settings.to)
            {
                self.session = None;
            }
        }
        if self.session.is_none() {
            self.open()?;
        }
        self.refresh()?;
        let mut again = self.retained.take_again();
        let sent = self.send(&mut again);
        self.retained.sent(Instant::now(), again);
        if sent.is_err() {
            self.retained.keep();
        }
        sent
    }

    fn open(&mut self) -> anyhow::Result<()> {
        self.attempted_at = Instant::now();
        let to = &self.settings.to;
        let opened = match self.settings.transport {
            Transport::Udp => Session::udp(to, self.attempt),
            Transport::Tcp => Session::tcp(to),
        };
        let mut session = opened?;
        let tried = session
            .send(&mut self.encoder.templates())
            .and_then(|()| session.try_out());
        if let Err(error) = tried {
            self.attempt = self.attempt.wrapping_add(1);
            return Err(error.into());
        }
        self.session = Some(session);
        Ok(())
    }

    /// Sends all templates again, where they may have been lost.
    fn refresh(&mut self) -> anyhow::Result<()> {
        let every = self.settings.template_seconds.map(Duration::from_secs);
        let is_due =
            |session: &Session| every.is_some_and(|every| session.templates_at.elapsed() >= every);
        if !self.session.as_ref().is_some_and(is_due) {
            return Ok(());
        }
        let mut templates = self.encoder.templates();
        self.send(&mut templates)?;
        if let Some(session) = &mut self.session {
            session.templates_at = Instant::now();
        }
        Ok(())
    }

    /// Half a message would tear a stream, and what a collector has not taken, it has lost: the session ends with it.
    fn send(&mut self, messages: &mut [Message]) -> anyhow::Result<()> {
        let Some(session) = &mut self.session else {
            anyhow::bail!("no session");
        };
        // On the way to a collector on this machine, a refusal is there at once.
        let sent = session.send(messages).and_then(|()| session.check());
        if sent.is_err() {
            self.drop_session();
        }
        Ok(sent?)
    }

    fn drop_session(&mut self) {
        self.session = None;
        self.attempt = self.attempt.wrapping_add(1);
        self.retained.keep();
    }
}

#[cfg(test)]
mod tests;
