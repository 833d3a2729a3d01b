//! An object as it arrives: trimmed, and parsed as a file of its own.

use std::sync::Arc;

use agent_policy::{
    load::{changes, parse_file},
    model::Change,
};
use serde_json::Value;

use super::{
    arrived::Arrived,
    kind::{Key, Kind},
    report::Version,
    slice::Slice,
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
    pub(super) slice: Option<Slice>,
    pub(crate) errors: Vec<String>,
    /// Of a policy.
    pub(crate) version: Option<Version>,
}

impl Observed {
    /// `None` of what has no name.
    pub(crate) fn read(kind: Kind, arrived: Arrived) -> Option<Self> {
        let key = key(kind, &arrived)?;
        let Arrived { object, problem } = arrived;
        let version = kind.is_policy().then(|| Version::of(&object.metadata));
        let (json, excess) = trim(kind, object);
        let metadata = json.get("metadata");
        let text = |field: &str| Some(metadata?.get(field)?.as_str()?.to_owned());
        let annotation = |name: &str| metadata?.get("annotations")?.get(name)?.as_str();
        let is_placed = json.pointer("/spec/nodeName").is_some();
        let uid = match (annotation(STATIC_MIRROR), annotation(STATIC_UID)) {
            (Some(_), Some(hash)) if kind == Kind::Pod && is_placed && is_hash(hash) => {
                Arc::from(hash)
            }
            _ => text("uid").unwrap_or_default().into(),
        };
        let created = text("creationTimestamp")
            .and_then(|time| time.parse::<jiff::Timestamp>().ok())
            .map_or(0, jiff::Timestamp::as_second);
        let is_ending = text("deletionTimestamp").is_some();
        let phase = json.get("status").and_then(|status| status.get("phase"));
        let phase = phase.and_then(Value::as_str);
        let has_ended = kind == Kind::Pod && matches!(phase, Some("Succeeded" | "Failed"));
        let slice = Slice::read(&json).filter(|_| kind == Kind::EndpointSlice);
        let json = json.to_string();
        let limit = size(kind);
        let too_large = json.len() > limit;
        let json: Arc<str> = if too_large { "".into() } else { json.into() };
        let too_large = too_large.then(|| {
            let found = "it is larger than what is kept of one object";
            format!("{found}, {} KiB", limit >> 10)
        });
        let (changes, errors) = match kind {
            // No kind of files': it counts with its Service.
            Kind::EndpointSlice => (Vec::new(), Vec::new()),
            _ => parsed(&key, &json),
        };
        let excess = problem.into_iter().chain(excess).chain(too_large);
        let excess = excess.map(|excess| format!("kubernetes:{key}: {excess}"));
        let errors: Vec<String> = errors.into_iter().chain(excess).collect();
        Some(Self {
            changes: changes.into(),
            slice,
            key,
            uid,
            created,
            is_ending,
            has_ended,
            json,
            errors,
            version,
        })
    }

    /// What was kept as JSON; `None` of a kind that this version does not know.
    pub(crate) fn kept(json: &str) -> Result<Option<Self>, serde_json::Error> {
        let object: Arrived = serde_json::from_str(json)?;
        let kind = object.types().and_then(Kind::of_name);
        Ok(kind.and_then(|kind| Self::read(kind, object)))
    }
}

fn parsed(key: &Key, json: &str) -> (Vec<Change>, Vec<String>) {
    let file = parse_file(format!("kubernetes:{key}").into(), json.as_bytes());
    let errors = file.diagnostics.iter().filter(|found| found.is_error());
    let errors = errors.map(ToString::to_string).collect();
    (changes(&file), errors)
}

/// Whether a static pod can have it for its UID. Whoever may make pods may write what he likes there: the UIDs that
/// the API server gives are no such, so nobody takes the place of another pod by it.
fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What may be kept of one object. Whoever may make pods would fill the memory of every node; lists of addresses are as
/// long as the server lets them be.
fn size(kind: Kind) -> usize {
    match kind {
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::Workload => 256 << 10,
        // What is refused of a policy isolates nobody, and a Service that proxies know and the agent does not leads
        // past policies: as long as the server lets one be.
        Kind::Service
        | Kind::EndpointSlice
        | Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::RingfencePolicy
        | Kind::NameTable => 2 << 20,
    }
}

/// `None` of what has no name.
pub(crate) fn key(kind: Kind, arrived: &Arrived) -> Option<Key> {
    let metadata = &arrived.object.metadata;
    Some(Key {
        kind,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone()?,
    })
}
