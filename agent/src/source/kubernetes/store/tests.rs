use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use agent_policy::model::{EndpointSpec, ObjectName, Workload, World};
use serde_json::{Value, json};

use super::*;
use crate::source::kubernetes::{arrived::Arrived, placement::Beside};

mod slices;
mod standing;

fn observed(object: &Value) -> Observed {
    let object: Arrived = serde_json::from_value(object.clone()).unwrap();
    let kind = Kind::of_name(object.types().unwrap()).unwrap();
    Observed::read(kind, object).unwrap()
}

/// As the API has it, created at that second.
fn pod(name: &str, uid: &str, address: &str, created: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "labels": {"app": name},
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
            "annotations": {"large": "x".repeat(1 << 20)},
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Initialized", "status": "True"},
            ],
        },
    })
}

fn namespace(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

fn placed(interface: &str, address: &str) -> Placement {
    Placement {
        endpoint: EndpointSpec::Interface(interface.to_owned()),
        addresses: [address.parse().unwrap()].into(),
        assured: BTreeSet::new(),
        beside: BTreeMap::new(),
    }
}

/// A store, and the world that follows it.
struct Follower {
    store: Store,
    files: Arc<World>,
    world: World,
}

impl Follower {
    /// Of an API that has told of the namespace, and a node that was looked through.
    fn new() -> Self {
        let mut follower = Self::of_nothing();
        follower.store.looked();
        follower.put(&namespace(&json!({})));
        follower
    }

    fn of_nothing() -> Self {
        Self {
            store: Store::new("n1".to_owned()),
            files: Arc::default(),
            world: World::default(),
        }
    }

    fn put(&mut self, object: &Value) {
        self.store.put(observed(object));
        self.follow();
    }

    fn follow(&mut self) {
        if let Some(world) = self.store.compose(&self.world, &self.files).0 {
            self.world = world;
        }
        assert_eq!(self.store.compose(&self.world, &self.files).0, None);
        if !self.store.lock().is_held() {
            self.agrees_with_one_from_scratch();
        }
    }

    /// Following a change at a time leads where everything at once does.
    fn agrees_with_one_from_scratch(&self) {
        let again = Store::new("n1".to_owned());
        let mut inner = self.store.lock();
        for (uid, placement) in &inner.placements {
            again.place(uid, Some(placement.clone()));
        }
        let mut others = again.lock();
        others.slices = inner.slices.clone();
        others.first_seen = inner.first_seen.clone();
        for (key, entry) in &inner.objects {
            let entry = Entry {
                uid: Arc::clone(&entry.uid),
                json: Arc::clone(&entry.json),
                changes: entry.changes.clone(),
                errors: Vec::new(),
                claimed: Box::default(),
                points: Box::default(),
                versions: None,
                ..*entry
            };
            others.pods.insert(Arc::clone(&entry.uid), key.clone());
            others.objects.insert(key.clone(), entry);
        }
        let keys: Vec<Key> = others.objects.keys().cloned().collect();
        for key in keys {
            others.claim(&key);
        }
        drop(others);
        let mut world = again
            .compose(&World::default(), &self.files)
            .0
            .unwrap_or_default();
        // One that is no longer named may stay until it is deleted.
        for (name, labels) in &self.world.namespaces {
            let known = world.namespaces.get(name);
            if known.is_none() && labels.len() == 1 {
                world.namespaces.insert(name.clone(), Arc::clone(labels));
            }
        }
        assert_eq!(self.world, world);
        inner.dirty.clear();
    }

    fn owner(&self, address: &str) -> Option<String> {
        let owner = self.world.addresses.get(&address.parse().unwrap());
        owner.map(ToString::to_string)
    }

    fn workload(&self, name: &str) -> Option<&Workload> {
        let name = ObjectName::new("shop".to_owned(), name.to_owned());
        self.world.workloads.get(&name).map(Arc::as_ref)
    }

    fn delete(&mut self, kind: Kind, name: &str) {
        let namespaced = kind != Kind::Namespace;
        self.store.delete(&Key {
            kind,
            namespace: if namespaced { "shop" } else { "" }.to_owned(),
            name: name.to_owned(),
        });
        self.follow();
    }

    fn errors(&self) -> Vec<String> {
        self.store.status().errors
    }
}

#[test]
fn what_no_parser_reads_is_not_kept() {
    let observed = observed(&pod("a", "u1", "10.0.0.1", 1));
    assert!(observed.json.len() < 500, "{}", observed.json);
    assert!(observed.errors.is_empty(), "{:?}", observed.errors);
    let again = Observed::kept(&observed.json).unwrap();
    assert_eq!(again, Some(observed));
}

#[test]
fn more_labels_than_anybody_needs_are_an_error_and_not_fewer_labels() {
    let mut many = pod("a", "u1", "10.0.0.1", 1);
    let labels = (0..100_000).map(|number| (format!("l{number:06}"), json!("v")));
    many["metadata"]["labels"] = Value::Object(labels.collect());
    let mut follower = Follower::new();
    follower.put(&many);
    assert!(follower.workload("a").is_none());
    let errors = follower.errors();
    assert!(
        errors[0].starts_with("kubernetes:Pod/shop/a: 100000 labels"),
        "{errors:?}"
    );
}

#[test]
fn an_object_that_is_too_large_keeps_its_last_good_version() {
    let mut follower = Follower::new();
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    let mut large = pod("a", "u1", "10.0.0.2", 1);
    let port = |number: u32| json!({"name": format!("p{number}"), "containerPort": number});
    let ports: Vec<Value> = (1..20_000).map(port).collect();
    large["spec"]["containers"][0]["ports"] = json!(ports);
    follower.put(&large);
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/a");
    let expected = "kubernetes:Pod/shop/a: it is larger than what is kept of one object, 256 KiB";
    assert!(
        follower.errors().contains(&expected.to_owned()),
        "{:?}",
        follower.errors()
    );
    follower.put(&pod("a", "u1", "10.0.0.3", 1));
    assert_eq!(follower.errors(), [""; 0]);
    assert_eq!(follower.owner("10.0.0.3").unwrap(), "shop/a");
}

/// Nothing is compared with the clock of the node.
#[test]
fn a_server_whose_clock_is_an_hour_wrong_has_its_pods_in_their_order() {
    let at = |hour: u32, minute: u32| json!(format!("2026-01-01T{hour:02}:{minute:02}:00Z"));
    let in_an_hour = jiff::Timestamp::now() + std::time::Duration::from_hours(1);
    for [old, new] in [
        [at(5, 0), at(5, 1)],
        [at(5, 0), json!(in_an_hour.to_string())],
    ] {
        let mut follower = Follower::new();
        for (name, uid, created) in [("new", "u2", &new), ("old", "u1", &old)] {
            let mut pod = pod(name, uid, "10.0.0.1", 1);
            pod["metadata"]["creationTimestamp"] = created.clone();
            follower.put(&pod);
        }
        assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/new");
    }
}

#[test]
fn the_last_good_version_of_an_object_stays() {
    let mut follower = Follower::new();
    let mut first = policy("a", &json!({"podSelector": {}}));
    first["metadata"]["generation"] = 3.into();
    follower.put(&first);
    follower.put(&policy("b", &json!({"podSelector": {}})));
    follower.put(&policy("a", &json!({"podSelector": {}, "ingres": []})));
    follower.put(&policy("c", &json!({"podSelector": {"matchLabels": 1}})));
    let names: Vec<_> = follower
        .world
        .network_policies
        .keys()
        .map(|name| name.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let policies = follower.world.network_policies.values();
    let revisions: Vec<_> = policies.map(|policy| policy.terms.revision).collect();
    assert_eq!(revisions, [Some(3), None], "of what is in force");
    let errors = follower.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("kubernetes:NetworkPolicy/shop/a:1:"),
        "{errors:?}"
    );

    follower.put(&policy(
        "a",
        &json!({"podSelector": {"matchLabels": {"app": "x"}}}),
    ));
    follower.delete(Kind::NetworkPolicy, "c");
    assert_eq!(follower.errors(), [""; 0]);
    follower.delete(Kind::NetworkPolicy, "a");
    assert_eq!(follower.world.network_policies.len(), 1);
}

#[test]
fn an_address_is_that_of_the_pod_that_was_created_last() {
    let mut follower = Follower::new();
    follower.put(&pod("old", "u1", "10.0.0.1", 1));
    follower.put(&pod("new", "u2", "10.0.0.1", 2));
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/new");
    assert_eq!(
        follower.errors(),
        ["kubernetes:Pod/shop/old: address 10.0.0.1 is that of `Pod/shop/new`, and not its own"]
    );
    // The old one is selected still.
    assert!(follower.workload("old").unwrap().addresses.is_empty());
    follower.delete(Kind::Pod, "new");
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/old");
    assert_eq!(follower.errors(), [""; 0]);

    let mut ending = pod("newer", "u3", "10.0.0.1", 3);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    follower.put(&ending);
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/old");
}

#[test]
fn a_pod_has_what_its_sandbox_has() {
    let mut follower = Follower::new();
    follower.put(&pod("liar", "u1", "10.0.0.9", 5));
    follower
        .store
        .place("u2", Some(placed("veth2", "10.0.0.9")));
    follower.put(&pod("honest", "u2", "10.0.0.9", 1));
    assert_eq!(follower.owner("10.0.0.9").unwrap(), "shop/honest");
    let made = Placement {
        assured: ["10.0.0.1".parse().unwrap()].into(),
        ..placed("veth1", "10.0.0.1")
    };
    follower.store.place("u1", Some(made));
    follower.follow();
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/liar");
    assert_eq!(follower.errors(), [""; 0]);
    let endpoint = follower.workload("honest").unwrap().endpoint.clone();
    assert_eq!(endpoint, Some(EndpointSpec::Interface("veth2".to_owned())));
    follower.store.place("u2", None);
    follower.follow();
    assert_eq!(follower.workload("honest").unwrap().endpoint, None);
}

#[test]
fn a_pod_that_is_held_at_its_cgroup_is_met_by_its_addresses() {
    let mut follower = Follower::new();
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    let at_cgroup = Placement {
        endpoint: EndpointSpec::Cgroup("kubepods/podu1".to_owned()),
        ..placed("", "10.0.0.1")
    };
    follower.store.place("u1", Some(at_cgroup.clone()));
    follower.follow();
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/a@addresses");
    let peer = follower.workload("a@addresses").unwrap();
    assert_eq!((&peer.labels["app"][..], &peer.endpoint), ("a", &None));
    let held = follower.workload("a").unwrap().endpoint.clone();
    assert_eq!(held, Some(at_cgroup.endpoint.clone()));
    // One that has the address since is another.
    follower.put(&pod("b", "u2", "10.0.0.1", 2));
    follower
        .store
        .place("u2", Some(placed("veth2", "10.0.0.1")));
    follower.follow();
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/b");
    assert!(follower.workload("a@addresses").is_none());

    let mut on_node = pod("c", "u3", "10.0.0.9", 1);
    on_node["spec"]["hostNetwork"] = json!(true);
    follower.put(&on_node);
    follower.store.place("u3", Some(at_cgroup));
    follower.follow();
    assert_eq!(follower.owner("10.0.0.9"), None);
}

#[test]
fn a_completed_pod_gives_its_address_up() {
    let mut follower = Follower::new();
    follower.put(&pod("job", "u1", "10.0.0.1", 9));
    let mut done = pod("job", "u1", "10.0.0.1", 9);
    done["status"]["phase"] = json!("Succeeded");
    follower.put(&pod("next", "u2", "10.0.0.1", 1));
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/job");
    follower.put(&done);
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/next");
    assert!(follower.workload("job").is_none());
}

#[test]
fn a_pod_that_was_deleted_is_a_subject_until_its_sandbox_is_gone() {
    let mut follower = Follower::new();
    follower.put(&pod("db-0", "u1", "10.0.0.1", 1));
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    follower.delete(Kind::Pod, "db-0");
    assert!(follower.workload("db-0").unwrap().endpoint.is_some());
    // Its successor on another node has its name.
    let mut successor = pod("db-0", "u2", "10.0.1.1", 2);
    successor["spec"]["nodeName"] = json!("n2");
    follower.put(&successor);
    assert_eq!(follower.owner("10.0.1.1").unwrap(), "shop/db-0");
    let left = follower.workload("db-0.u1").unwrap();
    assert_eq!(left.labels["app"], "db-0");
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/db-0.u1");
    follower.store.place("u1", None);
    follower.follow();
    assert!(follower.workload("db-0.u1").is_none());
    assert_eq!(follower.store.pod("u1"), None);
    assert_eq!(follower.store.pod("u2").unwrap().name.name, "db-0");
}

#[test]
fn a_mirror_of_a_static_pod_is_known_as_its_node_has_it() {
    let mut follower = Follower::new();
    let mut mirror = pod("etcd", "u1", "10.0.0.1", 1);
    mirror["metadata"]["annotations"] =
        json!({"kubernetes.io/config.mirror": HASH, "kubernetes.io/config.hash": HASH});
    mirror["spec"]["nodeName"] = json!("node1");
    follower.put(&mirror);
    follower
        .store
        .place(HASH, Some(placed("veth1", "10.0.0.1")));
    follower.follow();
    assert!(follower.workload("etcd").unwrap().endpoint.is_some());
}

#[test]
fn nobody_takes_the_place_of_another_pod_by_an_annotation() {
    let uid = "2b6c2b04-65a2-4b1f-8f5c-0f5f0c0b8f0e";
    let mut follower = Follower::new();
    let mut mirror = pod("a", "u1", "10.0.0.9", 1);
    mirror["metadata"]["annotations"] =
        json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": uid});
    mirror["spec"]["nodeName"] = json!("node1");
    follower.put(&mirror);
    follower.put(&pod("db", uid, "10.0.0.1", 2));
    follower.store.place(uid, Some(placed("veth1", "10.0.0.1")));
    follower.follow();
    assert!(follower.workload("a").unwrap().endpoint.is_none());
    assert!(follower.workload("db").unwrap().endpoint.is_some());
}

#[test]
fn a_pod_has_no_address_by_putting_it_on_its_interface() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut follower = Follower::new();
    follower.put(&pod("thief", "u1", "10.0.0.1", 9));
    follower.put(&pod("victim", "u2", "10.0.0.2", 1));
    let taken = Placement {
        addresses: [address("10.0.0.1"), address("10.0.0.2")].into(),
        ..placed("veth1", "10.0.0.1")
    };
    follower.store.place("u1", Some(taken.clone()));
    follower.follow();
    let of = |follower: &Follower, name| follower.workload(name).unwrap().addresses.clone();
    assert_eq!(of(&follower, "thief"), [address("10.0.0.1")].into());
    assert_eq!(of(&follower, "victim"), [address("10.0.0.2")].into());

    // Before the API has given it one, it has what it had at first, unless another has that.
    let mut follower = Follower::new();
    let mut young = pod("thief", "u1", "10.0.0.1", 9);
    young["status"] = json!({});
    follower.put(&young);
    follower.put(&pod("victim", "u2", "10.0.0.2", 1));
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    follower.store.place("u1", Some(taken.clone()));
    follower.follow();
    assert_eq!(of(&follower, "thief"), [address("10.0.0.1")].into());
    follower.store.place("u1", None);
    follower.store.place("u1", Some(taken));
    follower.follow();
    assert_eq!(of(&follower, "victim"), [address("10.0.0.2")].into());
}

