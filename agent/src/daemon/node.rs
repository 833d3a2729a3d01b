//! This node as an endpoint: whole hosts are subjects of policy too.
//!
//! Its programs hang on the root of the cgroup hierarchy and so see what every socket of the machine
//! does, those of pods included. They judge only what uses an address of the node's own and goes
//! over a wire; all else passes, counted as not concerned.

use std::{collections::BTreeSet, net::IpAddr};

use agent_common::table::Endpoint;
use agent_policy::{
    compiled::Compiled,
    model::{SubjectName, Subjects, World},
};

/// The node as a subject, if some policy may select it.
pub(crate) fn subject(world: &World, node: &str) -> Option<SubjectName> {
    let is_known = world.nodes.contains_key(node);
    (is_known && selects_nodes(world)).then(|| SubjectName::Node(node.to_owned()))
}

/// What is wrong if policies select nodes and nothing is known about this one.
pub(crate) fn unknown(world: &World, node: &str) -> Option<String> {
    (selects_nodes(world) && !world.nodes.contains_key(node)).then(|| {
        format!(
            "not confined: policies select nodes, and no Node `{node}` is declared to tell whether \
             they select this one"
        )
    })
}

/// Makes the compiled node one that can be enforced, or takes it out if no policy selects it.
pub(crate) fn settle(compiled: &mut Compiled, name: &SubjectName, this_node: &BTreeSet<IpAddr>) {
    let Some(subject) = compiled.subjects.get_mut(name) else {
        return;
    };
    if subject.policies.is_empty() {
        compiled.subjects.remove(name);
        return;
    }
    subject.flags |= Endpoint::ONLY_OWN;
    // Also those that its Node object does not name: who uses them is the node nevertheless.
    let own = this_node.iter().filter(|address| !address.is_loopback());
    subject.addresses.extend(own);
}

fn selects_nodes(world: &World) -> bool {
    world
        .tier_policies
        .values()
        .any(|policy| matches!(policy.subjects, Subjects::Nodes(_)))
}

#[cfg(test)]
mod tests {
    use agent_policy::{
        compiled::Subject,
        model::{PolicyId, PolicyKind},
    };

    use super::*;

    fn compiled(policies: Vec<PolicyId>) -> Compiled {
        let subject = Subject {
            set: 1,
            audit: None,
            staged: None,
            flags: 0,
            addresses: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
            policies,
        };
        let mut compiled = Compiled::default();
        compiled
            .subjects
            .insert(SubjectName::Node("one".to_owned()), subject);
        compiled
    }

    #[test]
    fn a_node_is_judged_by_all_its_addresses_but_loopback() {
        let name = SubjectName::Node("one".to_owned());
        let policy = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "hosts");
        let mut compiled = compiled(vec![policy]);
        let this_node = ["127.0.0.1", "::1", "10.0.0.2"].map(|text| text.parse().unwrap());
        settle(&mut compiled, &name, &this_node.into());
        let subject = &compiled.subjects[&name];
        assert_eq!(subject.flags, Endpoint::ONLY_OWN);
        let addresses: Vec<String> = subject.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn a_node_that_no_policy_selects_is_no_endpoint() {
        let mut compiled = compiled(Vec::new());
        let name = SubjectName::Node("one".to_owned());
        settle(&mut compiled, &name, &BTreeSet::new());
        assert!(compiled.subjects.is_empty());
    }
}
