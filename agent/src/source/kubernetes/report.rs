//! What an agent says of itself in the API: an object of its own kind, named after its node.
//!
//! It has the same size however many policies there are: of each kind one digest over what is in force, and by name
//! only what is not in force as the API has it. So whoever knows the API's objects can tell what a node has of them.

mod definition;

use std::collections::BTreeMap;

use kube::core::{ApiResource, GroupVersionKind, ObjectMeta};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::definition::definition;
use super::kind::{Key, Kind, OURS};

/// Of the kind.
const NAME: &str = "AgentStatus";
const PLURAL: &str = "agentstatuses";

/// Who writes it.
pub(super) const MANAGER: &str = "ringfence";

/// So many objects are named that are not in force; the others are counted.
pub(super) const HELD: usize = 32;

/// Of what is wrong with each.
pub(super) const TEXT: usize = 200;

/// The `status` of such an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Report {
    pub(crate) agent_version: String,
    pub(crate) enforcing: bool,
    /// Of the kernel's tables, when this was written.
    pub(crate) generation: u32,
    /// All that there is in the API has been heard; not so, what was kept of it on disk is in force.
    pub(crate) complete: bool,
    /// Objects of policy that are in force, of all kinds.
    pub(crate) policies: usize,
    /// Objects of policy that are not in force as the API has them; also those that are not named.
    pub(crate) errors: usize,
    /// Why what was heard last did not come into force, as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    pub(crate) kinds: Vec<Tally>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) held: Vec<Held>,
    /// By the node's clock.
    pub(crate) renewed: String,
}

/// What is in force of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Tally {
    pub(crate) kind: String,
    pub(crate) objects: usize,
    pub(crate) digest: Digest,
    /// The highest one heard of; all changes up to it have been heard. Absent where versions are no numbers, and while
    /// objects arrive in another order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_version: Option<String>,
}

/// An object that is not in force as the API has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Held {
    /// As `KIND/NAMESPACE/NAME`.
    pub(crate) object: String,
    pub(crate) resource_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// The resource version that is in force in its place; absent if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_force: Option<String>,
    pub(crate) message: String,
}

/// Of a set of objects in their versions: the sum of what each contributes, so that one can be exchanged.
///
/// UIDs and versions are the server's: nobody chooses them so that two sets look alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Digest(u64);

/// Which version of an object it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) resource: String,
    pub(crate) generation: Option<i64>,
}

/// What a node has in force of all policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(super) kinds: Vec<Tally>,
    pub(super) errors: usize,
    /// No more than are named.
    pub(super) held: Vec<Held>,
}

/// An object of policy as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) uid: String,
    pub(crate) version: Version,
}

/// All of them, as the API has them.
pub(crate) type Policies = BTreeMap<Key, Known>;

pub(super) fn resource() -> ApiResource {
    let (group, version) = OURS;
    let kind = GroupVersionKind::gvk(group, version, NAME);
    ApiResource::from_gvk_with_plural(&kind, PLURAL)
}

/// Cut to what a report has room for.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

impl Digest {
    pub(crate) fn of(uid: &str, resource_version: &str) -> Self {
        let mut hasher = Sha256::new();
        for part in [uid, "\0", resource_version] {
            hasher.update(part);
        }
        let mut first = [0; 8];
        first
            .iter_mut()
            .zip(hasher.finalize())
            .for_each(|(to, from)| *to = from);
        Self(u64::from_be_bytes(first))
    }

    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    #[must_use]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl From<Digest> for String {
    fn from(Digest(sum): Digest) -> Self {
        format!("{sum:016x}")
    }
}

impl TryFrom<String> for Digest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl Version {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            resource: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
        }
    }

    /// As a number, where it is one.
    pub(crate) fn number(&self) -> Option<u64> {
        self.resource.parse().ok()
    }
}

impl Report {
    /// What is in force of a kind.
    pub(crate) fn tally(&self, kind: Kind) -> Option<&Tally> {
        self.kinds.iter().find(|tally| tally.kind == kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_what_is_in_a_set_and_not_in_which_order() {
        let [a, b, c] = [("a", "1"), ("a", "2"), ("b", "1")].map(|(uid, rv)| Digest::of(uid, rv));
        assert_eq!(a.with(c), c.with(a));
        assert_ne!(a.with(c), b.with(c));
        assert_ne!(Digest::of("a1", "2"), Digest::of("a", "12"));
        let text = String::from(a);
        assert_eq!(text.len(), 16);
        assert_eq!(Digest::try_from(text), Ok(a));
        // Of other versions of the agent, too: it is compared across them.
        assert_eq!(String::from(a), "05a9c569a185ac60");
    }

    #[test]
    fn a_report_of_another_version_is_read() {
        let report = serde_json::json!({"generation": 3, "comes": "later"});
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!(report.generation, 3);
        assert!(!report.enforcing);
    }
}
