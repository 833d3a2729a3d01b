//! The Kubernetes API: its objects, as the parsers of files read them.
//!
//! Nothing else names `kube`.

pub(crate) mod placement;
pub(crate) mod store;
