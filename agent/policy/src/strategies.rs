//! Generated worlds and questions for property tests, in this crate and in those above it.
//!
//! Everything is drawn from small alphabets, so that selectors, blocks and ports meet each other
//! often; uniform randomness would test default deny all day. Behind the feature `strategies`.

mod borders;
mod policies;
mod worlds;

use proptest::{prelude::*, test_runner::TestCaseError};

pub use self::{borders::Borders, policies::policy, worlds::world};
use crate::{
    model::World,
    question::{Evaluator, Question},
};

/// How many questions are asked of each generated world.
const QUESTIONS: usize = 200;

/// A world, and questions about its borders.
pub fn world_and_questions() -> impl Strategy<Value = (World, Vec<Question>)> {
    world().prop_flat_map(|world| {
        let questions = prop::collection::vec(Borders::of(&world).question(), QUESTIONS);
        (Just(world), questions)
    })
}

/// Holds if two evaluators give the same answers, reasons included.
///
/// # Errors
///
/// With the first question that they disagree about.
pub fn check_agreement(
    a: &impl Evaluator,
    b: &impl Evaluator,
    questions: &[Question],
) -> Result<(), TestCaseError> {
    for question in questions {
        let (one, other) = (a.answer(question), b.answer(question));
        prop_assert_eq!(one, other, "about {:?}", question);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
