//! What can be changed.

mod apply;
mod words;

use serde::Serialize;

use crate::{
    connection::Port,
    model::{
        Direction, Labels, ObjectName, Peer, PolicyId, PortMatch, Ports, Requirement, Selector,
        SubjectName, Subjects, TierAction, Time,
    },
    question::RuleId,
};

/// Sorts from the smallest to the largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Edit {
    /// Change nothing, and ask again then.
    Wait {
        until: Time,
    },
    /// One more port in a rule.
    AddPort {
        rule: RuleId,
        port: Port,
        #[serde(skip)]
        ports: PortMatch,
    },
    Label {
        workload: ObjectName,
        key: String,
        value: String,
    },
    /// One of the ports of a rule.
    RemovePort {
        rule: RuleId,
        port: Port,
        #[serde(skip)]
        position: usize,
    },
    AddRule {
        /// Where it comes to stand; what is there now comes behind it.
        rule: RuleId,
        action: TierAction,
        #[serde(serialize_with = "as_text")]
        peer: PeerWords,
        /// `null`: every port.
        port: Option<Port>,
        #[serde(skip)]
        ports: Ports,
    },
    RemoveRule {
        rule: RuleId,
    },
    RemovePolicy {
        policy: PolicyId,
    },
    /// A `RingfencePolicy` of tier Admin with one rule.
    AddPolicy {
        subject: SubjectName,
        direction: Direction,
        #[serde(serialize_with = "as_text")]
        peer: PeerWords,
        port: Port,
        #[serde(skip)]
        ports: PortMatch,
        #[serde(skip)]
        subjects: Subjects,
    },
    /// A `NetworkPolicy` that permits nothing in a direction.
    Isolate {
        workload: ObjectName,
        direction: Direction,
        #[serde(skip)]
        labels: Labels,
    },
}

/// A peer of a new rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerWords(pub Peer);

fn as_text<S: serde::Serializer>(peer: &PeerWords, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

pub(super) fn exactly(labels: &Labels) -> Selector {
    let one = |(key, value): (&String, &String)| Requirement::In {
        key: key.clone(),
        values: [value.clone()].into(),
    };
    Selector {
        requirements: labels.iter().map(one).collect(),
    }
}
