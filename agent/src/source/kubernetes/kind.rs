//! The kinds of objects that are watched, and where the API has them.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Namespace,
    Node,
    Service,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
    RingfencePolicy,
    NameTable,
    Pod,
    Workload,
}

/// An object of the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Empty where the kind has none.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

pub(super) const OURS: (&str, &str) = ("ringfence.io", "v1alpha1");

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Namespace,
        Self::Node,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::RingfencePolicy,
        Self::NameTable,
        Self::Pod,
        Self::Workload,
    ];

    /// Those that agents tell the state of: what somebody writes to have it enforced.
    pub(crate) const POLICIES: [Self; 4] = [
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::RingfencePolicy,
        Self::NameTable,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::RingfencePolicy => "RingfencePolicy",
            Self::NameTable => "NameTable",
            Self::Pod => "Pod",
            Self::Workload => "Workload",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As the paths of the API have it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::NetworkPolicy => "networkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
            Self::RingfencePolicy => "ringfencepolicies",
            Self::NameTable => "nametables",
            Self::Pod => "pods",
            Self::Workload => "workloads",
        }
    }

    /// Its version, and an older one that says the same of what is read of it: servers may have only that.
    fn group_and_versions(self) -> (&'static str, &'static str, Option<&'static str>) {
        let (group, version) = match self {
            Self::Namespace | Self::Node | Self::Service | Self::Pod => ("", "v1"),
            // Before Kubernetes 1.21.
            Self::EndpointSlice => return ("discovery.k8s.io", "v1", Some("v1beta1")),
            Self::NetworkPolicy => ("networking.k8s.io", "v1"),
            Self::ClusterNetworkPolicy => ("policy.networking.k8s.io", "v1alpha2"),
            Self::RingfencePolicy | Self::NameTable | Self::Workload => OURS,
        };
        (group, version, None)
    }

    /// In the version that it is kept in.
    pub(super) fn resource(self) -> ApiResource {
        let (group, version, _) = self.group_and_versions();
        self.resource_in(group, version)
    }

    /// In an older version, where there is one.
    pub(super) fn older_resource(self) -> Option<ApiResource> {
        let (group, _, older) = self.group_and_versions();
        Some(self.resource_in(group, older?))
    }

    fn resource_in(self, group: &str, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(group, version, self.name());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }

    /// The kind that a request is about.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let (group, version, older) = kind.group_and_versions();
            [Some(version), older].into_iter().flatten().any(|version| {
                let all = if group.is_empty() {
                    format!("/api/{version}/{}", kind.plural())
                } else {
                    format!("/apis/{group}/{version}/{}", kind.plural())
                };
                path == all
            })
        })
    }

    pub(crate) fn is_policy(self) -> bool {
        Self::POLICIES.contains(&self)
    }

    /// Whether objects of it are in a namespace.
    pub(crate) fn has_namespaces(self) -> bool {
        match self {
            Self::Service
            | Self::EndpointSlice
            | Self::NetworkPolicy
            | Self::Pod
            | Self::Workload => true,
            Self::Namespace
            | Self::Node
            | Self::ClusterNetworkPolicy
            | Self::RingfencePolicy
            | Self::NameTable => false,
        }
    }

    /// Whether there may be no such kind: it is defined by a CRD, or older servers have none.
    pub(super) fn may_be_absent(self) -> bool {
        match self {
            Self::EndpointSlice
            | Self::ClusterNetworkPolicy
            | Self::RingfencePolicy
            | Self::NameTable
            | Self::Workload => true,
            Self::Namespace | Self::Node | Self::Service | Self::NetworkPolicy | Self::Pod => false,
        }
    }
}

impl Key {
    /// The namespace of that name.
    pub(super) fn namespace(name: &str) -> Self {
        Self {
            kind: Kind::Namespace,
            namespace: String::new(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        if namespace.is_empty() {
            write!(f, "{kind}/{name}")
        } else {
            write!(f, "{kind}/{namespace}/{name}")
        }
    }
}
