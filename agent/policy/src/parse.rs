//! Files to objects: which document is of which kind, and what each file declares.
//!
//! Every problem of a file is collected; a file with an error still gives the objects that could
//! be read, so that problems between files are found in the same run. Whether a world with errors
//! is used is the caller's decision, and the answer is no.
//!
//! Imported by `load`; imports `yaml`, `diagnostic` and `model`.

mod address;
pub(crate) mod choice;
mod cluster_network_policy;
mod domain;
pub(crate) mod endpoint;
mod form;
mod kubernetes;
pub(crate) mod metadata;
mod name_table;
mod names;
mod nearest;
mod network_policy;
pub(crate) mod policy_test;
mod port;
mod reader;
mod ringfence_policy;
pub(crate) mod selector;
mod service;
pub(crate) mod terms;
pub(crate) mod tier;
mod when;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use self::reader::{Dialect, Field, Report};
use crate::{
    diagnostic::{Diagnostic, Position, Problems},
    model::{Labels, NetworkPolicy, Node, Protocol, Service, TierPolicy, Workload},
    policy_test::PolicyTest,
    yaml::{self, Value, quote},
};

/// What one file declares, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct ParsedFile {
    pub name: Arc<str>,
    pub objects: Vec<Object>,
    /// Sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the names of objects stand that say no namespace, though they may be of a kind that
    /// has none.
    pub(crate) without_namespace: BTreeSet<Position>,
}

/// Where objects are that do not say it.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// One object with the places that problems between objects point at.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where its name stands.
    pub(crate) at: Position,
    pub(crate) declared: Declared,
}

/// What is put into a world is shared with it: worlds of the same objects are alike at a glance.
#[derive(Clone, Debug)]
pub(crate) enum Declared {
    Namespace {
        name: String,
        labels: Labels,
    },
    Workload {
        workload: Arc<Workload>,
        marks: WorkloadMarks,
    },
    Node {
        node: Arc<Node>,
        /// Where its addresses stand.
        addresses: AddressMarks,
    },
    Service {
        service: Arc<Service>,
        marks: ServiceMarks,
    },
    Policy {
        policy: Arc<NetworkPolicy>,
        uses: Vec<PortUse>,
    },
    TierPolicy {
        policy: Arc<TierPolicy>,
        uses: Vec<PortUse>,
    },
    NameTable {
        name: String,
        names: BTreeMap<String, BTreeSet<IpAddr>>,
    },
    Test(PolicyTest),
}

/// Where each address stands first.
pub(crate) type AddressMarks = BTreeMap<IpAddr, Position>;

