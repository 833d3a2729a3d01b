//! Who a ranked policy is about, as a set.

use std::collections::BTreeSet;

use super::labels::LabelSet;
use crate::model::Subjects;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SubjectSet<'a> {
    Workloads {
        namespaces: LabelSet<'a>,
        workloads: LabelSet<'a>,
        host_network: bool,
    },
    Units(&'a BTreeSet<String>),
    Cgroups(&'a BTreeSet<String>),
    Nodes(LabelSet<'a>),
}

/// What a subject must be or have to be in a set: one of the values, of one thing. A set is within
/// another only if it has the other's mark with some of its values, so sets are found by their marks.
pub(super) type Mark<'a> = (&'static str, &'a str, &'a str);

// === impl SubjectSet ===

impl<'a> SubjectSet<'a> {
    pub(super) fn of(subjects: &'a Subjects) -> Self {
        match subjects {
            Subjects::Workloads {
                namespaces,
                workloads,
                host_network,
            } => Self::Workloads {
                namespaces: LabelSet::of(namespaces),
                workloads: LabelSet::of(workloads),
                host_network: *host_network,
            },
            Subjects::Units(units) => Self::Units(units),
            Subjects::Cgroups(cgroups) => Self::Cgroups(cgroups),
            Subjects::Nodes(nodes) => Self::Nodes(LabelSet::of(nodes)),
        }
    }

    /// Whether whoever is in `other` is in this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Workloads {
                    namespaces,
                    workloads,
                    host_network,
                },
                Self::Workloads {
                    namespaces: other_namespaces,
                    workloads: other_workloads,
                    host_network: other_host_network,
                },
            ) => {
                (*host_network || !*other_host_network)
                    && namespaces.covers(other_namespaces)
                    && workloads.covers(other_workloads)
            }
            (Self::Units(own), Self::Units(other)) | (Self::Cgroups(own), Self::Cgroups(other)) => {
                own.is_superset(other)
            }
            (Self::Nodes(own), Self::Nodes(other)) => own.covers(other),
            _ => false,
        }
    }

    /// Whether somebody can be in both, as far as that shows without an inventory.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Workloads {
                    namespaces,
                    workloads,
                    host_network: _,
                },
                Self::Workloads {
                    namespaces: other_namespaces,
                    workloads: other_workloads,
                    host_network: _,
                },
            ) => namespaces.meets(other_namespaces) && workloads.meets(other_workloads),
            (Self::Units(own), Self::Units(other)) | (Self::Cgroups(own), Self::Cgroups(other)) => {
                !own.is_disjoint(other)
            }
            (Self::Nodes(own), Self::Nodes(other)) => own.meets(other),
            // That a unit has labels too is not known before it is declared.
            _ => false,
        }
    }

    /// The marks of which whoever is within this set has one, for the mark with the fewest values;
    /// none if nothing is listed.
    pub(super) fn least_marks(&self) -> Option<Vec<Mark<'a>>> {
        self.marks().into_iter().min_by_key(Vec::len)
    }

    /// One list for each thing that is listed.
    pub(super) fn marks(&self) -> Vec<Vec<Mark<'a>>> {
        let of_labels = |side: &'static str, labels: &LabelSet<'a>| {
            let each = |(key, values): (&'a str, &BTreeSet<&'a str>)| {
                let marks = values.iter().map(|value| (side, key, *value));
                marks.collect::<Vec<Mark<'a>>>()
            };
            labels.listed().map(each).collect::<Vec<_>>()
        };
        let of_names = |side: &'static str, names: &'a BTreeSet<String>| {
            vec![names.iter().map(|name| (side, "", name.as_str())).collect()]
        };
        match self {
            Self::Workloads {
                namespaces,
                workloads,
                host_network: _,
            } => [
                of_labels("namespaces", namespaces),
                of_labels("workloads", workloads),
            ]
            .concat(),
            Self::Units(units) => of_names("units", units),
            Self::Cgroups(cgroups) => of_names("cgroups", cgroups),
            Self::Nodes(nodes) => of_labels("nodes", nodes),
        }
    }
}
