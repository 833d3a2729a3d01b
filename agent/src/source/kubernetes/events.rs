//! What is wrong with objects, told as Events beside them.
//!
//! Every agent sees the same, and one Event is enough: its name follows from what it says, so that whoever comes
//! second is refused by the server.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::{
    kind::Key,
    store::{Store, Trouble},
};

/// Between two looks. What is put right meanwhile is not told of.
const LOOK: Duration = Duration::from_secs(5);

/// An Event lives for an hour: it is told anew while it is so.
const AGAIN: Duration = Duration::from_mins(50);

/// Of one object's text.
const MOST: usize = 1000;

/// In one look.
const AT_ONCE: usize = 20;

/// Tells of what is wrong, for ever.
pub(super) async fn tell(client: Client, store: Arc<Store>) {
    let mut told: BTreeMap<(Key, String), Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let wrong = store.troubles();
        told.retain(|(key, message), at| {
            at.elapsed() < AGAIN
                && wrong
                    .iter()
                    .any(|trouble| trouble.key == *key && trouble.message == *message)
        });
        let new = wrong
            .into_iter()
            .filter(|trouble| !told.contains_key(&(trouble.key.clone(), trouble.message.clone())));
        for trouble in new.take(AT_ONCE).collect::<Vec<_>>() {
            if is_told(&client, &trouble).await {
                told.insert((trouble.key, trouble.message), Instant::now());
            }
        }
    }
}

/// Whether the server has answered. A refusal is survived: `status` says the same.
async fn is_told(client: &Client, trouble: &Trouble) -> bool {
    let event = event(trouble);
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if is_refusal(status.code) => {
            // 409: another agent has said it.
            tracing::debug!(status.message, "an Event was not taken");
            true
        }
        Err(error) => {
            tracing::debug!(%error, "the API was not reached with an Event");
            false
        }
    }
}

/// Whether asking again is of no use.
fn is_refusal(code: u16) -> bool {
    (400..500).contains(&code) && code != 429
}

fn event(trouble: &Trouble) -> Event {
    let Trouble { key, uid, message } = trouble;
    let Key {
        kind,
        namespace,
        name,
    } = key;
    let mut hasher = DefaultHasher::new();
    (key.to_string(), &**uid, message).hash(&mut hasher);
    let resource = kind.resource();
    let now = Some(Time(jiff::Timestamp::now()));
    Event {
        metadata: ObjectMeta {
            // Of what no namespace has, Events are in this one.
            namespace: Some(if namespace.is_empty() {
                "default".to_owned()
            } else {
                namespace.clone()
            }),
            name: Some(format!("{name:.230}.{:016x}", hasher.finish())),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: (!namespace.is_empty()).then(|| namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("NotInForce".to_owned()),
        message: Some(message.chars().take(MOST).collect()),
        source: Some(EventSource {
            component: Some("ringfence".to_owned()),
            ..EventSource::default()
        }),
        first_timestamp: now.clone(),
        last_timestamp: now,
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::kind::Kind;

    #[test]
    fn the_same_trouble_has_the_same_name_whoever_tells_of_it() {
        let trouble = |message: &str| Trouble {
            key: Key {
                kind: Kind::ClusterNetworkPolicy,
                namespace: String::new(),
                name: "a".to_owned(),
            },
            uid: "u".into(),
            message: message.to_owned(),
        };
        let [one, same, other] = ["x", "x", "y"].map(|message| event(&trouble(message)));
        assert_eq!(one.metadata.name, same.metadata.name);
        assert_ne!(one.metadata.name, other.metadata.name);
        assert_eq!(one.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(one.involved_object.namespace, None);
    }
}
