//! What one namespace's policies may take, and what becomes of those that are too much.

use agent_policy::{
    compile::{Compiler, Scope},
    compiled::Clock,
    plan::{Capacity, Plan, Programmed},
};

use super::*;
use crate::{
    config::{Capacities, Config, RawConfig},
    source::kubernetes::store::budget::Budget,
};

/// As much of it as a table may be.
fn listing(namespace: &str, name: &str, blocks: u32, ports: u32) -> Value {
    let blocks: Vec<Value> = (0..blocks)
        .map(|number| {
            let [_, high, middle, low] = (number * 2).to_be_bytes();
            json!({"ipBlock": {"cidr": format!("20.{high}.{middle}.{low}/32")}})
        })
        .collect();
    // No two of them are a range.
    let ports: Vec<Value> = (0..ports)
        .map(|number| json!({"port": 1 + 2 * number}))
        .collect();
    let mut rule = json!({});
    if !blocks.is_empty() {
        rule["from"] = json!(blocks);
    }
    if !ports.is_empty() {
        rule["ports"] = json!(ports);
    }
    let mut policy = policy(name, &json!({"podSelector": {}, "ingress": [rule]}));
    policy["metadata"]["namespace"] = json!(namespace);
    policy
}

fn capacities() -> Capacities {
    Config::check(RawConfig::default()).unwrap().capacities
}

fn follower() -> Follower {
    let budget = Budget::of(&Capacities {
        prefixes: 80,
        policy_entries: 800,
        port_entries: 80,
        ..capacities()
    });
    let mut follower = Follower::of_nothing();
    follower.store = follower.store.with_budget(budget);
    follower
}

impl Follower {
    /// How many blocks the policy in force has.
    fn blocks(&self, namespace: &str, name: &str) -> Option<usize> {
        let name = ObjectName::new(namespace, name);
        let policy = self.world.network_policies.get(&name)?;
        let [rule] = policy.ingress.as_deref()? else {
            return None;
        };
        match &rule.peers {
            agent_policy::model::Peers::Listed(peers) => Some(peers.len()),
            agent_policy::model::Peers::Every => Some(0),
        }
    }
}

#[test]
fn a_namespace_that_lists_more_than_its_share_keeps_what_it_had() {
    let mut follower = follower();
    follower.put(&listing("a", "one", 6, 1));
    follower.put(&listing("a", "two", 5, 0));
    follower.put(&listing("a", "three", 0, 10));
    follower.put(&listing("b", "one", 6, 1));
    assert_eq!(follower.blocks("a", "two"), None);
    assert_eq!(follower.blocks("b", "one"), Some(6));
    assert_eq!(
        follower.errors(),
        [
            "kubernetes:NetworkPolicy/a/three: with it, the policies of its namespace list 11 ports, expected at most 10",
            "kubernetes:NetworkPolicy/a/two: with it, the policies of its namespace list 11 blocks of addresses, \
             expected at most 10",
        ]
    );
    follower.put(&listing("a", "one", 7, 1));
    follower.put(&listing("a", "one", 11, 1));
    assert_eq!(follower.blocks("a", "one"), Some(7));
    // Room is used as soon as there is any.
    follower.put(&listing("a", "one", 4, 0));
    assert_eq!(follower.blocks("a", "two"), Some(5));
    assert_eq!(follower.errors(), [""; 0]);
    follower.put(&listing("a", "two", 7, 0));
    assert_eq!(follower.blocks("a", "two"), Some(5));
    follower.store.delete(&Key {
        kind: Kind::NetworkPolicy,
        namespace: "a".to_owned(),
        name: "one".to_owned(),
    });
    follower.follow();
    assert_eq!(follower.blocks("a", "two"), Some(7));
    assert_eq!(follower.errors(), [""; 0]);
}

