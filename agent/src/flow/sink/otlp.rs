//! Lines as OpenTelemetry logs, handed to a collector over HTTP or gRPC.
//!
//! | module | holds |
//! |---|---|
//! | [`endpoint`], [`headers`] | what the settings say |
//! | [`encode`], [`message`] | log records, and their form in bytes |
//! | [`http`], [`grpc`], [`answer`] | what is asked, and what is answered |
//! | [`client`], [`wire`] | who asks, and connections |
//! | [`metric`], [`push`] | the agent's metrics |
//!
//! A batch is one request. What of it was taken is known by the answer alone: where there is none it is sent again, and
//! a collector that had taken it has it twice.

mod answer;
mod client;
mod encode;
mod endpoint;
mod grpc;
mod headers;
mod http;
mod message;
mod metric;
mod push;
mod wire;

use std::{
    borrow::Cow,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use flate2::write::GzEncoder;
use prost::Message as _;
use serde::Serialize;
use tracing::warn;

use self::{answer::Answer, client::Client};
pub(crate) use self::{
    endpoint::{Endpoint, Protocol},
    headers::Headers,
    push::{Push, Pushed},
};
use super::{
    Compression,
    output::{Failure, Output, Settled},
    remote::Tls,
};
use crate::flow::{
    clock::WallTime,
    record::{Kind, Line},
};

/// Prints as what gives the same settings, but for the values of headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: Protocol,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub(crate) headers: Headers,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) headers_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tls: Tls,
    pub(crate) compression: Compression,
    pub(crate) timeout_seconds: u8,
    /// What is scraped of the agent is handed over, too.
    pub(crate) metrics: bool,
}

fn is_default(tls: &Tls) -> bool {
    *tls == Tls::default()
}

/// The longest rest that a collector is granted: it may be gone, and another one in its place.
const REST: Duration = Duration::from_mins(1);

/// Between two complaints about what a collector took in part.
const COMPLAINT: Duration = Duration::from_mins(1);

pub(super) struct Otlp {
    client: Client,
    /// The collector has asked to be left alone until then.
    not_before: Option<Instant>,
    /// What it said when it asked for that.
    asked: Option<String>,
    complained: Option<Instant>,
}

impl OtlpSettings {
    /// Files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.tls.files().chain(self.headers_file.clone())
    }
}

impl Otlp {
    /// # Errors
    ///
    /// A file that proves who one is cannot be read: a mistake that is better told at the start than in a log.
    pub(super) fn open(settings: OtlpSettings) -> io::Result<Self> {
        let told = |error: anyhow::Error| io::Error::other(format!("{error:#}"));
        Ok(Self {
            client: Client::new(settings).map_err(told)?,
            not_before: None,
            asked: None,
            complained: None,
        })
    }

    fn send(&mut self, lines: &[Cow<'_, Line>]) -> anyhow::Result<Answer> {
        let message = encode::request(lines, WallTime::now()).encode_to_vec();
        self.client.ask(client::LOGS, message)
    }

    fn endpoint(&self) -> &Endpoint {
        &self.client.settings.endpoint
    }

    /// Which records a collector has rejected it does not say: the last ones are counted.
    fn taken(
        &mut self,
        lines: &[Cow<'_, Line>],
        rejected: u64,
        message: &str,
    ) -> Result<Settled, Failure> {
        let rejected = usize::try_from(rejected).unwrap_or(usize::MAX);
        if rejected >= lines.len() {
            let error = anyhow!("{}: all are rejected: {message}", self.endpoint());
            return Err(Failure::Refused(error));
        }
        if rejected > 0 || !message.is_empty() {
            self.complain(rejected, message);
        }
        let mut settled = Settled::exported(lines);
        // Of those that are about no flow, and may be what it rejects, nothing is counted.
        let others = lines.iter().filter(|line| line.flow().is_none()).count();
        let rejected = rejected.saturating_sub(others);
        let flows = lines.iter().rev().filter_map(|line| line.flow());
        for flow in flows.take(rejected) {
            settled.exported -= 1;
            let mut lost = Kind::ALL.into_iter().zip(&mut settled.lost);
            if let Some((_, lost)) = lost.find(|(kind, _)| *kind == flow.kind) {
                *lost += 1;
            }
        }
        Ok(settled)
    }

    fn complain(&mut self, rejected: usize, message: &str) {
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAINT) {
            return;
        }
        self.complained = Some(Instant::now());
        let endpoint = self.endpoint();
        warn!(%endpoint, rejected, "a collector has something to say about flow records: {message}");
    }
}

impl Output for Otlp {
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure> {
        let away = |error: anyhow::Error, endpoint: &Endpoint| {
            Failure::Away(error.context(endpoint.to_string()))
        };
        if self.not_before.is_some_and(|until| Instant::now() < until) {
            let why = self.asked.clone().unwrap_or_default();
            return Err(away(anyhow!(why), self.endpoint()));
        }
        self.not_before = None;
        match self.send(lines) {
            Ok(Answer::Taken { rejected, message }) => self.taken(lines, rejected, &message),
            Ok(Answer::Later { why, rest }) => {
                self.not_before = rest.map(|rest| Instant::now() + rest.min(REST));
                self.asked = Some(why.clone());
                Err(away(anyhow!(why), self.endpoint()))
            }
            Ok(Answer::Never(why)) => {
                let error = anyhow!(why).context(self.endpoint().to_string());
                Err(Failure::Refused(error))
            }
            Err(error) => Err(away(error, self.endpoint())),
        }
    }

    fn tick(&mut self) -> Settled {
        self.client.wire.let_go();
        Settled::default()
    }
}

/// How this program calls itself.
fn agent() -> String {
    format!("{}/{}", encode::NAME, encode::VERSION)
}

fn packed(message: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(message)?;
    packer.finish()
}

#[cfg(test)]
mod tests;
