//! Which edits are tried, in which order, and when that ends.

use std::mem::discriminant;

use super::{Asked, Edit, Searched, candidates, edges, trial::Trial};
use crate::{
    connection::{Need, Perspective, Verdict},
    model::World,
};

/// How many candidates are tried for a question, all in all.
pub(super) const TRIALS: usize = 256;

/// How many of these are moments. A policy with working hours has ten in a week.
pub(super) const MOMENTS: usize = 128;

/// How many edits of one kind are tried at a time, so that the other kinds have their turn. Those
/// that come later in their order differ from these by the rule or the label alone.
pub(super) const OF_A_KIND: usize = 16;

/// Edits beyond this are no small change.
pub(super) const EDITS: usize = 16;

/// For how many of the answers that make a verdict candidates are sought: it has two, but for
/// Services.
pub(super) const NEEDS: usize = 64;

#[derive(Debug)]
pub(super) struct Search<'a> {
    world: &'a World,
    perspective: Perspective,
    asked: Asked<'a>,
    wanted: Verdict,
    pub(super) trials_left: usize,
    searched: Searched,
}

// === impl Search ===

impl<'a> Search<'a> {
    /// `None` if the ends cannot talk to each other.
    pub(super) fn new(
        world: &'a World,
        perspective: Perspective,
        asked: Asked<'a>,
    ) -> Option<Self> {
        let wanted = match Trial::new(world, perspective, asked).verdict()? {
            Verdict::Allow => Verdict::Deny,
            Verdict::Deny => Verdict::Allow,
        };
        Some(Self {
            world,
            perspective,
            asked,
            wanted,
            trials_left: TRIALS,
            searched: Searched::All,
        })
    }

    /// What the verdict is not now.
    pub(super) fn wanted(&self) -> Verdict {
        self.wanted
    }

    /// The edits that turn the verdict round, if any do, and how much was tried before them.
    pub(super) fn run(mut self) -> (Option<Vec<Edit>>, Searched) {
        let single = self.waiting().or_else(|| self.at_once());
        let found = single.map(|edit| vec![edit]).or_else(|| {
            let several = match self.wanted {
                Verdict::Allow => self.one_after_the_other(),
                Verdict::Deny => self.one_behind_the_other(),
            };
            several.map(|edits| self.without_the_needless(edits))
        });
        (found, self.searched)
    }

    /// To do nothing for some days, if that is enough.
    fn waiting(&mut self) -> Option<Edit> {
        let mut trial = self.start();
        let moments = edges::after(self.world, &trial.needs(), self.perspective.at);
        let waits: Vec<Edit> = moments
            .into_iter()
            .map(|until| Edit::Wait { until })
            .collect();
        self.first(&mut trial, &waits, MOMENTS)
    }

    /// Any other edit, if one alone is enough.
    fn at_once(&mut self) -> Option<Edit> {
        let mut trial = self.start();
        let needs = match self.wanted {
            Verdict::Allow => trial.denied(),
            Verdict::Deny => trial.needs(),
        };
        if needs.len() > NEEDS {
            self.searched = Searched::Part;
        }
        let sought = needs.iter().take(NEEDS);
        let mut edits: Vec<Edit> = sought
            .flat_map(|need| self.candidates(&trial, need))
            .collect();
        edits.sort();
        edits.dedup();
        by_kind(&edits).find_map(|kind| self.first(&mut trial, kind, OF_A_KIND))
    }

    /// The first of these that turns the verdict round.
    fn first(&mut self, trial: &mut Trial<'_>, sorted: &[Edit], limit: usize) -> Option<Edit> {
        let wanted = self.wanted;
        let turns = |then: &Trial<'_>| (then.verdict() == Some(wanted)).then_some(());
        let mut tried = sorted.iter().take(limit);
        let found = tried.find(|edit| self.tried(trial, edit, turns).is_some());
        if found.is_none() && sorted.len() > limit {
            self.searched = Searched::Part;
        }
        found.cloned()
    }

