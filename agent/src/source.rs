//! Where the agent gets its objects from: files, and the Kubernetes API.
//!
//! Imports `agent-policy`; nothing here knows the datapath.

pub(crate) mod files;
pub(crate) mod kubernetes;
pub(crate) mod watch;
