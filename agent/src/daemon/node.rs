//! This node as an endpoint: whole hosts are subjects of policy too.
//!
//! Its programs hang on the root of the cgroup hierarchy and so see what every socket of the machine
//! does, those of pods included. They judge only what uses an address of the node's own and goes
//! over a wire; all else passes, counted as not concerned.

use agent_policy::model::{SubjectName, Subjects, World};

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

fn selects_nodes(world: &World) -> bool {
    world
        .tier_policies
        .values()
        .any(|policy| matches!(policy.subjects, Subjects::Nodes(_)))
}
