//! Generated worlds and questions for property tests, in this crate and in those above it.
//!
//! Everything is drawn from small alphabets, so that selectors, blocks, ports and times meet each
//! other often; uniform randomness would test default deny all day. Behind the feature `strategies`.

mod alphabet;
mod borders;
mod policies;
mod services;
mod tiers;
mod times;
mod worlds;

use proptest::{prelude::*, sample, test_runner::TestCaseError};

pub use self::{borders::Borders, policies::policy, tiers::tier_policy, worlds::world};
use crate::{
    model::{Time, World},
    question::{Evaluator, Question},
};

/// How many questions are asked of each generated world.
const QUESTIONS: usize = 200;

/// A world, a moment at which to compile it, and questions about its borders at this moment.
pub fn world_and_questions() -> impl Strategy<Value = (World, Time, Vec<Question>)> {
    asked(|_, now| vec![now])
}

/// As [`world_and_questions`], but the questions are about that moment and those after it.
///
/// Compiled tables are exact until an answer has changed twice; from then on they may say that
/// they are stale.
pub fn later_questions() -> impl Strategy<Value = (World, Time, Vec<Question>)> {
    asked(|moments, now| {
        let later = moments.iter().filter(|at| **at >= now);
        later.copied().collect()
    })
}

fn asked(
    moments: fn(&[Time], Time) -> Vec<Time>,
) -> impl Strategy<Value = (World, Time, Vec<Question>)> {
    (world(), any::<sample::Index>()).prop_flat_map(move |(world, now)| {
        let borders = Borders::of(&world);
        let now = *now.get(&borders.moments);
        let moments = moments(&borders.moments, now);
        let questions = prop::collection::vec(borders.question(moments), QUESTIONS);
        (Just(world), Just(now), questions)
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
