//! An object as the API sends it, whatever is in it.
//!
//! One that cannot be read must not keep others of its list, or its stream, from being read.

use std::borrow::Cow;

use kube::{
    Resource,
    core::{ApiResource, DynamicObject, DynamicResourceScope, ObjectMeta},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(super) object: DynamicObject,
    /// Why there is nothing of the object but its name.
    pub(super) problem: Option<String>,
}

/// By which an object is known, and a watch goes on.
const IDENTITY: [&str; 4] = ["name", "namespace", "uid", "resourceVersion"];

impl Arrived {
    /// The name of its kind, where it says that.
    pub(super) fn types(&self) -> Option<&str> {
        self.object.types.as_ref().map(|types| types.kind.as_str())
    }
}

impl<'de> Deserialize<'de> for Arrived {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(from)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            // Most of many objects, and whoever writes one may have times there that no clock has.
            metadata.remove("managedFields");
        }
        let identity: serde_json::Map<_, _> = IDENTITY
            .into_iter()
            .filter_map(|field| {
                Some((field.to_owned(), value.get("metadata")?.get(field)?.clone()))
            })
            .collect();
        let read = DynamicObject::deserialize(value);
        let problem = match read {
            Ok(object) => {
                return Ok(Self {
                    object,
                    problem: None,
                });
            }
            Err(error) => Some(format!("it cannot be read: {error}")),
        };
        let object = json!({"metadata": identity});
        let object = DynamicObject::deserialize(object).map_err(serde::de::Error::custom)?;
        Ok(Self { object, problem })
    }
}

impl Resource for Arrived {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(of)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(of)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(of)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.object.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_no_clock_has_take_down_nothing() {
        let object = |field: &str, value: Value| {
            let mut object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}});
            object["metadata"][field] = value;
            Arrived::deserialize(object).unwrap()
        };
        let managed = object("managedFields", json!([{"time": "9999-12-31T23:59:59Z"}]));
        assert_eq!(managed.problem, None);
        let deleted = object("deletionTimestamp", json!("9999-12-31T23:59:59Z"));
        assert!(deleted.problem.is_some());
        assert_eq!(deleted.object.metadata.name.as_deref(), Some("a"));
    }
}
