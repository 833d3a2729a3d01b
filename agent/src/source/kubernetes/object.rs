//! An object as it arrives: trimmed, and parsed as a file of its own.

use std::sync::Arc;

use agent_policy::{
    load::{changes, parse_file},
    model::Change,
};
use kube::core::DynamicObject;
use serde_json::Value;

use super::{
    kind::{Key, Kind},
    trim::{STATIC_MIRROR, STATIC_UID, trim},
};

/// What was heard of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) key: Key,
    /// Of a static pod that of its node, as its cgroups have it.
    pub(crate) uid: Arc<str>,
    /// In seconds since 1970, by the API server's clock.
    pub(crate) created: i64,
    pub(crate) is_ending: bool,
    /// A pod whose containers have all ended, for good.
    pub(crate) has_ended: bool,
    /// Trimmed.
    pub(crate) json: Arc<str>,
    /// What it says of the world; not to be used if there are errors.
    pub(crate) changes: Box<[Change]>,
    pub(crate) errors: Vec<String>,
    /// It is in force, but not all of it.
    pub(crate) excess: Option<String>,
}

impl Observed {
    /// `None` of what has no name.
    pub(crate) fn read(kind: Kind, object: DynamicObject) -> Option<Self> {
        let key = key(kind, &object)?;
        let (json, excess) = trim(kind, object);
        let metadata = json.get("metadata");
        let text = |field: &str| Some(metadata?.get(field)?.as_str()?.to_owned());
        let annotation = |name: &str| metadata?.get("annotations")?.get(name)?.as_str();
        let uid = match (annotation(STATIC_MIRROR), annotation(STATIC_UID)) {
            (Some(_), Some(uid)) if kind == Kind::Pod => Arc::from(uid),
            _ => text("uid").unwrap_or_default().into(),
        };
        let created = text("creationTimestamp")
            .and_then(|time| time.parse::<jiff::Timestamp>().ok())
            .map_or(0, jiff::Timestamp::as_second);
        let is_ending = text("deletionTimestamp").is_some();
        let phase = json.get("status").and_then(|status| status.get("phase"));
        let phase = phase.and_then(Value::as_str);
        let has_ended = kind == Kind::Pod && matches!(phase, Some("Succeeded" | "Failed"));
        let json: Arc<str> = json.to_string().into();
        let file = parse_file(format!("kubernetes:{key}").into(), json.as_bytes());
        let errors = file.diagnostics.iter().filter(|found| found.is_error());
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        Some(Self {
            changes: changes(&file).into(),
            key,
            uid,
            created,
            is_ending,
            has_ended,
            json,
            errors,
            excess,
        })
    }

    /// What was kept as JSON.
    pub(crate) fn kept(json: &str) -> Option<Self> {
        let object: DynamicObject = serde_json::from_str(json).ok()?;
        let kind = Kind::of_name(&object.types.as_ref()?.kind)?;
        Self::read(kind, object)
    }
}

/// `None` of what has no name.
pub(crate) fn key(kind: Kind, object: &DynamicObject) -> Option<Key> {
    Some(Key {
        kind,
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone()?,
    })
}
