//! Hubble's flow API: what its command line, Relay and UI ask, answered from the ring of recent records.
//!
//! ```text
//! unix socket ┐                ┌ health, reflection
//! TCP, TLS    ┴─► connection ──┼ peer: this node, and no other
//!                              └ observer ─► reading ◄── ring of records
//!                                   flow, filter, mask
//! ```
//!
//! Nothing is kept for it beside the ring: a stream is a place in there and a batch of lines, so that a client which does not
//! read costs that much, loses what it is too late for, and is told how much that was.
//!
//! | module | holds |
//! |---|---|
//! | [`serve`], [`tls`] | connections, and who may have one |
//! | [`observer`], [`peer`] | the services |
//! | [`reading`] | which records a request is about, one after the other |
//! | [`flow`], [`endpoint`], [`summary`] | what a record becomes |
//! | [`filter`] | which flows a client wants |
//! | [`mask`] | which of their fields |
//! | [`namespaces`] | those that flows were of |
//! | [`counts`] | how much was told, for status and metrics |
//!
//! Imported by the daemon; for what is counted, by status and metrics. Never imports the control socket's requests, or the datapath.

mod counts;
mod endpoint;
mod filter;
mod flow;
mod mask;
mod namespaces;
mod observer;
mod peer;
mod reading;
mod serve;
mod summary;
#[cfg(test)]
mod tests;
mod tls;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::Semaphore;

pub(crate) use self::{
    counts::{HubbleCounts, HubbleStatus},
    serve::Server,
};
use self::{flow::Teller, namespaces::Namespaces};
use crate::flow::ring::Ring;

/// What a cluster is called that settings give no name, as Cilium has it.
const CLUSTER: &str = "default";

/// Streams of flows at a time, of each way in; more are refused.
const STREAMS: usize = 64;

/// As clients are to read it.
const PRODUCT: &str = "ringfence";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all services know.
#[derive(Debug)]
struct Hub {
    ring: Arc<Ring>,
    started: Instant,
    teller: Teller,
    namespaces: Namespaces,
    address: Address,
    counts: Arc<HubbleCounts>,
}

/// Where others find this node.
#[derive(Debug)]
struct Address {
    home: Home,
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
    /// What its certificate is to name; `None` without TLS.
    server_name: Option<String>,
}

/// Where an agent is, as it calls that itself.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    node: Arc<str>,
    cluster: Arc<str>,
}

/// At which of its addresses a client has reached us.
#[derive(Clone, Copy, Debug)]
struct Reached(Option<SocketAddr>);

/// Places for streams of flows, of the way in that a client has taken.
#[derive(Clone, Debug)]
struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }
}

// === impl Home ===

impl Home {
    pub(crate) fn new(node: &Arc<str>, cluster: Option<&str>) -> Self {
        Self {
            node: Arc::clone(node),
            cluster: cluster.unwrap_or(CLUSTER).into(),
        }
    }

    /// The node with its cluster.
    fn node_name(&self) -> String {
        format!("{}/{}", self.cluster, self.node)
    }

    /// By the name that certificates of Hubble's servers have.
    fn name_in_certificates(&self) -> String {
        let [node, cluster] = [&self.node, &self.cluster].map(|name| name.replace('.', "-"));
        format!("{node}.{cluster}.hubble-grpc.cilium.io")
    }
}

// === impl Hub ===

impl Hub {
    fn new(ring: Arc<Ring>, address: Address, counts: Arc<HubbleCounts>) -> Self {
        Self {
            ring,
            started: Instant::now(),
            teller: Teller::new(&address.home),
            namespaces: Namespaces::default(),
            address,
            counts,
        }
    }

    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

// === impl Address ===

impl Address {
    /// For somebody who has reached us at one.
    fn for_peers(&self, reached: Option<SocketAddr>) -> String {
        match (self.listen, &self.socket) {
            (Some(listen), _) if !listen.ip().is_unspecified() => listen.to_string(),
            // It listens at all its addresses: at that one, too.
            (Some(listen), _) => reached.map_or_else(
                || format!("{}:{}", self.home.node, listen.port()),
                |reached| reached.to_string(),
            ),
            (None, Some(socket)) => format!("unix://{}", socket.display()),
            (None, None) => self.home.node.to_string(),
        }
    }

    /// Whether [`Self::for_peers`] is asked by TLS.
    fn tls(&self) -> Option<&str> {
        self.listen.and(self.server_name.as_deref())
    }
}
