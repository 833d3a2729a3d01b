//! What is tried, and what policy says about it.

use std::fmt;

use ringfence_lab::probe::Protocol::{self, Tcp, Udp};

/// Who takes part. All but the node and the Internet are workloads of `policies/demo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Gateway,
    Api,
    Database,
    Redis,
    Collector,
    Attacker,
    /// The machine that the workloads run on.
    Node,
    /// Somebody beyond the node.
    Internet,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gateway => "gateway",
            Self::Api => "api-service",
            Self::Database => "database",
            Self::Redis => "redis",
            Self::Collector => "otel-collector",
            Self::Attacker => "attacker",
            Self::Node => "node",
            Self::Internet => "internet",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

use Family::{V4, V6};

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Allow,
    Deny,
}

use Expected::{Allow, Deny};

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// One connection to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) from: Role,
    pub(super) to: Role,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) family: Family,
    pub(super) expected: Expected,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            protocol,
            port,
            family,
            expected: _,
        } = self;
        write!(f, "{from} to {to} {protocol}/{port} over {family}")
    }
}

const fn attempt(
    from: Role,
    to: Role,
    (protocol, port, family): (Protocol, u16, Family),
    expected: Expected,
) -> Attempt {
    Attempt {
        from,
        to,
        protocol,
        port,
        family,
        expected,
    }
}

use Role::{Api, Attacker, Collector, Database, Gateway, Internet, Node, Redis};

pub(super) const SCRIPT: &[Attempt] = &[
    // What the shop lives by.
    attempt(Gateway, Api, (Tcp, 8080, V4), Allow),
    attempt(Gateway, Api, (Tcp, 8080, V6), Allow),
    attempt(Api, Database, (Tcp, 5432, V4), Allow),
    attempt(Api, Database, (Tcp, 5432, V6), Allow),
    attempt(Api, Redis, (Tcp, 6379, V4), Allow),
    attempt(Api, Collector, (Tcp, 4318, V4), Allow),
    attempt(Api, Collector, (Tcp, 4318, V6), Allow),
    // The front door is selected by no policy: open to all, as without an agent.
    attempt(Attacker, Gateway, (Tcp, 8080, V4), Allow),
    attempt(Gateway, Internet, (Udp, 443, V6), Allow),
    // The node reaches its own workloads: health probes.
    attempt(Node, Database, (Tcp, 5432, V4), Allow),
    // A way around api-service, another port, another protocol.
    attempt(Gateway, Database, (Tcp, 5432, V4), Deny),
    attempt(Gateway, Redis, (Tcp, 6379, V6), Deny),
    attempt(Api, Database, (Tcp, 6379, V4), Deny),
    attempt(Api, Database, (Udp, 5432, V4), Deny),
    // If api-service or the database is taken over: nowhere to go, and nobody to report to.
    attempt(Api, Gateway, (Tcp, 8080, V4), Deny),
    attempt(Api, Attacker, (Tcp, 8080, V4), Deny),
    attempt(Api, Internet, (Tcp, 443, V4), Deny),
    attempt(Api, Internet, (Udp, 443, V6), Deny),
    attempt(Database, Internet, (Tcp, 443, V4), Deny),
    attempt(Database, Redis, (Tcp, 6379, V4), Deny),
    // The attacker carries the label role=gateway, in the wrong namespace.
    attempt(Attacker, Api, (Tcp, 8080, V4), Deny),
    attempt(Attacker, Api, (Tcp, 8080, V6), Deny),
    attempt(Attacker, Database, (Tcp, 5432, V4), Deny),
    attempt(Attacker, Redis, (Tcp, 6379, V6), Deny),
    attempt(Attacker, Collector, (Tcp, 4318, V4), Deny),
];
