//! Where the API's servers are: as clients name them, and behind the Service that clients in the cluster use.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{self, Config, Event, watcher},
};
use serde_json::Value;

use super::{pause::Pauses, store::Store};

/// The newer one first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Follows the slices of `default/kubernetes`, which the servers keep up themselves, for ever.
pub(super) async fn follow(client: Client, store: Arc<Store>) {
    loop {
        for version in VERSIONS {
            follow_version(version, client.clone(), &store).await;
        }
        // Neither: it would be strange.
        tokio::time::sleep(super::RESOLVE).await;
    }
}

/// Ends if the server has no such version.
async fn follow_version(version: &str, client: Client, store: &Store) {
    let kind = GroupVersionKind::gvk("discovery.k8s.io", version, "EndpointSlice");
    let resource = ApiResource::from_gvk_with_plural(&kind, "endpointslices");
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
    // By its name: who may make slices there could have others lead anywhere.
    let config = Config::default().fields("metadata.name=kubernetes");
    let mut events = std::pin::pin!(watcher(api, config));
    let mut pauses = Pauses::default();
    let mut slices: Vec<(String, BTreeSet<SocketAddr>)> = Vec::new();
    let mut is_listing = false;
    while let Some(event) = events.next().await {
        let pause = pauses.after(&event);
        match event {
            Ok(Event::Init) => {
                is_listing = true;
                slices.clear();
            }
            Ok(Event::InitDone) => is_listing = false,
            Ok(Event::Apply(slice) | Event::InitApply(slice)) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                slices.retain(|(known, _)| *known != name);
                slices.push((name, addresses(&slice.data)));
            }
            Ok(Event::Delete(slice)) => {
                let name = slice.metadata.name.unwrap_or_default();
                slices.retain(|(known, _)| *known != name);
            }
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                if status.code == 404 =>
            {
                return;
            }
            Err(error) => tracing::debug!(%error, "the API servers' own addresses are not known"),
        }
        let all: BTreeSet<_> = slices.iter().flat_map(|(_, of)| of.clone()).collect();
        // Never none: one that is away for a moment comes back.
        if !is_listing && !all.is_empty() {
            store.served_at(all);
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

fn addresses(slice: &Value) -> BTreeSet<SocketAddr> {
    let list = |field: &str| slice.get(field).and_then(Value::as_array);
    let ports = list("ports").into_iter().flatten();
    let ports: Vec<u16> = ports
        .filter_map(|port| u16::try_from(port.get("port")?.as_u64()?).ok())
        .collect();
    let endpoints = list("endpoints").into_iter().flatten();
    let addresses = endpoints
        .filter_map(|endpoint| endpoint.get("addresses")?.as_array())
        .flatten();
    let addresses = addresses.filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
    addresses
        .flat_map(|address| {
            let ports = ports.iter();
            ports.map(move |port| SocketAddr::new(address, *port))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_address_is_reached_at_each_port() {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}, {"addresses": ["192.0.2.2", "name"]}],
            "ports": [{"name": "https", "port": 6443}, {"name": "none"}],
        });
        let expected = ["192.0.2.1:6443", "192.0.2.2:6443"];
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!(addresses(&slice), expected.into());
        assert!(addresses(&json!({})).is_empty());
    }
}