#[test]
fn a_workload_takes_no_address_of_a_pod_that_the_api_has_given_none_yet() {
    let mut follower = Follower::new();
    follower.put(&json!({
        "apiVersion": "ringfence.io/v1alpha1", "kind": "Workload",
        "metadata": {"name": "thief", "namespace": "shop", "uid": "w1"},
        "spec": {"addresses": ["10.0.0.1"]},
    }));
    let mut young = pod("a", "u1", "10.0.0.1", 1);
    young["status"] = json!({});
    follower.put(&young);
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    follower.follow();
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/a");
}

#[test]
fn what_the_maker_of_an_interface_has_said_counts_before_the_api() {
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    let mut follower = Follower::new();
    // Still that of the sandbox before.
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    let assured = Placement {
        assured: [address].into(),
        ..placed("veth1", "10.0.0.7")
    };
    follower.store.place("u1", Some(assured));
    follower.follow();
    assert_eq!(follower.workload("a").unwrap().addresses, [address].into());
}

fn with_beside(interface: &str, address: &str, beside: &[(u32, &str, &[&str])]) -> Placement {
    let mut placement = placed(interface, address);
    for (index, interface, addresses) in beside {
        let addresses = addresses.iter().map(|it| it.parse().unwrap());
        let beside = Beside {
            interface: (*interface).to_owned(),
            addresses: addresses.collect(),
        };
        placement.beside.insert(*index, beside);
    }
    placement
}

