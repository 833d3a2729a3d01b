//! The agent's metrics on their way to a collector, whenever it is time.
//!
//! They are sums since the agent began: what does not arrive is in what comes next, and nothing is kept.

use anyhow::{anyhow, bail};
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
    ///
    /// # Errors
    ///
    /// The collector is away, or does not take all of it.
    pub(crate) fn push(&mut self, text: &str) -> anyhow::Result<()> {
        let pushed = self.push_all(text);
        pushed.map_err(|error| error.context(self.client.settings.endpoint.to_string()))
    }

    fn push_all(&mut self, text: &str) -> anyhow::Result<()> {
        let resource = encode::resource(&self.node);
        let now = encode::unix(WallTime::now());
        for request in metric::requests(text, &resource, now) {
            match self.client.ask(METRICS, request.encode_to_vec())? {
                Answer::Taken { rejected: 0, .. } => {}
                Answer::Taken { rejected, message } => {
                    bail!("{rejected} points are rejected: {message}")
                }
                Answer::Later { why, .. } | Answer::Never(why) => return Err(anyhow!(why)),
            }
        }
        Ok(())
    }
}
