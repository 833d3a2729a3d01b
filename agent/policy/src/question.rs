//! What is asked of a policy evaluator, and what it answers.
//!
//! The reference evaluator, the compiled tables and every command that asks share these words and
//! nothing else. Imports the model only.

use std::net::IpAddr;

use serde::Serialize;

use crate::model::{Denied, Direction, ObjectName, PolicyId, SubjectName, Time};

/// One new connection, seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Question {
    /// Whose policies decide: the destination for ingress, the source for egress.
    pub subject: SubjectName,
    pub direction: Direction,
    /// The address of the other end, as the packet carries it at the subject: where a Service is
    /// asked for, its own.
    pub peer: IpAddr,
    /// Whose socket is at the other end, where that can be told: over the loopback interface, between
    /// two workloads that share the addresses of their node. The peer is then an address of loopback
    /// or of that node.
    pub socket: Option<ObjectName>,
    /// The number that IANA assigned.
    pub protocol: u8,
    /// The destination port; of ICMP `type << 8 | code`; 0 for protocols that have no ports.
    pub port: u16,
    pub origin: Origin,
    pub view: View,
    pub at: Time,
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

/// Which policies have a say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Those that are enforced: this is what happens.
    #[default]
    Live,
    /// And those in audit: what it denies and the live view does not, is a would-be denial.
    Audit,
    /// The enforced ones and those that are staged.
    Staged,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Answer {
    pub action: Action,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Drop,
    Reject,
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
    /// No rule of any tier decides, and no `NetworkPolicy` isolates the subject in this direction.
    NotIsolated,
    /// The first rule that decides, in the order of tiers.
    Rule(RuleId),
    /// Some `NetworkPolicy` isolates the subject in this direction, and no rule of any permits.
    DefaultDeny,
    /// A schedule goes on, and nobody has compiled what it says now. Only tables that are older
    /// than the question answer so.
    Stale,
}

/// A rule by its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleId {
    pub policy: PolicyId,
    pub direction: Direction,
    /// From 0, in its direction.
    pub index: u32,
}

/// An implementation of the semantics. Tests and commands are generic over it.
pub trait Evaluator {
    fn answer(&self, question: &Question) -> Answer;
}

// === impl View ===

impl View {
    pub const ALL: [Self; 3] = [Self::Live, Self::Audit, Self::Staged];
}

// === impl Answer ===

impl Answer {
    pub fn allow(why: Why) -> Self {
        Self {
            action: Action::Allow,
            why,
        }
    }

    pub fn deny(why: Why, denied: Denied) -> Self {
        Self {
            action: denied.into(),
            why,
        }
    }

    pub fn allows(&self) -> bool {
        self.action == Action::Allow
    }
}

// === impl Action ===

impl From<Denied> for Action {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Drop => Self::Drop,
            Denied::Reject => Self::Reject,
        }
    }
}

// === impl Evaluator ===

impl<E: Evaluator + ?Sized> Evaluator for &E {
    fn answer(&self, question: &Question) -> Answer {
        (**self).answer(question)
    }
}
