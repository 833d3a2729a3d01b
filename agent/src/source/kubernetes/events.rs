//! What is wrong with objects, told as Events beside them.
//!
//! One Event is enough: its name follows from what it says and from the hour, so that whoever comes second is refused by
//! the server.

mod turn;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};

use self::turn::Turn;
use super::{
    kind::Key,
    pause::jittered,
    store::{Store, Trouble},
};

/// Between two looks; up to twice that, and not all agents at once.
const LOOK: Duration = Duration::from_secs(5);

/// Of one object's text.
const MOST: usize = 1000;

/// See [`turn::AGAIN`]; in seconds.
const AGAIN_S: i64 = turn::AGAIN.as_secs().cast_signed();

/// Tells of what is wrong, for ever.
pub(super) async fn tell(client: Client, store: Arc<Store>) {
    let own = store.node();
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(jittered(LOOK)).await;
        let wrong = store.troubles();
        let nodes = if wrong.is_empty() {
            BTreeSet::new()
        } else {
            store.nodes()
        };
        for trouble in turn.next(wrong, &own, &nodes, Instant::now()) {
            if is_told(&client, &trouble).await {
                turn.told(&trouble, Instant::now());
            }
        }
    }
}

/// Whether the server has answered. A refusal is survived: `status` says the same.
async fn is_told(client: &Client, trouble: &Trouble) -> bool {
    let event = event(trouble, jiff::Timestamp::now());
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

fn event(trouble: &Trouble, now: jiff::Timestamp) -> Event {
    let Trouble {
        key,
        uid,
        message,
        is_everybodys: _,
    } = trouble;
    let Key {
        kind,
        namespace,
        name,
    } = key;
    let mut hasher = DefaultHasher::new();
    // One of the same name that is there still would keep out the next one, and be gone soon.
    let hour = now.as_second().div_euclid(AGAIN_S);
    (key.to_string(), &**uid, message, hour).hash(&mut hasher);
    let resource = kind.resource();
    let now = Some(Time(now));
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
            is_everybodys: true,
        };
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let [one, same, other] = ["x", "x", "y"].map(|message| event(&trouble(message), now));
        let later = now + Duration::from_hours(1);
        let later = event(&trouble("x"), later);
        assert_ne!(one.metadata.name, later.metadata.name);
        assert_eq!(one.metadata.name, same.metadata.name);
        assert_ne!(one.metadata.name, other.metadata.name);
        assert_eq!(one.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(one.involved_object.namespace, None);
    }
}
