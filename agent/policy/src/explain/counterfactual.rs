//! The smallest change that would turn a verdict round.
//!
//! Candidates are proposed without much thought and then tried: only what the reference evaluator
//! confirms in the changed world is said. Of those, the one with the fewest edits counts, then the
//! one whose edits come first in the order of [`Edit`]: time, a port, a label, a rule, a policy.
//! What touches fewer other connections comes earlier in that order.
//!
//! Where both ends deny, or a Service has several backends, it takes an edit for each of them. These
//! are sought one after the other, not in every combination; none of them can be left out.
//!
//! A trial costs what a question costs, and that grows with the rules: so trials are counted, not
//! timed, and the same question has the same answer on every machine.

mod candidates;
mod edges;
mod edit;
mod search;
mod trial;

use serde::Serialize;

pub use self::edit::Edit;
use self::search::Search;
use crate::{
    connection::{End, Perspective, Port, Verdict},
    model::World,
};

/// As JSON `{"verdict": "allow", "searched": "all", "changes": [{"change": "add-port", …, "text":
/// "add to …"}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counterfactual {
    /// What it would be.
    pub verdict: Verdict,
    pub searched: Searched,
    /// All of them together, in this order. Empty if the search ended before it found any.
    pub changes: Vec<Step>,
}

/// How much was tried of what would be said instead, did it help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Searched {
    All,
    /// There was too much: a smaller change may have been left out.
    Part,
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

impl Counterfactual {
    /// `None` if no edit of policies, labels or time can do it: nothing denies a workload to
    /// itself, and nobody has policies for an address outside.
    pub(super) fn find(world: &World, perspective: Perspective, asked: Asked<'_>) -> Option<Self> {
        let search = Search::new(world, perspective, asked)?;
        let verdict = search.wanted();
        let (found, searched) = search.run();
        let edits = match (found, searched) {
            (None, Searched::All) => return None,
            (None, Searched::Part) => Vec::new(),
            (Some(edits), _) => edits,
        };
        Some(Self {
            verdict,
            searched,
            // An edit says what the world before it is like, as in "the rule that is second now".
            changes: edits.into_iter().map(Step::new).collect(),
        })
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
