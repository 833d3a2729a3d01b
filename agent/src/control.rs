//! The control socket: how commands ask a running agent.
//!
//! A unix stream socket of mode 0600. A client sends **one line of JSON**, a [`Request`], of at
//! most [`REQUEST_LIMIT`] bytes:
//!
//! ```json
//! {"command":"status"}
//! {"command":"world"}
//! {"command":"pod","namespace":"shop","name":"api-0","interface":"veth1a2b3c","addresses":["10.0.0.7"],"waitMs":10000}
//! {"command":"flows","last":20,"follow":true,"verdict":"deny","workload":"shop/api-0"}
//! {"command":"flows","namespaces":["shop"],"labels":["app=api"],"networks":["10.0.0.0/8"],"ports":[443],"protocols":["tcp"]}
//! ```
//!
//! All fields of `flows` but the command may be left out: then the answer is everything that is
//! kept, and then it ends. `last` counts what passes the filter. Of a list one value has to fit, of `labels` all at one end.
//! Empty ones are not sent, so that an agent from before they were is asked what it understands.
//!
//! The answer is JSON, one value a line, and the end of the stream is its end:
//!
//! - `status`: one [`status::Status`];
//! - `world`: one [`ServedWorld`], what the agent enforces and of which node it is;
//! - `pod`: [`Held`], once the kernel enforces for a pod that is about to start;
//! - `flows`: records as in the JSON lines export, losses included. A follower that is too slow is
//!   told by a loss record of stage `client`;
//! - whatever cannot be answered: `{"error":"…"}`, and nothing after it.
//!
//! Either side may close at any time. Unknown fields and commands are errors, not ignored: a newer
//! client must not be misunderstood by an older agent.

pub(crate) mod client;
pub(crate) mod filter;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use agent_policy::model::Change;
use serde::{Deserialize, Serialize};

pub(crate) use self::filter::FlowsRequest;

/// No request of ours comes near it; whoever sends more is not a client.
pub(crate) const REQUEST_LIMIT: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    Status {},
    World {},
    Flows(Box<FlowsRequest>),
    Pod(PodRequest),
}

/// A pod whose network has been made, and of which no container runs yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodRequest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// As kubelet has it; runtimes before 2022 do not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) uid: Option<String>,
    /// The host side of its interface; absent if it has none, and its cgroup is to be held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) interface: Option<String>,
    /// What its sandbox has.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// How long the agent may take.
    pub(crate) wait_ms: u64,
}

/// The kernel enforces for the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    /// Where, as `status` says it.
    pub(crate) at: String,
}

/// What an agent enforces, as the changes that make it out of nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServedWorld {
    pub(crate) node: String,
    pub(crate) world: Vec<Change>,
}

/// The only answer to what cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
}
