//! Two answers to questions about one world: the semantics' and the compiled tables'.

use agent_policy::{
    compiled::Everywhere,
    model::{Time, World},
    question::Evaluator as _,
    reference::Reference,
    strategies::Borders,
};
use proptest::{
    collection::vec,
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Asks about the borders of a world, at a moment and after it; which, follows from the seed.
///
/// # Panics
///
/// If an answer or its reason differs. Tables that are older than the question may deny what is
/// permitted, and permit by a rule that another one has taken the place of meanwhile.
pub fn check(world: &World, seed: u32, questions: usize) {
    let borders = Borders::of(world);
    if borders.subjects.is_empty() {
        return;
    }
    let (now, later) = draw(&moments(&borders), seed);
    let questions = draw(&vec(borders.question(later), questions), seed);
    let compiled = Everywhere::new(world, now);
    for question in questions {
        let said = compiled.answer(&question);
        let meant = Reference(world).answer(&question);
        let agree = if question.at > now {
            !said.allows() || meant.allows()
        } else {
            said == meant
        };
        assert!(
            agree,
            "{said:?}, and not {meant:?}, about {question:#?} at {now} in {world:#?}"
        );
    }
}

/// One of the moments, and all from it on.
fn moments(borders: &Borders) -> impl Strategy<Value = (Time, Vec<Time>)> + use<> {
    let moments = borders.moments.clone();
    (0..moments.len()).prop_map(move |first| (moments[first], moments[first..].to_vec()))
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
