//! `metadata`, alike for every kind.

use super::{
    DEFAULT_NAMESPACE,
    names::{self, Rule},
    reader::{Field, Object, Unknown},
    terms,
};
use crate::{
    diagnostic::Position,
    model::{Labels, ObjectName, Terms},
};

#[derive(Debug)]
pub(super) struct Metadata {
    /// Where the name stands, for problems between objects.
    pub(super) at: Position,
    pub(super) name: String,
    /// `default` where none is written.
    pub(super) namespace: String,
    pub(super) labels: Labels,
    /// Of what others keep up, as `KIND/NAME`.
    pub(super) owner: Option<String>,
    /// What the annotations say, where they are [`Annotations::Terms`]; and which version it is.
    pub(super) terms: Terms,
}

/// What is judged of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Of Kubernetes, read for facts.
    Inventory,
    Namespaced(Annotations),
    ClusterWide(Annotations),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Annotations {
    /// They can not change what the object means.
    Ignored,
    /// Those of ours say how the policy is meant.
    Terms,
    /// Ours have no meaning, and whoever wrote one thinks that it has.
    OursRefused,
}

/// What the API server adds, and what nobody here reads.
pub(crate) const OF_THE_SERVER: [&str; 11] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

impl Metadata {
    pub(super) fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace.clone(), self.name.clone())
    }
}

pub(super) fn read(object: &mut Object<'_>, rule: Rule, form: Form) -> Option<Metadata> {
    let mut metadata = object.require("metadata")?.object()?;
    let name = metadata.require("name");
    let at = name
        .as_ref()
        .map_or_else(|| metadata.field().at(), Field::at);
    let name = name.and_then(|field| rule.read(&field));
    let namespace = namespace(&mut metadata, form, at);
    let labels = metadata
        .get("labels")
        .map_or_else(Labels::new, |field| labels(&field));
    let annotations = metadata.get("annotations");
    let (read, unknown) = match form {
        Form::Inventory => (Annotations::Ignored, Unknown::Tolerate),
        Form::Namespaced(read) | Form::ClusterWide(read) => (read, Unknown::Deny),
    };
    let mut meant = Terms::default();
    match read {
        Annotations::Ignored => {}
        Annotations::Terms => meant = terms::of_annotations(annotations.as_ref()),
        Annotations::OursRefused => terms::deny_annotations(annotations.as_ref()),
    }
    meant.revision = match form {
        Form::Inventory => None,
        Form::Namespaced(_) | Form::ClusterWide(_) => metadata
            .get("generation")
            .and_then(|field| revision(&field)),
    };
    let owner = match form {
        Form::Inventory => owner(&mut metadata, &labels),
        Form::Namespaced(_) | Form::ClusterWide(_) => None,
    };
    metadata.tolerate(&OF_THE_SERVER);
    metadata.close(unknown);
    Some(Metadata {
        at,
        name: name?,
        namespace: namespace?,
        labels,
        owner,
        terms: meant,
    })
}

/// As the API server counts.
fn revision(field: &Field<'_>) -> Option<u64> {
    let number = u64::try_from(field.integer()?);
    if number.is_err() {
        let message = format!("{}: expected a whole number from 0", field.name());
        field.error("invalid-generation", message);
    }
    number.ok()
}

/// The label by which a Deployment tells the pods of its `ReplicaSets` apart; it ends the name of each.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Who is said to control it. Of a Deployment's `ReplicaSet`, the Deployment: that is what people know.
fn owner(metadata: &mut Object<'_>, labels: &Labels) -> Option<String> {
    let mut controller = None;
    for item in metadata.items("ownerReferences") {
        let Some(mut item) = item.object() else {
            continue;
        };
        let controls = item.get("controller").and_then(|field| field.boolean());
        let kind = item
            .get("kind")
            .and_then(|field| field.string().map(str::to_owned));
        let name = item
            .get("name")
            .and_then(|field| field.string().map(str::to_owned));
        item.tolerate_unknown();
        if controls == Some(true) {
            controller = kind.zip(name);
        }
    }
    let (kind, name) = controller?;
    let hash = labels.get(POD_TEMPLATE_HASH);
    let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(match deployment {
        Some(deployment) if kind == "ReplicaSet" => format!("Deployment/{deployment}"),
        _ => format!("{kind}/{name}"),
    })
}

fn namespace(metadata: &mut Object<'_>, form: Form, name: Position) -> Option<String> {
    let written = match form {
        Form::Inventory | Form::Namespaced(_) => metadata.get("namespace"),
        Form::ClusterWide(_) => {
            if let Some(field) = metadata.refused("namespace") {
                field.error_with_hint(
                    "unexpected-namespace",
                    format!("{}: the kind belongs to no namespace", field.name()),
                    "leave it out",
                );
            }
            None
        }
    };
    match written {
        None => {
            metadata.field().without_namespace(name);
            Some(DEFAULT_NAMESPACE.to_owned())
        }
        Some(field) => names::LABEL.read(&field),
    }
}

/// A map of labels; those that are not valid are reported and left out.
pub(super) fn labels(field: &Field<'_>) -> Labels {
    let mut labels = Labels::new();
    for (entry, value) in field.pairs().unwrap_or_default() {
        value.warn_of_word(entry.at, &entry.key);
        let valid = names::LABEL_KEY.holds(&entry.key);
        if !valid {
            let message = names::LABEL_KEY.message(&entry.key);
            field.error_at_key(entry, "invalid-label", message);
        }
        // A key that is not valid can be of any length, and is not kept.
        if let (Some(value), true) = (label_value(&value), valid) {
            labels.insert(entry.key.to_string(), value);
        }
    }
    labels
}

pub(super) fn label_value(field: &Field<'_>) -> Option<String> {
    let value = field.string()?;
    field.warn_of_word(field.at(), value);
    if !names::LABEL_VALUE.holds(value) {
        field.error("invalid-label", names::LABEL_VALUE.message(value));
        return None;
    }
    Some(value.to_owned())
}