#[test]
fn an_interface_beside_is_an_endpoint_with_what_it_had_first() {
    let mut follower = Follower::new();
    follower.put(&pod("a", "a", "10.0.0.1", 1));
    let first = with_beside("veth", "10.0.0.1", &[(7, "net", &["10.1.0.1", "10.0.0.1"])]);
    follower.store.place("a", Some(first));
    follower.follow();
    let beside = follower.workload("a+net").unwrap();
    assert_eq!(beside.labels, follower.workload("a").unwrap().labels);
    assert_eq!(
        beside.endpoint,
        Some(EndpointSpec::Interface("net".to_owned()))
    );
    assert!(!beside.ready, "it serves");
    assert_eq!(follower.owner("10.1.0.1").as_deref(), Some("shop/a+net"));
    assert_eq!(follower.owner("10.0.0.1").as_deref(), Some("shop/a"));
    // More from inside is not its own.
    let more = with_beside("veth", "10.0.0.1", &[(7, "net", &["10.1.0.1", "10.1.0.9"])]);
    follower.store.place("a", Some(more));
    follower.follow();
    assert_eq!(follower.owner("10.1.0.9"), None);
    assert_eq!(follower.owner("10.1.0.1").as_deref(), Some("shop/a+net"));
    // What the API gives to another is that one's, whoever was there first.
    follower.put(&pod("b", "b", "10.1.0.1", 0));
    assert_eq!(follower.owner("10.1.0.1").as_deref(), Some("shop/b"));
    assert_eq!(follower.errors().len(), 1, "{:?}", follower.errors());
    // It goes alone, and with the pod.
    follower.store.place("a", Some(placed("veth", "10.0.0.1")));
    follower.follow();
    assert!(follower.workload("a+net").is_none());
    assert!(follower.workload("a").is_some());
    assert!(follower.errors().is_empty(), "{:?}", follower.errors());
}

