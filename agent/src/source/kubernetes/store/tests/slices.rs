//! What slices give a Service.

use agent_policy::model::ObjectName;
use serde_json::{Value, json};

use super::Follower;
use crate::source::kubernetes::{
    kept::Kept, kind::Kind, object::Observed, store::slices::BACKENDS,
};

fn service(selector: Option<&Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "shop", "labels": {"large": "x".repeat(1 << 20)}},
        "spec": {
            "selector": selector, "clusterIP": "10.96.0.1", "externalIPs": ["::ffff:192.0.2.9", "198.051.100.9"],
            "ports": [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "b"}],
        },
    })
}

fn slice(name: &str, keeper: &str, port: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {
            "kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": keeper,
        }},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": port, "port": 9000, "protocol": "TCP"}],
    })
}

/// What serves the Service `s` by hand.
fn by_hand(follower: &Follower) -> Vec<String> {
    let service = &follower.world.services[&ObjectName::new("shop", "s")];
    let backends = service.by_hand.iter();
    backends
        .map(|it| format!("{}: {}:{}", it.service_port, it.address, it.port))
        .collect()
}

#[test]
fn slices_are_the_backends_of_a_service_without_a_selector_whoever_keeps_them_up() {
    let mut follower = Follower::new();
    let controller = "endpointslice-controller.k8s.io";
    follower.put(&slice("one", "me", "a", "192.0.2.1"));
    follower.put(&service(None));
    follower.put(&slice("two", controller, "b", "192.0.2.2"));
    follower.put(&slice("three", "me", "c", "192.0.2.3"));
    assert_eq!(
        by_hand(&follower),
        ["80: 192.0.2.1:9000", "81: 192.0.2.2:9000"]
    );
    follower.put(&slice("one", "me", "a", "192.0.2.4"));
    follower.delete(Kind::EndpointSlice, "two");
    assert_eq!(by_hand(&follower), ["80: 192.0.2.4:9000"]);
    // However they are written, its addresses are frontends.
    let addresses = &follower.world.services[&ObjectName::new("shop", "s")].addresses;
    for address in ["10.96.0.1", "192.0.2.9", "198.51.100.9"] {
        assert!(
            addresses.contains(&address.parse().unwrap()),
            "{addresses:?}"
        );
    }
    assert!(follower.errors().is_empty(), "{:?}", follower.errors());
    assert_eq!(follower.store.lock().objects.len(), 4);
    follower.delete(Kind::Service, "s");
    follower.put(&service(None));
    assert_eq!(by_hand(&follower), ["80: 192.0.2.4:9000"]);
}

#[test]
fn of_a_service_with_a_selector_only_the_slices_of_others_than_the_controller_count() {
    let mut follower = Follower::new();
    follower.put(&service(Some(&json!({"app": "a"}))));
    follower.put(&slice(
        "own",
        "endpointslice-controller.k8s.io",
        "a",
        "10.0.0.1",
    ));
    assert!(by_hand(&follower).is_empty());
    follower.put(&slice("other", "me", "a", "192.0.2.1"));
    assert_eq!(by_hand(&follower), ["80: 192.0.2.1:9000"]);
    // What there is of them counts when the selector is gone: proxies go on with it.
    follower.put(&service(None));
    assert_eq!(
        by_hand(&follower),
        ["80: 10.0.0.1:9000", "80: 192.0.2.1:9000"]
    );
}

#[test]
fn slices_are_kept() {
    let mut follower = Follower::new();
    follower.put(&service(None));
    follower.put(&slice("one", "me", "a", "192.0.2.1"));
    for kind in Kind::ALL {
        let seen = follower.store.lock().objects.keys().cloned().collect();
        follower.store.listed(kind, &seen);
    }
    let snapshot = follower.store.snapshot().unwrap();
    let kept = snapshot.objects.iter();
    let kept = kept.filter_map(|line| Observed::kept(line).unwrap());
    let mut again = Follower::new();
    again.store.take_kept(Kept {
        objects: kept.collect(),
        ..Kept::default()
    });
    again.follow();
    assert_eq!(by_hand(&again), by_hand(&follower));
    assert_eq!(by_hand(&again).len(), 1);
}

#[test]
fn no_more_backends_count_than_a_node_has_memory_for() {
    let mut follower = Follower::new();
    follower.put(&service(None));
    let mut large = slice("large", "me", "a", "192.0.2.1");
    let all = (0..=BACKENDS)
        .map(|number| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255));
    large["endpoints"] = json!([{"addresses": all.collect::<Vec<_>>()}]);
    follower.put(&large);
    assert_eq!(by_hand(&follower).len(), BACKENDS);
    assert_eq!(follower.errors().len(), 1, "{:?}", follower.errors());
    follower.put(&slice("large", "me", "a", "192.0.2.1"));
    assert_eq!(by_hand(&follower).len(), 1);
    assert!(follower.errors().is_empty(), "{:?}", follower.errors());
}
