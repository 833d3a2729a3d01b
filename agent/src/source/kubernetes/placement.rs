//! Where a pod of this node is.

use std::{collections::BTreeSet, net::IpAddr};

use agent_policy::model::EndpointSpec;

/// A pod's point of enforcement, as it was found on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) endpoint: EndpointSpec,
    /// What its sandbox has, whatever the API or the pod claims.
    pub(crate) addresses: BTreeSet<IpAddr>,
}