#[test]
fn a_sandbox_whose_pod_is_not_known_is_nobodys() {
    let mut follower = Follower::new();
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    let of_nobody = |follower: &Follower| follower.store.sandboxes_of_nobody();
    assert_eq!(of_nobody(&follower), ["veth1".to_owned()].into());
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    assert!(of_nobody(&follower).is_empty());
}

#[test]
fn a_further_interface_is_nobodys_where_a_file_has_the_name_of_its_pod() {
    let mut follower = Follower::new();
    follower.put(&pod("p", "u1", "10.0.0.1", 1));
    let placement = with_beside("veth1", "10.0.0.1", &[(7, "net", &["10.1.0.1"])]);
    follower.store.place("u1", Some(placement));
    follower.follow();
    assert!(follower.store.sandboxes_of_nobody().is_empty());
    let text = "apiVersion: ringfence.io/v1alpha1\nkind: Workload\nmetadata: {name: p, namespace: \
        shop}\nspec: {addresses: [10.0.0.1], endpoint: {interface: veth1}}\n";
    let file = agent_policy::load::parse_file("a.yaml".into(), text.as_bytes());
    let (world, _) = agent_policy::load::assemble(&[file]);
    follower.files = Arc::new(world);
    follower.follow();
    let nobodys = follower.store.sandboxes_of_nobody();
    assert_eq!(nobodys, ["net".to_owned()].into());
}

