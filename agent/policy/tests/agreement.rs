//! Two answers to the same question: the reference evaluator's, straight from the semantics, and
//! the compiled tables', by the function that runs in the kernel.

#![cfg(feature = "strategies")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use agent_policy::{
    compiled::Everywhere,
    model::{Change, World},
    question::Evaluator,
    reference::Reference,
    strategies::{check_agreement, later_questions, world_and_questions},
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_tables_answer_as_the_reference_does(
        (world, now, questions) in world_and_questions(),
    ) {
        check_agreement(&Reference(&world), &Everywhere::new(&world, now), &questions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn older_tables_permit_only_what_is_permitted_still(
        (world, now, questions) in later_questions(),
    ) {
        let compiled = Everywhere::new(&world, now);
        for question in &questions {
            let answer = compiled.answer(question);
            let right = Reference(&world).answer(question);
            if question.at == now {
                prop_assert_eq!(right, answer, "about {:?}", question);
            } else if answer.allows() {
                // Perhaps by a rule that began meanwhile.
                prop_assert!(right.allows(), "about {:?}: {:?}", question, right);
            }
        }
    }
}

/// As in §5.1: every node has the addresses of all of them and some workload has one too, and each
/// Service is reached at the addresses of that workload.
fn share_addresses(world: &mut World) {
    let of_nodes: BTreeSet<IpAddr> = world
        .nodes
        .values()
        .flat_map(|node| node.addresses.clone())
        .collect();
    for node in world.nodes.values_mut() {
        Arc::make_mut(node).addresses.extend(&of_nodes);
    }
    let mut workloads = world.workloads.values();
    let Some(found) = workloads.find(|workload| workload.owns_its_addresses()) else {
        return;
    };
    let mut workload = Arc::clone(found);
    Arc::make_mut(&mut workload)
        .addresses
        .extend(of_nodes.first());
    for service in world.services.values_mut() {
        Arc::make_mut(service).addresses.extend(&workload.addresses);
    }
    world.apply(&Change::Workload(workload.name.clone(), Some(workload)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_of_several_has_one_meaning(
        (mut world, now, questions) in world_and_questions(),
    ) {
        share_addresses(&mut world);
        check_agreement(&Reference(&world), &Everywhere::new(&world, now), &questions)?;
    }
}
