//! What is asked of a policy evaluator, and what it answers.
//!
//! The reference evaluator, the compiled tables and every command that asks share these words and
//! nothing else. Imports the model only.

use std::net::IpAddr;

use serde::Serialize;

use crate::model::{Direction, ObjectName};

/// One new connection, seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Question {
    /// The workload whose policies decide: the destination for ingress, the source for egress.
    pub subject: ObjectName,
    pub direction: Direction,
    /// The address of the other end.
    pub peer: IpAddr,
    /// The number that IANA assigned.
    pub protocol: u8,
    /// The destination port; of ICMP `type << 8 | code`; 0 for protocols that have no ports.
    pub port: u16,
    pub origin: Origin,
}

/// Where a packet entered the subject's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Made by this node's own stack: the packet has no ingress interface.
    ThisNode,
    /// Came in through an interface, be it of another endpoint or of the node.
    Forwarded,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Answer {
    pub allow: bool,
    pub why: Why,
}

/// What decided. Where several reasons hold, the first one in the order of this list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The world has no such subject: denied, because nothing is known about it.
    UnknownSubject,
    /// The peer is the subject itself.
    ItsOwnAddress,
    /// The subject's own node is the peer, and made the packet itself.
    OwnNode,
    /// No policy selects the subject in this direction.
    NotIsolated,
    /// The first rule that permits: by namespace and name of its policy, then by its index.
    Rule {
        policy: ObjectName,
        direction: Direction,
        index: u32,
    },
    /// Some policy selects the subject in this direction, and no rule of any permits.
    DefaultDeny,
}

/// An implementation of the semantics. Tests and commands are generic over it.
pub trait Evaluator {
    fn answer(&self, question: &Question) -> Answer;
}

// === impl Answer ===

impl Answer {
    /// The verdict follows from the reason, so the two cannot contradict each other.
    #[must_use]
    pub fn because(why: Why) -> Self {
        let allow = !matches!(why, Why::DefaultDeny | Why::UnknownSubject);
        Self { allow, why }
    }
}

// === impl Evaluator ===

impl<E: Evaluator + ?Sized> Evaluator for &E {
    fn answer(&self, question: &Question) -> Answer {
        (**self).answer(question)
    }
}