#[test]
fn an_interface_beside_takes_no_address_from_a_workload() {
    let mut follower = Follower::new();
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    follower.put(&json!({
        "apiVersion": "ringfence.io/v1alpha1", "kind": "Workload",
        "metadata": {"name": "machine", "namespace": "shop", "uid": "w"},
        "spec": {"addresses": ["192.0.2.1"]},
    }));
    let placement = with_beside("veth1", "10.0.0.1", &[(7, "net", &["192.0.2.1"])]);
    follower.store.place("u1", Some(placement));
    follower.follow();
    assert_eq!(follower.owner("192.0.2.1").as_deref(), Some("shop/machine"));
    let beside = follower.workload("a+net").unwrap();
    assert!(beside.endpoint.is_some() && beside.addresses.is_empty());
    assert_eq!(follower.errors().len(), 1, "{:?}", follower.errors());
}

/// As a kubelet names static pods.
const HASH: &str = "6ad7e1c4fd5e4bd4bd1b6c2a1c8b7f00";

#[test]
fn a_file_and_the_api_add_up_and_of_one_name_that_of_the_file_stays() {
    let text = "apiVersion: ringfence.io/v1alpha1\nkind: Workload\nmetadata: {name: w, namespace: \
        shop}\nspec: {addresses: [10.0.0.1], endpoint: {interface: veth1}}\n---\napiVersion: \
        networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, namespace: shop}\nspec: \
        {podSelector: {matchLabels: {from: file}}}\n";
    let file = agent_policy::load::parse_file("a.yaml".into(), text.as_bytes());
    let (world, _) = agent_policy::load::assemble(&[file]);
    let mut follower = Follower::new();
    follower.put(&pod("p", "u1", "10.0.0.1", 1));
    follower.put(&policy("a", &json!({"podSelector": {}})));
    follower.put(&policy("b", &json!({"podSelector": {}})));
    follower.files = Arc::new(world);
    follower.follow();
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/w");
    assert_eq!(follower.world.network_policies.len(), 2);
    assert_eq!(follower.errors().len(), 2, "{:?}", follower.errors());
    follower.put(&namespace(&json!({"team": "a"})));
    assert_eq!(follower.world.namespaces["shop"]["team"], "a");

    follower.files = Arc::default();
    follower.follow();
    assert_eq!(follower.errors(), [""; 0]);
    assert_eq!(follower.owner("10.0.0.1").unwrap(), "shop/p");
    assert_eq!(follower.world.network_policies.len(), 2);
}