    /// Permits what is denied: one need after the other, until none is left.
    fn one_after_the_other(&mut self) -> Option<Vec<Edit>> {
        let mut trial = self.start();
        loop {
            let denied = trial.denied();
            let Some(first) = denied.first() else {
                return (trial.verdict()? == self.wanted).then_some(trial.edits);
            };
            if trial.edits.len() == EDITS {
                self.searched = Searched::Part;
                return None;
            }
            let edits = self.candidates(&trial, first);
            let helpful = self.most_helpful(&mut trial, &edits, first, denied.len());
            // Several rules may stand in the way, one behind the other.
            let removal = || candidates::removal(&trial.world, &first.about, &trial.why(first));
            let edit = helpful.or_else(removal)?;
            trial.keep(edit);
        }
    }

    /// Of the edits that permit this need, the one after which the fewest are denied; of several,
    /// the first.
    fn most_helpful(
        &mut self,
        trial: &mut Trial<'_>,
        sorted: &[Edit],
        need: &Need,
        denied: usize,
    ) -> Option<Edit> {
        let left = |then: &Trial<'_>| {
            let left = then.allows(need).then(|| then.denied().len())?;
            (left < denied).then_some(left)
        };
        let mut best: Option<(usize, &Edit)> = None;
        for kind in by_kind(sorted) {
            for edit in kind.iter().take(OF_A_KIND) {
                let Some(left) = self.tried(trial, edit, left) else {
                    continue;
                };
                if best.is_none_or(|(least, _)| left < least) {
                    best = Some((left, edit));
                }
            }
            if kind.len() > OF_A_KIND {
                self.searched = Searched::Part;
            }
        }
        best.map(|(_, edit)| edit.clone())
    }

    /// Denies what is permitted: one need is enough, but several rules may permit it.
    fn one_behind_the_other(&mut self) -> Option<Vec<Edit>> {
        let needs = self.start().needs();
        needs.iter().take(NEEDS).find_map(|need| {
            let mut trial = self.start();
            while trial.verdict()? != self.wanted {
                if trial.edits.len() == EDITS {
                    self.searched = Searched::Part;
                    return None;
                }
                let removal = candidates::removal(&trial.world, &need.about, &trial.why(need))?;
                trial.keep(removal);
            }
            Some(trial.edits)
        })
    }

    /// Leaves out what the others do without: a later edit may do what an earlier one was for.
    fn without_the_needless(&self, mut edits: Vec<Edit>) -> Vec<Edit> {
        let mut at = edits.len();
        while at > 0 && edits.len() > 1 {
            at -= 1;
            let mut trial = self.start();
            let others = (0..).zip(&edits).filter(|(place, _)| *place != at);
            others.for_each(|(_, edit)| trial.keep(edit.clone()));
            if trial.verdict() == Some(self.wanted) {
                edits = trial.edits;
                at = edits.len();
            }
        }
        edits
    }

    fn start(&self) -> Trial<'a> {
        Trial::new(self.world, self.perspective, self.asked)
    }

    fn candidates(&self, trial: &Trial<'_>, need: &Need) -> Vec<Edit> {
        candidates::turning(&trial.world, &need.about, &trial.why(need), self.wanted)
    }

    /// What is said of the world with one more edit; nothing once enough was tried.
    fn tried<T>(
        &mut self,
        trial: &mut Trial<'_>,
        edit: &Edit,
        say: impl FnOnce(&Trial<'_>) -> Option<T>,
    ) -> Option<T> {
        let Some(left) = self.trials_left.checked_sub(1) else {
            self.searched = Searched::Part;
            return None;
        };
        self.trials_left = left;
        trial.with(edit, say)
    }
}

fn by_kind(sorted: &[Edit]) -> impl Iterator<Item = &[Edit]> {
    sorted.chunk_by(|one, next| discriminant(one) == discriminant(next))
}
