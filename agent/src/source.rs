//! Where the agent gets its objects from: files now, the Kubernetes API later.
//!
//! Imports `agent-policy`; nothing here knows the datapath.

pub(crate) mod files;
pub(crate) mod watch;