#[test]
fn a_namespace_that_is_deleted_keeps_its_name_for_who_is_in_it() {
    let mut follower = Follower::new();
    follower.put(&namespace(&json!({"team": "a"})));
    follower.put(&policy("a", &json!({"podSelector": {}})));
    follower.delete(Kind::Namespace, "shop");
    assert_eq!(follower.world.namespaces["shop"].len(), 1);
    follower.delete(Kind::NetworkPolicy, "a");
    follower.put(&namespace(&json!({})));
    follower.delete(Kind::Namespace, "shop");
    assert!(follower.world.namespaces.is_empty());
}

#[test]
fn a_pod_counts_once_the_labels_of_its_namespace_are_known() {
    let mut follower = Follower::of_nothing();
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    follower.follow();
    let name = ObjectName::new("shop", "a");
    assert!(follower.workload("a").is_none());
    assert_eq!(follower.store.pod("u1"), None);
    assert_eq!(follower.store.pod_named(&name), None);
    let nobodys = follower.store.sandboxes_of_nobody();
    assert_eq!(nobodys, ["veth1".to_owned()].into());
    // Nor with labels that are too many.
    follower.put(&namespace(&json!({"team": "x".repeat(100_000)})));
    assert!(follower.workload("a").is_none());

    follower.put(&namespace(&json!({"team": "a"})));
    assert!(follower.workload("a").is_some());
    assert_eq!(follower.world.namespaces["shop"]["team"], "a");
    assert!(follower.store.pod_named(&name).is_some());
    assert!(follower.store.sandboxes_of_nobody().is_empty());
}

#[test]
fn a_namespace_keeps_its_labels_until_the_last_of_its_pods_is_gone() {
    let mut follower = Follower::new();
    follower.put(&namespace(&json!({"team": "a"})));
    follower.put(&pod("a", "u1", "10.0.0.1", 1));
    follower
        .store
        .place("u1", Some(placed("veth1", "10.0.0.1")));
    follower.delete(Kind::Namespace, "shop");
    follower.delete(Kind::Pod, "a");
    assert!(follower.workload("a").is_some());
    assert_eq!(follower.world.namespaces["shop"]["team"], "a");
    follower.store.place("u1", None);
    follower.follow();
    assert!(follower.workload("a").is_none());
    assert!(follower.world.namespaces.is_empty());
}

#[test]
fn a_pod_that_was_gone_when_the_agent_ended_is_one_until_its_sandbox_is_gone() {
    let mut follower = Follower::new();
    let place = |store: &Store, uid| store.place(uid, Some(placed(uid, "10.0.0.1")));
    for name in ["forced", "over"] {
        follower.put(&pod(name, name, "10.0.0.1", 1));
        place(&follower.store, name);
        follower.delete(Kind::Pod, name);
    }
    follower.put(&pod("forced", "u2", "10.0.0.2", 2));
    follower.put(&pod("meanwhile", "u3", "10.0.0.3", 2));
    for kind in Kind::ALL {
        let seen = follower.store.lock().objects.keys().cloned().collect();
        follower.store.listed(kind, &seen);
    }
    let snapshot = follower.store.snapshot().unwrap();
    assert_eq!(snapshot.gone.len(), 2);

    let read = |lines: Vec<Arc<str>>| {
        let lines = lines.iter();
        let read = lines.map(|line| Observed::kept(line).unwrap().unwrap());
        read.collect::<Vec<_>>()
    };
    let mut again = Follower::of_nothing();
    again.store.take_kept(Kept {
        objects: read(snapshot.objects),
        gone: read(snapshot.gone),
        servers: snapshot.servers,
    });
    // One was deleted while no agent was there.
    let seen = [Key {
        kind: Kind::Pod,
        namespace: "shop".to_owned(),
        name: "forced".to_owned(),
    }];
    again.store.listed(Kind::Pod, &seen.into());
    for uid in ["forced", "u3"] {
        place(&again.store, uid);
    }
    again.store.looked();
    again.follow();
    assert!(again.store.sandboxes_of_nobody().is_empty());
    assert!(again.workload("forced").unwrap().endpoint.is_none());
    for name in ["forced.forced", "meanwhile"] {
        assert!(again.workload(name).unwrap().endpoint.is_some(), "{name}");
    }
    assert!(again.workload("over").is_none());
}

