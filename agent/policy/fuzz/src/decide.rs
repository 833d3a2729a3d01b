//! Valid worlds, changed object by object: the compiled tables answer as the reference does.
//!
//! The input names a world by its number among those that the property tests generate, then steps.
//! A step takes one object over from another such world, or removes one. So the fuzzer combines
//! whole objects that it found worth keeping, and whatever the strategies learn to generate is
//! fuzzed too.

use agent_policy::{
    model::{Change, World},
    strategies,
};

use crate::agreement::{check, draw, seed_of};

const QUESTIONS: usize = 48;
const STEPS: usize = 6;

/// What four bytes say.
#[derive(Clone, Copy, Debug)]
struct Step {
    action: Action,
    /// Counts round and round.
    object: u8,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// From the world of this number.
    TakeOver(u16),
    Remove,
}

pub fn run(bytes: &[u8]) {
    let Some((number, steps)) = bytes.split_first_chunk() else {
        return;
    };
    let mut world = generated(u16::from_le_bytes(*number));
    check(&world, seed_of(bytes), QUESTIONS);
    let (steps, _) = steps.as_chunks();
    for step in steps.iter().take(STEPS) {
        let Some(change) = Step::read(*step).change(&world) else {
            continue;
        };
        world.apply(&change);
        check(&world, seed_of(step), QUESTIONS);
    }
}

fn generated(number: u16) -> World {
    draw(&strategies::world(), number.into())
}

// === impl Step ===

impl Step {
    fn read([action, low, high, object]: [u8; 4]) -> Self {
        let action = if action % 4 == 0 {
            Action::Remove
        } else {
            Action::TakeOver(u16::from_le_bytes([low, high]))
        };
        Self { action, object }
    }

    /// `None` if the world would not be valid afterwards.
    fn change(self, world: &World) -> Option<Change> {
        let nothing = World::default();
        let (changes, lost) = match self.action {
            Action::Remove => (nothing.changes_from(world), true),
            Action::TakeOver(number) => (generated(number).changes_from(&nothing), false),
        };
        let place = usize::from(self.object).checked_rem(changes.len())?;
        let change = changes.into_iter().nth(place)?;
        let keeps_order = if lost {
            // Its objects stay behind.
            !matches!(change, Change::Namespace(..))
        } else {
            fits(world, &change)
        };
        keeps_order.then_some(change)
    }
}

/// Whether a new object breaks no rule that the loader holds up between objects.
fn fits(world: &World, change: &Change) -> bool {
    let namespace_is_known = |namespace: &String| world.namespaces.contains_key(namespace);
    match change {
        Change::Workload(name, Some(workload)) => {
            namespace_is_known(&name.namespace)
                && workload.addresses.iter().all(|address| {
                    let owner = world.addresses.get(address);
                    !workload.owns_its_addresses() || owner.is_none_or(|owner| owner == name)
                })
        }
        Change::Service(name, _) | Change::NetworkPolicy(name, _) => {
            namespace_is_known(&name.namespace)
        }
        _ => true,
    }
}
