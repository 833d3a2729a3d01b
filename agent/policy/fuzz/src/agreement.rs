//! Two answers to questions about one world: the semantics' and the compiled tables'.

use agent_policy::{
    compiled::Everywhere, model::World, question::Evaluator as _, reference::Reference,
    strategies::Borders,
};
use proptest::{
    collection::vec,
    sample,
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Asks about the borders of a world; which questions, follows from the seed.
///
/// # Panics
///
/// If an answer or its reason differs.
pub fn check(world: &World, seed: u32, questions: usize) {
    if world.workloads.is_empty() {
        return;
    }
    let borders = Borders::of(world);
    let now = draw(&sample::select(borders.moments.clone()), seed);
    let questions = draw(&vec(borders.question(vec![now]), questions), seed);
    let compiled = Everywhere::new(world, now);
    for question in questions {
        let (said, meant) = (
            compiled.answer(&question),
            Reference(world).answer(&question),
        );
        assert_eq!(said, meant, "about {question:#?} in {world:#?}");
    }
}

/// The value of a strategy that belongs to a seed, the same at every run.
pub fn draw<S: Strategy>(strategy: &S, seed: u32) -> S::Value {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    match strategy.new_tree(&mut runner) {
        Ok(tree) => tree.current(),
        Err(why) => panic!("the strategy gives up: {why}"),
    }
}

/// A seed for questions: 32 bits of FNV-1a, so that each input asks its own.
pub fn seed_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