#[test]
fn servers_of_an_earlier_run_are_not_kept_for_ever() {
    let server = |text: &str| text.parse::<SocketAddr>().unwrap();
    let store = Store::new("n1".to_owned());
    store.take_kept(Kept {
        servers: [server("192.0.2.1:6443")].into(),
        ..Kept::default()
    });
    store.reached_at(
        "https://192.0.2.2:6443".to_owned(),
        [server("192.0.2.2:6443")].into(),
    );
    assert_eq!(store.lock().servers().len(), 2);
    for kind in Kind::ALL {
        store.listed(kind, &BTreeSet::new());
    }
    let kept = store.snapshot().unwrap().servers;
    assert_eq!(kept, [server("192.0.2.2:6443")].into());
}

#[test]
fn tables_of_names_add_up() {
    let table = |name: &str, address: &str| {
        json!({
            "apiVersion": "ringfence.io/v1alpha1", "kind": "NameTable",
            "metadata": {"name": name}, "spec": {"names": {"example.org": [address]}},
        })
    };
    let mut follower = Follower::new();
    follower.put(&table("a", "192.0.2.1"));
    follower.put(&table("b", "192.0.2.2"));
    assert_eq!(follower.world.names["example.org"].len(), 2);
    follower.store.listed(Kind::NameTable, &BTreeSet::new());
    follower.follow();
    assert!(follower.world.names.is_empty());
}

#[test]
fn a_node_that_the_api_calls_otherwise_is_told_of() {
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let mut follower = Follower::new();
    follower.put(&node("n1.example.org"));
    assert_eq!(
        follower.errors(),
        ["the API has no node `n1`: say by --node what it calls this one"]
    );
    follower.put(&node("n1"));
    assert_eq!(follower.errors(), [""; 0]);
}

#[test]
fn the_world_is_complete_once_every_kind_was_listed() {
    let store = Store::new("n1".to_owned());
    for kind in Kind::ALL {
        assert!(!store.is_ready());
        if kind.may_be_absent() {
            assert!(store.absent(kind));
        } else {
            store.listed(kind, &BTreeSet::new());
        }
    }
    assert!(store.is_ready());
}

#[test]
fn what_was_kept_holds_until_a_list_says_otherwise() {
    let store = Store::new("n1".to_owned());
    let [kept, gone] = ["kept", "gone"].map(|name| observed(&pod(name, name, "10.0.0.1", 1)));
    store.take_kept(Kept {
        objects: vec![kept.clone(), gone],
        ..Kept::default()
    });
    store.looked();
    assert!(store.is_ready() && store.status().from_kept);
    store.put(kept.clone());
    store.listed(Kind::Pod, &BTreeSet::from([kept.key]));
    assert_eq!(
        store
            .status()
            .watches
            .iter()
            .map(|watch| watch.objects)
            .sum::<usize>(),
        1
    );
}

#[test]
fn the_servers_of_the_api_are_reached_whatever_policies_say() {
    let mut follower = Follower::new();
    let server = "192.0.2.1:6443".parse().unwrap();
    follower
        .store
        .reached_at("https://192.0.2.1:6443".to_owned(), [server].into());
    let world = follower
        .store
        .compose(&follower.world, &follower.files)
        .0
        .unwrap();
    assert_eq!(world.failsafe[0].name, "api-server 192.0.2.1:6443");
    follower.world = world;
    assert_eq!(
        follower.store.compose(&follower.world, &follower.files).0,
        None
    );
}

