//! What all nodes of a cluster have in force, by what their agents say in the API.

mod asked;
mod judge;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::ListParams,
    client::Body,
    core::{DynamicObject, ObjectMeta, PartialObjectMeta},
};
use serde::Serialize;

pub(crate) use self::asked::Asked;
use super::{
    client::{Access, AccessError},
    kind::{Key, Kind},
    report::{self, Known, MANAGER, Policies, Report, Version},
};

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// Nodes of others are not ours to enforce on.
const SYSTEM: (&str, &str) = ("kubernetes.io/os", "linux");

#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("cannot list {what}")]
    List {
        what: &'static str,
        source: Box<kube::Error>,
    },
    #[error(
        "the Kubernetes API has no `{0}`; without --policy, nodes that still enforce it are shown"
    )]
    NoSuch(Asked),
    #[error("`{asked}` can be {one} and {other}: say which")]
    Ambiguous {
        asked: String,
        one: String,
        other: String,
    },
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClusterStatus {
    pub(crate) server: String,
    /// The one that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyVersion>,
    /// Objects of policy that the API has.
    pub(crate) policies: usize,
    /// Those that lag behind are first.
    pub(crate) nodes: Vec<NodeStanding>,
}

/// A policy as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyVersion {
    pub(crate) object: String,
    pub(crate) resource_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeStanding {
    pub(crate) name: String,
    pub(crate) state: State,
    /// The rest is what its agent said last; absent if it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policies: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<usize>,
    /// Seconds since it did, by the API server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen_s: Option<u64>,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<String>,
}

/// Worse ones are first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// No agent of it has said anything.
    Silent,
    /// None has for long.
    Stale,
    NotEnforcing,
    /// It has not heard of, or not compiled, what the API has.
    Lagging,
    /// What it has heard of did not come into force.
    Refused,
    /// Of some objects another version, or none, is in force.
    Held,
    InForce,
}

/// What the API has.
#[derive(Debug)]
struct Read {
    policies: Policies,
    nodes: Vec<String>,
    reports: BTreeMap<String, Reported>,
}

#[derive(Clone, Debug)]
struct Reported {
    report: Report,
    /// Seconds since it was written.
    age: u64,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Stale => "stale",
            Self::NotEnforcing => "not enforcing",
            Self::Lagging => "lagging",
            Self::Refused => "refused",
            Self::Held => "held",
            Self::InForce => "in force",
        }
    }
}

impl ClusterStatus {
    pub(crate) fn in_force(&self) -> usize {
        let nodes = self.nodes.iter();
        nodes.filter(|node| node.state == State::InForce).count()
    }

    /// Not where there is no node at all: nobody enforces anything then.
    pub(crate) fn is_everywhere(&self) -> bool {
        !self.nodes.is_empty() && self.in_force() == self.nodes.len()
    }
}

/// Asks the API what nodes have in force: of everything, or of one policy.
///
/// # Errors
///
/// If it cannot be reached, or may not be asked, or has no such policy.
pub(crate) async fn ask(
    access: &Access,
    asked: Option<&Asked>,
) -> Result<ClusterStatus, FleetError> {
    let (client, server) = access.ask().await?;
    let Read {
        policies,
        nodes,
        reports,
    } = read(&client).await?;
    let about = asked.map(|asked| asked.find(&policies)).transpose()?;
    let version = about.map(|(key, known)| PolicyVersion {
        object: key.to_string(),
        resource_version: known.version.resource.clone(),
        generation: known.version.generation,
    });
    Ok(ClusterStatus {
        server: server.url,
        policy: version,
        policies: policies.len(),
        nodes: judge::judge(&nodes, &reports, &policies, about),
    })
}

/// Policies first: what agents say afterwards is of no earlier state.
async fn read(client: &Client) -> Result<Read, FleetError> {
    let mut policies = Policies::new();
    for kind in Kind::POLICIES {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
        for object in metadata(&api, kind.plural()).await? {
            policies.extend(known(kind, object));
        }
    }
    let nodes = metadata(&Api::<Node>::all(client.clone()), "nodes").await?;
    let is_ours = |node: &ObjectMeta| {
        let system = node.labels.as_ref().and_then(|labels| labels.get(SYSTEM.0));
        system.is_none_or(|system| system == SYSTEM.1)
    };
    let nodes = nodes.into_iter().filter(is_ours);
    let nodes = nodes.filter_map(|node| node.name).collect();
    let now = server_time(client).await.unwrap_or_else(Timestamp::now);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &report::resource());
    let mut reports = BTreeMap::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = match api.list(&page).await {
            Ok(list) => list,
            // Then nobody can have said anything.
            Err(kube::Error::Api(status)) if status.code == 404 => break,
            Err(error) => return Err(refused("agentstatuses", error)),
        };
        let next = list.metadata.continue_.clone();
        reports.extend(
            list.items
                .into_iter()
                .filter_map(|object| reported(object, now)),
        );
        match next.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => break,
        }
    }
    Ok(Read {
        policies,
        nodes,
        reports,
    })
}

/// Of all objects of a kind; of none, where there is no such.
async fn metadata<K>(api: &Api<K>, what: &'static str) -> Result<Vec<ObjectMeta>, FleetError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = match api.list_metadata(&page).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
            Err(error) => return Err(refused(what, error)),
        };
        let next = list.metadata.continue_.clone();
        let of = |object: PartialObjectMeta<K>| object.metadata;
        all.extend(list.items.into_iter().map(of));
        match next.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(all),
        }
    }
}

fn refused(what: &'static str, error: kube::Error) -> FleetError {
    FleetError::List {
        what,
        source: error.into(),
    }
}

fn known(kind: Kind, metadata: ObjectMeta) -> Option<(Key, Known)> {
    let version = Version::of(&metadata);
    let key = Key {
        kind,
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name?,
    };
    let uid = metadata.uid.unwrap_or_default();
    Some((key, Known { uid, version }))
}

/// What is no report is none: the node is silent.
fn reported(object: DynamicObject, now: Timestamp) -> Option<(String, Reported)> {
    let DynamicObject { metadata, data, .. } = object;
    let report = serde_json::from_value(data.get("status")?.clone()).ok()?;
    let managed = metadata.managed_fields.unwrap_or_default();
    let times = managed.into_iter().filter_map(|fields| {
        let is_agent = fields.manager.as_deref() == Some(MANAGER);
        is_agent.then_some(fields.time?.0)
    });
    let age = now.duration_since(times.max()?).as_secs();
    let age = u64::try_from(age).unwrap_or(0);
    Some((metadata.name?, Reported { report, age }))
}

/// Neither the clock of a node nor the one here has a say in how old something is.
async fn server_time(client: &Client) -> Option<Timestamp> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    let answer = client.send(request).await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(date).ok()
}
