//! Two answers to the same question: the reference evaluator's, straight from the semantics, and
//! the compiled tables', by the function that runs in the kernel.

#![cfg(feature = "strategies")]

use agent_policy::{
    compiled::Everywhere,
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
            let closed = !answer.allows() && question.at > now;
            if !closed {
                prop_assert_eq!(Reference(&world).answer(question), answer, "about {:?}", question);
            }
        }
    }
}