#[test]
fn of_what_does_not_fit_that_of_the_namespace_that_takes_most_is_held_back() {
    let mut follower = follower();
    follower.put(&listing("greedy", "one", 1, 1));
    follower.store.came_into_force();
    let (before, files) = (follower.world.clone(), Arc::clone(&follower.files));
    for object in [
        listing("greedy", "one", 9, 1),
        listing("greedy", "new", 1, 1),
        listing("modest", "one", 2, 1),
    ] {
        follower.store.put(observed(&object));
    }
    let refused = follower.store.compose(&before, &files).unwrap();
    assert!(follower.store.hold_back("too much"));
    follower.world = refused;
    follower.follow();
    let of = |follower: &Follower, namespace, name| follower.blocks(namespace, name);
    assert_eq!(of(&follower, "greedy", "one"), Some(1));
    assert_eq!(of(&follower, "greedy", "new"), None);
    assert_eq!(of(&follower, "modest", "one"), Some(2));
    assert_eq!(
        follower.errors(),
        [
            "kubernetes:NetworkPolicy/greedy/new: too much",
            "kubernetes:NetworkPolicy/greedy/one: too much",
        ]
    );
    // And then that of the next one, until nothing is left that has changed.
    assert!(follower.store.hold_back("too much"));
    follower.follow();
    assert_eq!(of(&follower, "modest", "one"), None);
    assert!(!follower.store.hold_back("too much"));
    follower.store.came_into_force();

    follower.put(&listing("greedy", "one", 2, 1));
    follower.store.came_into_force();
    assert_eq!(of(&follower, "greedy", "one"), Some(2));
    assert!(!follower.store.hold_back("too much"));
}

/// What a share is measured by: as much as one namespace may list leaves room for others.
#[test]
fn a_whole_share_leaves_room_in_every_table() {
    const OBJECTS: u32 = 40;
    let sizes = capacities();
    let mut store = Follower::of_nothing();
    store.store = store.store.with_budget(Budget::of(&sizes));
    store.store.put(observed(&namespace(&json!({}))));
    store.store.put(observed(&pod("a", "u1", "10.0.0.1", 1)));
    store.store.place("u1", Some(placed("veth1", "10.0.0.1")));
    let (blocks, ports) = (
        sizes.prefixes / 8 / OBJECTS,
        sizes.port_entries / 8 / OBJECTS,
    );
    for number in 0..OBJECTS {
        let mut object = listing("shop", &format!("p{number}"), blocks, ports);
        for (at, peer) in object["spec"]["ingress"][0]["from"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .enumerate()
        {
            let at = u32::try_from(at).unwrap() * 2;
            let [_, _, high, low] = at.to_be_bytes();
            peer["ipBlock"]["cidr"] = json!(format!("20.{number}.{high}.{low}/32"));
        }
        store.store.put(observed(&object));
    }
    assert_eq!(store.errors(), [""; 0]);
    let world = store
        .store
        .compose(&World::default(), &store.files)
        .unwrap();
    let name = ObjectName::new("shop", "a");
    let scope = Scope {
        subjects: [name.clone().into()].into(),
        this_node: BTreeSet::new(),
    };
    let compiler = Compiler::new(&world, scope, &BTreeMap::new(), Clock::default());
    let endpoints = BTreeMap::from([(1, name.into())]);
    let plan = Plan::new(&Programmed::default(), compiler.compiled(), &endpoints);
    let tables: usize = plan.add_tables.values().map(|table| table.0.len()).sum();
    println!(
        "{} prefixes, {} answers, {tables} ports",
        plan.prefixes.len(),
        plan.policy.len()
    );
    let half = |size: u32| usize::try_from(size / 2).unwrap();
    let capacity = Capacity {
        endpoints: half(sizes.endpoints),
        prefixes: half(sizes.prefixes),
        sockets: half(sizes.endpoints),
        policy: half(sizes.policy_entries),
        ports: half(sizes.port_entries),
        own_addresses: half(sizes.addresses),
    };
    plan.check(&Programmed::default(), &capacity).unwrap();
}
