//! Valid worlds, changed object by object: the compiled tables answer as the reference does, and a
//! compiler that followed the changes ends with the tables of one that begins with their outcome.
//!
//! The input names a world by its number among those that the property tests generate, then steps.
//! A step takes one object over from another such world, or removes one. So the fuzzer combines
//! whole objects that it found worth keeping, and whatever the strategies learn to generate is
//! fuzzed too.

use std::collections::BTreeMap;

use agent_policy::{
    compile::{Compiler, Scope, compile},
    compiled::{Clock, Compiled},
    model::{Change, SubjectName, Time, World},
    strategies::{self, Borders},
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
    /// Until a moment at which something in the world may change.
    Wait(u16),
}

/// A compiler that follows, and all that it has been told.
#[derive(Debug)]
struct Follower {
    compiler: Compiler,
    world: World,
    scope: Scope,
    clock: Clock,
}

pub fn run(bytes: &[u8]) {
    let Some((number, steps)) = bytes.split_first_chunk() else {
        return;
    };
    let mut follower = Follower::new(generated(u16::from_le_bytes(*number)));
    check(&follower.world, seed_of(bytes), QUESTIONS);
    let (steps, _) = steps.as_chunks();
    for step in steps.iter().take(STEPS) {
        let step_read = Step::read(*step);
        if let Action::Wait(moment) = step_read.action {
            follower.wait(moment.into());
        } else if let Some(change) = step_read.change(&follower.world) {
            follower.follow(change);
            check(&follower.world, seed_of(step), QUESTIONS);
        }
    }
}

fn generated(number: u16) -> World {
    draw(&strategies::world(), number.into())
}

// === impl Follower ===

impl Follower {
    /// On the first node, where everything is to be judged, from the first moment.
    fn new(world: World) -> Self {
        let workloads = world.workloads.keys().cloned().map(SubjectName::Workload);
        let nodes = world.nodes.keys().cloned().map(SubjectName::Node);
        let this_node = world.nodes.values().next();
        let scope = Scope {
            subjects: workloads.chain(nodes).collect(),
            this_node: this_node.map_or_else(Default::default, |node| node.addresses.clone()),
        };
        // Each moment but the last has one to wait for.
        let now = Borders::of(&world).moments.first().copied();
        let clock = Clock {
            now: now.unwrap_or_default(),
            boot: Time::default(),
        };
        let compiler = Compiler::new(&world, scope.clone(), &BTreeMap::new(), clock);
        Self {
            compiler,
            world,
            scope,
            clock,
        }
    }

    fn follow(&mut self, change: Change) {
        self.world.apply(&change);
        self.compiler.apply(&[change], &BTreeMap::new());
        self.compare();
    }

    fn wait(&mut self, moment: usize) {
        let mut moments = Borders::of(&self.world).moments;
        moments.retain(|moment| *moment >= self.clock.now);
        let Some(place) = moment.checked_rem(moments.len()) else {
            return;
        };
        self.clock.now = moments[place];
        self.compiler.set_clock(self.clock, &BTreeMap::new());
        self.compare();
    }

    fn compare(&self) {
        let Self {
            compiler,
            world,
            scope,
            clock,
        } = self;
        let anew = compile(world, scope, &BTreeMap::new(), *clock);
        let Compiled {
            prefixes,
            sockets,
            policy,
            port_tables,
            subjects,
            rules,
            next_change,
        } = compiler.compiled();
        // Each for itself: all at once is too much to read.
        assert_eq!(*subjects, anew.subjects, "in {world:#?}");
        assert_eq!(*prefixes, anew.prefixes, "in {world:#?}");
        assert_eq!(*sockets, anew.sockets, "in {world:#?}");
        assert_eq!(*policy, anew.policy, "in {world:#?}");
        assert_eq!(*port_tables, anew.port_tables, "in {world:#?}");
        assert_eq!(*rules, anew.rules, "in {world:#?}");
        assert_eq!(*next_change, anew.next_change, "in {world:#?}");
    }
}

// === impl Step ===

impl Step {
    fn read([action, low, high, object]: [u8; 4]) -> Self {
        let number = u16::from_le_bytes([low, high]);
        let action = match action % 8 {
            0 => Action::Remove,
            1 => Action::Wait(number),
            _ => Action::TakeOver(number),
        };
        Self { action, object }
    }

    /// `None` if the world would not be valid afterwards.
    fn change(self, world: &World) -> Option<Change> {
        let nothing = World::default();
        let (changes, lost) = match self.action {
            Action::Remove => (nothing.changes_from(world), true),
            Action::TakeOver(number) => (generated(number).changes_from(&nothing), false),
            Action::Wait(_) => return None,
        };
        let place = usize::from(self.object).checked_rem(changes.len())?;
        let change = changes.into_iter().nth(place)?;
        let is_valid = if lost {
            // What is in a namespace goes before it.
            !matches!(change, Change::Namespace(..))
        } else {
            fits(world, &change)
        };
        is_valid.then_some(change)
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