/// Resident, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[test]
fn a_change_costs_what_it_changes() {
    const PODS: u32 = 10_000;
    let store = Store::new("n1".to_owned());
    let files = Arc::<World>::default();
    store.put(observed(&namespace(&json!({}))));
    let before = memory();
    for number in 0..PODS {
        let [high, low] = [number / 250, number % 250];
        let mut pod = pod(
            &format!("web-{number}"),
            &format!("0a0b0c0d-0000-0000-0000-{number:012}"),
            &format!("10.0.{high}.{low}"),
            1,
        );
        pod["metadata"]["labels"] = json!({"app": format!("web-{}", number / 10), "tier": "front"});
        pod["metadata"]["annotations"] = json!({});
        store.put(observed(&pod));
    }
    let world = store.compose(&World::default(), &files).0.unwrap();
    assert_eq!(world.addresses.len(), usize::try_from(PODS).unwrap());
    println!("{} KiB for {PODS} pods", memory().saturating_sub(before));
    let distinct: BTreeSet<_> = world
        .workloads
        .values()
        .map(|pod| Arc::as_ptr(&pod.labels))
        .collect();
    assert_eq!(distinct.len(), 1000);

    let begun = Instant::now();
    store.put(observed(&policy("a", &json!({"podSelector": {}}))));
    let with_policy = store.compose(&world, &files).0.unwrap();
    println!("a policy: {:?}", begun.elapsed());
    assert!(with_policy.workloads.is_same(&world.workloads));
    assert!(with_policy.addresses.is_same(&world.addresses));

    let begun = Instant::now();
    store.put(observed(&pod(
        "web-7",
        "0a0b0c0d-0000-0000-0000-000000000007",
        "10.0.0.7",
        1,
    )));
    assert_eq!(store.lock().dirty.len(), 2);
    let with_pod = store.compose(&with_policy, &files).0.unwrap();
    println!("a pod: {:?}", begun.elapsed());
    let changes = with_pod.changes_from(&with_policy);
    assert_eq!(changes.len(), 1, "{changes:?}");
}

fn system(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}})
}

/// What was kept of a cluster with one pod.
fn takes_cluster_one(follower: &Follower) {
    let kept = [
        system("one"),
        namespace(&json!({})),
        pod("old", "u1", "10.0.0.1", 1),
    ];
    follower.store.take_kept(Kept {
        objects: kept.iter().map(observed).collect(),
        ..Kept::default()
    });
}

fn names(follower: &Follower) -> Vec<String> {
    let workloads = follower.world.workloads.keys();
    workloads.map(|name| name.name.clone()).collect()
}

#[test]
fn what_was_kept_of_another_cluster_is_in_force_until_all_of_this_one_is_known_and_no_longer() {
    let mut follower = Follower::new();
    takes_cluster_one(&follower);
    follower.follow();
    assert_eq!(names(&follower), ["old"]);
    // Of a server that has just begun: it has no such namespace yet.
    follower.delete(Kind::Namespace, "kube-system");
    follower.put(&system("two"));
    follower.put(&pod("later", "u3", "10.0.0.3", 3));
    assert_eq!(names(&follower), ["old"]);

    follower.store.begin_anew();
    follower.put(&system("two"));
    follower.put(&namespace(&json!({})));
    follower.put(&pod("new", "u2", "10.0.0.1", 2));
    assert!(follower.store.is_ready());
    assert_eq!(names(&follower), ["old"]);
    // What has begun meanwhile is closed.
    follower
        .store
        .place("u2", Some(placed("veth2", "10.0.0.1")));
    follower.follow();
    let nobodys = follower.store.sandboxes_of_nobody();
    assert_eq!(nobodys, ["veth2".to_owned()].into());
    assert!(follower.store.snapshot().is_none());
    for kind in Kind::ALL {
        let key = |name: &str, namespace: &str| Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let seen = [key("kube-system", ""), key("shop", ""), key("new", "shop")];
        follower.store.listed(kind, &seen.into());
    }
    follower.follow();
    assert_eq!(names(&follower), ["new"]);
    assert!(follower.store.sandboxes_of_nobody().is_empty());
    assert!(follower.store.snapshot().is_some());
}

#[test]
fn what_was_kept_of_this_cluster_goes_on_with_what_is_heard() {
    let mut follower = Follower::new();
    takes_cluster_one(&follower);
    follower.put(&pod("new", "u2", "10.0.0.2", 2));
    assert_eq!(names(&follower), ["new", "old"]);
    follower.put(&system("one"));
    assert_eq!(names(&follower), ["new", "old"]);
}
