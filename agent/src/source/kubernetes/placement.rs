//! Where a pod of this node is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_policy::model::{EndpointSpec, ObjectName};
use serde::{Deserialize, Serialize};

/// A pod's point of enforcement, as it was found on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) endpoint: EndpointSpec,
    /// What its sandbox has now. A pod may add to that what it likes.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// What whoever made its interface has said that it has; empty where nobody said so.
    pub(crate) assured: BTreeSet<IpAddr>,
    /// Further interfaces of its sandbox that have a host side, by the numbers of those.
    pub(crate) beside: BTreeMap<u32, Beside>,
}

/// An interface beside the one that the cluster's network gave the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// Its host side.
    pub(crate) interface: String,
    /// What it has now.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// What an interface beside is called as an endpoint. No object of the API has such a name.
pub(crate) fn name_beside(pod: &ObjectName, interface: &str) -> ObjectName {
    ObjectName::new(pod.namespace.clone(), format!("{}+{interface}", pod.name))
}
