//! Two answers to the same question: the reference evaluator's, straight from the semantics, and
//! the compiled tables', by the function that runs in the kernel.

#![cfg(feature = "strategies")]

use agent_policy::{
    compiled::Everywhere,
    model::Time,
    reference::Reference,
    strategies::{check_agreement, world_and_questions},
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_tables_answer_as_the_reference_does(
        (world, questions) in world_and_questions(),
    ) {
        check_agreement(&Reference(&world), &Everywhere::new(&world, Time::default()), &questions)?;
    }
}