#[derive(Clone, Debug, Default)]
pub(crate) struct WorkloadMarks {
    /// As [`AddressMarks`], in the room that a few take.
    pub(crate) addresses: Box<[(IpAddr, Position)]>,
    pub(crate) endpoint: Option<Position>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceMarks {
    pub(crate) addresses: AddressMarks,
    /// One for each port.
    pub(crate) ports: Vec<Position>,
}

/// A rule that speaks of a port by its name.
#[derive(Clone, Debug)]
pub(crate) struct PortUse {
    pub(crate) at: Position,
    pub(crate) path: String,
    pub(crate) name: String,
    /// `None`: whichever the destination gives it.
    pub(crate) protocol: Option<Protocol>,
}

impl ParsedFile {
    /// A file that could not be read at all.
    pub fn unreadable(diagnostic: Diagnostic) -> Self {
        Self {
            name: Arc::clone(&diagnostic.file),
            objects: Vec::new(),
            diagnostics: vec![diagnostic],
            without_namespace: BTreeSet::new(),
        }
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The tests that stand beside the policies.
    pub fn policy_tests(&self) -> impl Iterator<Item = &PolicyTest> {
        self.objects
            .iter()
            .filter_map(|object| match &object.declared {
                Declared::Test(test) => Some(test),
                _ => None,
            })
    }
}

/// The `apiVersion` of our own kinds.
const OURS: &str = "ringfence.io/v1alpha1";

type Read = fn(reader::Object<'_>) -> Option<Object>;

/// Every kind that is read: its name, its `apiVersion`, its reader.
const KINDS: [(&str, &str, Read); 10] = [
    (
        "NetworkPolicy",
        "networking.k8s.io/v1",
        network_policy::read,
    ),
    (
        "ClusterNetworkPolicy",
        "policy.networking.k8s.io/v1alpha2",
        cluster_network_policy::read,
    ),
    ("RingfencePolicy", OURS, ringfence_policy::read),
    ("Namespace", "v1", kubernetes::namespace),
    ("Pod", "v1", kubernetes::pod),
    ("Node", "v1", kubernetes::node),
    ("Service", "v1", service::read),
    ("Workload", OURS, workload::read),
    ("NameTable", OURS, name_table::read),
    ("PolicyTest", OURS, policy_test::read),
];

/// Reads one file: several documents, each an object or a list of objects.
pub fn parse_file(name: Arc<str>, bytes: &[u8]) -> ParsedFile {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > yaml::MAX_FILE_BYTES {
        return ParsedFile::unreadable(yaml::too_large(&name, size));
    }
    let mut problems = Problems::new(Arc::clone(&name));
    let yaml::Documents { roots, words } = yaml::read(bytes, &mut problems);
    let report = Report::new(problems, words);
    let objects = read_documents(&roots, &report);
    ParsedFile {
        name,
        objects,
        without_namespace: report.take_without_namespace(),
        diagnostics: report.into_problems().into_sorted(),
    }
}

fn read_documents(documents: &[yaml::Node], report: &Report) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut labels = BTreeSet::new();
    // `---` at the start or the end makes a document of nothing.
    for document in documents
        .iter()
        .filter(|document| document.value != Value::Null)
    {
        let before = objects.len();
        read_object(&Field::root(report, document), None, &mut objects);
        for object in objects.iter_mut().skip(before) {
            share_labels(object, &mut labels);
        }
    }
    objects.shrink_to_fit();
    objects
}

/// Workloads of a file that have the same labels share them.
fn share_labels(object: &mut Object, known: &mut BTreeSet<Arc<Labels>>) {
    if let Declared::Workload { workload, .. } = &mut object.declared
        && let Some(workload) = Arc::get_mut(workload)
    {
        if let Some(same) = known.get(&workload.labels) {
            workload.labels = Arc::clone(same);
        } else {
            known.insert(Arc::clone(&workload.labels));
        }
    }
}

/// The fields that the parsers know of the objects in a text, by the path of each.
#[cfg(test)]
pub(crate) fn known_fields(text: &str) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut problems = Problems::new(Arc::from("known"));
    let yaml::Documents { roots, words } = yaml::read(text.as_bytes(), &mut problems);
    let report = Report::new(problems, words);
    read_documents(&roots, &report);
    report.known()
}

/// `implied` is the kind of the items of a typed list, which need not repeat it.
fn read_object(field: &Field<'_>, implied: Option<(&str, &str)>, objects: &mut Vec<Object>) {
    let Some(mut object) = field.object() else {
        return;
    };
    let (kind, version) = if let (Some(implied), false, false) =
        (implied, object.has("kind"), object.has("apiVersion"))
    {
        implied
    } else {
        let kind_field = object.require("kind");
        let version_field = object.require("apiVersion");
        let kind = kind_field.as_ref().and_then(Field::string);
        let version = version_field.as_ref().and_then(Field::string);
        let (Some(kind), Some(version)) = (kind, version) else {
            return;
        };
        (kind, version)
    };
    object.tolerate(&["kind", "apiVersion"]);
    if kind == "List" && version == "v1" {
        return read_list(object, None, objects);
    }
    let item = kind.strip_suffix("List").unwrap_or(kind);
    let Some((name, expected, read)) = KINDS.iter().find(|(name, ..)| *name == item) else {
        return unknown_kind(field, kind, version);
    };
    if version != *expected {
        let message = format!(
            "unsupported apiVersion {} of kind {}: expected `{expected}`",
            quote(version),
            quote(kind)
        );
        let place = object.get("apiVersion");
        return place
            .as_ref()
            .unwrap_or(field)
            .error("unsupported-version", message);
    }
    if *expected == OURS {
        object.speak(Dialect::Ours);
    }
    if item == kind {
        objects.extend(read(object));
    } else {
        read_list(object, Some((name, expected)), objects);
    }
}

fn read_list(
    mut object: reader::Object<'_>,
    implied: Option<(&str, &str)>,
    objects: &mut Vec<Object>,
) {
    let items = object
        .require("items")
        .and_then(|field| field.list())
        .unwrap_or_default();
    object.tolerate(&["metadata"]);
    object.deny_unknown();
    for item in items {
        read_object(&item, implied, objects);
    }
}

fn succeeded(tier: &str) -> String {
    format!(
        "its successor is `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`, with `tier: {tier}`"
    )
}

fn unknown_kind(field: &Field<'_>, kind: &str, version: &str) {
    let names: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
    let supported: Vec<String> = KINDS
        .iter()
        .map(|(name, version, _)| format!("`{name}` ({version})"))
        .collect();
    let near = nearest::nearest(kind, &names);
    let hint = match (kind, near) {
        ("AdminNetworkPolicy", _) => succeeded("Admin"),
        ("BaselineAdminNetworkPolicy", _) => succeeded("Baseline"),
        (_, Some(near)) => format!("did you mean `{near}`?"),
        (_, None) => format!("supported are {} and lists of them", supported.join(", ")),
    };
    let message = format!(
        "unknown kind {} of apiVersion {}",
        quote(kind),
        quote(version)
    );
    let place = field.object().and_then(|mut object| {
        let place = object.get("kind");
        object.tolerate_unknown();
        place
    });
    place
        .as_ref()
        .unwrap_or(field)
        .error_with_hint("unknown-kind", message, hint);
}
