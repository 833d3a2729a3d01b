//! How far the objects of the Kubernetes API are known.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KubernetesStatus {
    /// As it is reached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) server: Option<String>,
    /// Every kind that there is has been listed.
    pub(crate) complete: bool,
    /// What an earlier run has kept is in force, as the API has not told all yet.
    pub(crate) from_kept: bool,
    /// Why what is heard is not kept on disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) not_kept: Option<String>,
    /// Why the API is not told what is in force here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) not_published: Option<String>,
    pub(crate) watches: Vec<WatchStatus>,
    /// Of objects, and between them. The last good version of each is in force.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) errors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchStatus {
    pub(crate) kind: String,
    /// `starting`, `listed` or `absent`.
    pub(crate) state: String,
    pub(crate) objects: usize,
    /// Seconds since the server was heard of it last; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) heard_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
}
