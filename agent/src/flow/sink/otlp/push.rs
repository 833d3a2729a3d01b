//! The agent's metrics on their way to a collector, whenever it is time.
//!
//! They are sums since the agent began: what does not arrive is in what comes next, and nothing is kept.

use std::time::Duration;

use prost::Message as _;

use super::{
    OtlpSettings,
    answer::Answer,
    client::{Client, METRICS},
    encode, metric,
};
use crate::flow::clock::WallTime;

pub(crate) struct Push {
    client: Client,
    node: String,
}

/// What has become of a push.
#[derive(Debug)]
pub(crate) enum Pushed {
    All,
    /// The collector is away, or asks for some rest.
    Later {
        why: String,
        rest: Option<Duration>,
    },
    /// Some of it was not taken, and would not be the next time.
    Never(String),
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Push({})", self.client.settings.endpoint)
    }
}

impl Push {
    /// # Errors
    ///
    /// A file that proves who one is cannot be read.
    pub(crate) fn new(settings: OtlpSettings, node: &str) -> anyhow::Result<Self> {
        let client = Client::new(settings)?;
        let node = node.to_owned();
        Ok(Self { client, node })
    }

    /// Hands over what would be scraped. On a thread that may wait.
    pub(crate) fn push(&mut self, text: &str) -> Pushed {
        match self.push_all(text) {
            Ok(pushed) => pushed,
            Err(error) => Pushed::Later {
                why: format!("{error:#}"),
                rest: None,
            },
        }
    }

    /// Points that are rejected are not sent again: the others of this push still are.
    fn push_all(&mut self, text: &str) -> anyhow::Result<Pushed> {
        let mut pushed = Pushed::All;
        let resource = encode::resource(&self.node);
        let now = encode::unix(WallTime::now());
        for request in metric::requests(text, &resource, now) {
            match self.client.ask(METRICS, request.encode_to_vec())? {
                Answer::Taken { rejected: 0, .. } => {}
                Answer::Taken { rejected, message } => {
                    pushed = Pushed::Never(format!("{rejected} points are rejected: {message}"));
                }
                Answer::Later { why, rest } => return Ok(Pushed::Later { why, rest }),
                Answer::Never(why) => return Ok(Pushed::Never(why)),
            }
        }
        Ok(pushed)
    }
}
