//! The smallest change that would turn a verdict round.
//!
//! Candidates are proposed without much thought and then tried: only what the reference evaluator
//! confirms in the changed world is said. Of those, the one with the fewest edits counts, then the
//! one whose edits come first in the order of [`Edit`]: time, a port, a label, a rule, a policy.
//! What touches fewer other connections comes earlier in that order.
//!
//! Where both ends deny, or a Service has several backends, it takes an edit for each of them.

mod candidates;
mod edges;
mod edit;

use serde::Serialize;

pub use self::edit::Edit;
use crate::{
    connection::{Connection, End, Need, Perspective, Port, Verdict},
    model::World,
    question::{Evaluator, Why},
    reference::Reference,
};

/// Edits beyond this are no small change.
const LIMIT: usize = 16;

/// As JSON `{"verdict": "allow", "changes": [{"change": "add-port", …, "text": "add to …"}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counterfactual {
    /// What it would be.
    pub verdict: Verdict,
    /// All of them together, in this order.
    pub changes: Vec<Step>,
}

/// An edit with its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    #[serde(flatten)]
    pub edit: Edit,
    pub text: String,
}

/// What is asked about, apart from the world and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) from: &'a End,
    pub(super) to: &'a End,
    pub(super) port: Port,
}

/// A world with edits, at a time that may be edited too.
#[derive(Clone, Debug)]
struct Trial {
    world: World,
    perspective: Perspective,
    edits: Vec<Edit>,
}

impl Counterfactual {
    /// `None` if no edit of policies, labels or time can do it: nothing denies a workload to
    /// itself, and nobody has policies for an address outside.
    pub(super) fn find(world: &World, perspective: Perspective, asked: Asked<'_>) -> Option<Self> {
        let start = Trial {
            world: world.clone(),
            perspective,
            edits: Vec::new(),
        };
        let now = start.verdict(asked)?;
        let found = match now {
            Verdict::Deny => waiting(&start, asked, Verdict::Allow).or_else(|| open(start, asked)),
            Verdict::Allow => waiting(&start, asked, Verdict::Deny).or_else(|| shut(&start, asked)),
        }?;
        let verdict = match now {
            Verdict::Allow => Verdict::Deny,
            Verdict::Deny => Verdict::Allow,
        };
        // An edit says what the world before it is like, as in "the rule that is second now".
        let changes = found.edits.into_iter().map(Step::new).collect();
        Some(Self { verdict, changes })
    }
}

/// To do nothing for some days, if that is enough.
fn waiting(start: &Trial, asked: Asked<'_>, wanted: Verdict) -> Option<Trial> {
    let needs = start.connection(asked)?.needs();
    edges::after(&start.world, &needs, start.perspective.at)
        .into_iter()
        .map(|until| start.with(Edit::Wait { until }))
        .find(|trial| trial.verdict(asked) == Some(wanted))
}

/// Permits what is denied: one need after the other, until none is left.
fn open(mut trial: Trial, asked: Asked<'_>) -> Option<Trial> {
    while trial.edits.len() < LIMIT {
        let denied = trial.denied(asked)?;
        let Some(first) = denied.first() else {
            return (trial.verdict(asked)? == Verdict::Allow).then_some(trial);
        };
        let why = trial.why(first);
        let tries = candidates::turning(&trial.world, &first.about, &why, Verdict::Allow);
        let helps = |next: &Trial| {
            let left = next.denied(asked).map_or(usize::MAX, |left| left.len());
            next.allows(first) && left < denied.len()
        };
        let helpful = tries
            .iter()
            .map(|edit| trial.with(edit.clone()))
            .find(helps);
        // Several rules may stand in the way, one behind the other.
        let removal = || candidates::removal(&trial.world, &first.about, &why);
        trial = match helpful {
            Some(next) => next,
            None => trial.with(removal()?),
        };
    }
    None
}

/// Denies what is permitted: one need is enough.
fn shut(start: &Trial, asked: Asked<'_>) -> Option<Trial> {
    let needs = start.connection(asked)?.needs();
    let denies = |trial: &Trial| trial.verdict(asked) == Some(Verdict::Deny);
    let mut tries: Vec<Edit> = needs
        .iter()
        .flat_map(|need| {
            let why = start.why(need);
            candidates::turning(&start.world, &need.about, &why, Verdict::Deny)
        })
        .collect();
    tries.sort();
    tries.dedup();
    let at_once = tries
        .into_iter()
        .map(|edit| start.with(edit))
        .find(|trial| denies(trial));
    at_once.or_else(|| {
        // One rule behind the other.
        needs.iter().find_map(|need| {
            let mut trial = start.clone();
            while trial.edits.len() < LIMIT && !denies(&trial) {
                let why = trial.why(need);
                trial = trial.with(candidates::removal(&trial.world, &need.about, &why)?);
            }
            denies(&trial).then_some(trial)
        })
    })
}

// === impl Trial ===

impl Trial {
    fn with(&self, edit: Edit) -> Self {
        let mut changed = self.clone();
        edit.apply(&mut changed.world, &mut changed.perspective);
        changed.edits.push(edit);
        changed
    }

    fn connection(&self, asked: Asked<'_>) -> Option<Connection> {
        let Asked { from, to, port } = asked;
        Connection::new(&self.world, from, to, port, self.perspective).ok()
    }

    fn verdict(&self, asked: Asked<'_>) -> Option<Verdict> {
        Some(self.connection(asked)?.verdict(&Reference(&self.world)))
    }

    fn denied(&self, asked: Asked<'_>) -> Option<Vec<Need>> {
        let mut needs = self.connection(asked)?.needs();
        needs.retain(|need| !self.allows(need));
        Some(needs)
    }

    fn allows(&self, need: &Need) -> bool {
        Reference(&self.world).answer(&need.asked).allows()
    }

    fn why(&self, need: &Need) -> Why {
        Reference(&self.world).answer(&need.asked).why
    }
}

// === impl Step ===

impl Step {
    fn new(edit: Edit) -> Self {
        let text = edit.to_string();
        Self { edit, text }
    }
}

#[cfg(test)]
mod tests;
