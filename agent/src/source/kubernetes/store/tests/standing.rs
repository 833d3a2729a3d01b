//! What the agent tells of what is in force.

use super::*;
use crate::source::kubernetes::report::{Digest, Tally};

fn version(uid: &str, resource: &str, spec: &Value) -> Value {
    let mut object = policy(uid, spec);
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!(resource);
    object
}

fn good(uid: &str, resource: &str) -> Value {
    version(uid, resource, &json!({"podSelector": {}}))
}

fn bad(uid: &str, resource: &str) -> Value {
    version(uid, resource, &json!({"podSelector": 1}))
}

impl Follower {
    /// Of the network policies that the kernel has.
    fn tally(&self) -> Tally {
        self.store.settle(1, true);
        let standing = self.store.standing();
        let standing = standing.borrow();
        standing.summary.kinds[0].clone()
    }

    fn list(&self, objects: &[Value]) {
        let observed: Vec<Observed> = objects.iter().map(observed).collect();
        let seen = observed.iter().map(|of| of.key.clone()).collect();
        self.store.lists(Kind::NetworkPolicy);
        for object in observed {
            self.store.put(object);
        }
        self.store.listed(Kind::NetworkPolicy, &seen);
    }
}

fn digest(versions: &[(&str, &str)]) -> Digest {
    let digests = versions
        .iter()
        .map(|(uid, version)| Digest::of(uid, version));
    digests.fold(Digest::default(), Digest::with)
}

#[test]
fn only_what_is_in_the_world_is_told_to_be_in_force() {
    let mut follower = Follower::new();
    follower.put(&good("a", "5"));
    assert_eq!(follower.tally().digest, digest(&[("a", "5")]));
    // Heard, and not put together with the rest yet.
    follower.store.put(observed(&good("b", "7")));
    assert_eq!(follower.tally().digest, digest(&[("a", "5")]));
    follower.follow();
    let tally = follower.tally();
    assert_eq!(tally.digest, digest(&[("a", "5"), ("b", "7")]));
    assert_eq!(
        (tally.objects, tally.resource_version.as_deref()),
        (2, Some("7"))
    );
    follower.store.delete(&observed(&good("a", "5")).key);
    follower.follow();
    assert_eq!(follower.tally().digest, digest(&[("b", "7")]));
}

#[test]
fn another_version_of_the_same_is_told_although_nothing_has_changed() {
    let mut follower = Follower::new();
    follower.put(&good("a", "5"));
    assert!(
        !follower
            .store
            .inner
            .lock()
            .unwrap()
            .put(observed(&good("a", "6")))
    );
    follower.follow();
    assert_eq!(follower.tally().digest, digest(&[("a", "6")]));
}

#[test]
fn the_last_good_version_is_in_force_and_what_is_wrong_is_named() {
    let mut follower = Follower::new();
    follower.put(&good("a", "5"));
    follower.put(&bad("a", "6"));
    follower.put(&bad("b", "7"));
    let tally = follower.tally();
    assert_eq!(tally.digest, digest(&[("a", "5")]));
    assert_eq!(tally.resource_version.as_deref(), Some("7"));
    let standing = follower.store.standing();
    let summary = Arc::clone(&standing.borrow().summary);
    assert_eq!(summary.errors, 2);
    let [a, b] = &summary.held[..] else {
        panic!("{:?}", summary.held);
    };
    assert_eq!(
        (&*a.object, &*a.resource_version),
        ("NetworkPolicy/shop/a", "6")
    );
    assert_eq!(a.in_force.as_deref(), Some("5"));
    assert_eq!(b.in_force, None);
    assert!(!b.message.is_empty());
    // Right again.
    follower.put(&good("a", "8"));
    follower.put(&good("b", "9"));
    assert_eq!(follower.tally().digest, digest(&[("a", "8"), ("b", "9")]));
    let standing = follower.store.standing();
    assert_eq!(standing.borrow().summary.errors, 0);
}

#[test]
fn while_a_list_arrives_no_version_is_the_highest() {
    let mut follower = Follower::new();
    follower.list(&[good("a", "5")]);
    follower.follow();
    assert_eq!(follower.tally().resource_version.as_deref(), Some("5"));
    follower.store.lists(Kind::NetworkPolicy);
    follower.put(&good("b", "9"));
    assert_eq!(follower.tally().resource_version, None);
    follower.list(&[good("a", "8"), good("b", "9")]);
    follower.follow();
    assert_eq!(follower.tally().resource_version.as_deref(), Some("9"));
    // Versions of another kind of server.
    follower.put(&good("c", "x1"));
    assert_eq!(follower.tally().resource_version, None);
}

#[test]
fn what_is_refused_leaves_what_was_in_force() {
    let mut follower = Follower::new();
    follower.put(&good("a", "5"));
    let before = follower.tally();
    follower.put(&good("b", "7"));
    follower.store.refuse("no room");
    let standing = follower.store.standing();
    assert_eq!(standing.borrow().summary.kinds[0], before);
    assert_eq!(standing.borrow().refused.as_deref(), Some("no room"));
    assert_ne!(follower.tally(), before);
    assert_eq!(follower.store.standing().borrow().refused, None);
}
