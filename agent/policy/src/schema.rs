//! JSON Schemas (draft 2020-12) of the kinds that are ours, so that editors complete and check.
//!
//! A schema says less than the parsers, which stay the judge: it knows no other field, no other
//! object and no calendar. What fields there are is the same in both, which a test holds to. Words
//! and bounds come from the parsers' own tables.

mod common;
mod crd;
mod name_table;
mod policy;
mod policy_test;
mod workload;

use std::fmt;

use serde_json::{Map, Value, json};

pub use self::crd::crds;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const API_VERSION: &str = "ringfence.io/v1alpha1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Workload,
    RingfencePolicy,
    NameTable,
    PolicyTest,
}

/// The schema of one kind.
pub fn of(kind: Kind) -> Value {
    let mut schema = kind.object();
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), json!(DRAFT));
        fields.insert("$defs".to_owned(), Value::Object(kind.definitions()));
    }
    schema
}

/// One schema for an object of any kind.
pub fn of_all() -> Value {
    let mut definitions = Map::new();
    for kind in Kind::ALL {
        definitions.extend(kind.definitions());
        definitions.insert(kind.name().to_owned(), kind.object());
    }
    let kinds: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| common::reference(kind.name()))
        .collect();
    json!({
        "$schema": DRAFT,
        "title": "ringfence",
        "description": "An object of any kind of ringfence.io/v1alpha1.",
        "oneOf": kinds,
        "$defs": definitions,
    })
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Workload,
        Self::RingfencePolicy,
        Self::NameTable,
        Self::PolicyTest,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Workload => "Workload",
            Self::RingfencePolicy => "RingfencePolicy",
            Self::NameTable => "NameTable",
            Self::PolicyTest => "PolicyTest",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Workload => "What policies select where there is no Kubernetes.",
            Self::RingfencePolicy => {
                "A ranked policy about workloads, units, cgroups or whole nodes."
            }
            Self::NameTable => "The addresses that names of the DNS stand for.",
            Self::PolicyTest => "What is expected and asserted of the policies beside it.",
        }
    }

    /// The schema without what it refers to.
    fn object(self) -> Value {
        let (metadata, spec) = match self {
            Self::Workload => ("namespacedMetadata", workload::spec()),
            Self::RingfencePolicy => ("clusterMetadata", policy::spec()),
            Self::NameTable => ("clusterMetadata", name_table::spec()),
            Self::PolicyTest => ("clusterMetadata", policy_test::spec()),
        };
        json!({
            "title": self.name(),
            "description": self.description(),
            "type": "object",
            "properties": {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": self.name()},
                "metadata": common::reference(metadata),
                "spec": spec,
            },
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "additionalProperties": false,
        })
    }

    fn definitions(self) -> Map<String, Value> {
        let own = match self {
            Self::Workload => workload::definitions(),
            Self::RingfencePolicy => policy::definitions(),
            Self::NameTable => name_table::definitions(),
            Self::PolicyTest => policy_test::definitions(),
        };
        own.into_iter()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests;
