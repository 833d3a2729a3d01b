//! Where a pod of this node is.

use std::{collections::BTreeSet, net::IpAddr};

use agent_policy::model::EndpointSpec;

/// A pod's point of enforcement, as it was found on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) endpoint: EndpointSpec,
    /// What its sandbox has now. A pod may add to that what it likes.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// What whoever made its interface has said that it has; empty where nobody said so.
    pub(crate) assured: BTreeSet<IpAddr>,
}
