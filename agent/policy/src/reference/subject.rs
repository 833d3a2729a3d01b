//! Whose traffic is judged, and who is selected as such.

use crate::{
    model::{EndpointSpec, Labels, NamedPort, Node, SubjectName, Subjects, Workload, World},
    reference::matching::selects,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'w> {
    Workload(&'w Workload),
    Node(&'w Node),
}

// === impl Subject ===

impl<'w> Subject<'w> {
    pub(super) fn find(world: &'w World, name: &SubjectName) -> Option<Self> {
        match name {
            SubjectName::Workload(name) => {
                let workload = world.workloads.get(name)?;
                Some(Self::Workload(workload))
            }
            SubjectName::Node(name) => {
                let node = world.nodes.get(name)?;
                Some(Self::Node(node))
            }
        }
    }

    pub(super) fn workload(self) -> Option<&'w Workload> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Node(_) => None,
        }
    }

    /// §1.4: the workload, if its addresses lead to nobody else. A node is what all of its
    /// workloads share, so it is no such owner.
    pub(super) fn owner_of_addresses(self) -> Option<&'w Workload> {
        self.workload()
            .filter(|workload| workload.owns_its_addresses())
    }

    /// The node that it runs on, or that it is.
    pub(super) fn node(self, world: &'w World) -> Option<&'w Node> {
        match self {
            Self::Workload(workload) => {
                let node = world.nodes.get(workload.node.as_ref()?)?;
                Some(node)
            }
            Self::Node(node) => Some(node),
        }
    }

    /// What it calls its ports.
    pub(super) fn ports(self) -> &'w [NamedPort] {
        self.workload().map_or(&[], |workload| &workload.ports)
    }

    /// §6.2
    pub(super) fn is_selected_by(self, world: &World, subjects: &Subjects) -> bool {
        match (subjects, self) {
            (
                Subjects::Workloads {
                    namespaces,
                    workloads,
                    host_network,
                },
                Self::Workload(workload),
            ) => {
                let nothing = Labels::new();
                let namespace = world
                    .namespaces
                    .get(&workload.name.namespace)
                    .map_or(&nothing, |labels| labels);
                (*host_network || !workload.host_network)
                    && selects(namespaces, namespace)
                    && selects(workloads, &workload.labels)
            }
            (Subjects::Units(units), Self::Workload(workload)) => {
                matches!(&workload.endpoint, Some(EndpointSpec::SystemdUnit(unit)) if units.contains(unit))
            }
            (Subjects::Cgroups(cgroups), Self::Workload(workload)) => {
                matches!(&workload.endpoint, Some(EndpointSpec::Cgroup(path)) if cgroups.contains(path))
            }
            (Subjects::Nodes(nodes), Self::Node(node)) => selects(nodes, &node.labels),
            (Subjects::Nodes(_), Self::Workload(_))
            | (
                Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_),
                Self::Node(_),
            ) => false,
        }
    }
}

impl<'w> From<&'w Workload> for Subject<'w> {
    fn from(workload: &'w Workload) -> Self {
        Self::Workload(workload)
    }
}
