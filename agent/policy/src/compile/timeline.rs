//! What a decision can say of time: what holds now, until when, and what then.

use agent_common::{
    table::Decision,
    verdict::{Action, RuleId},
};

use super::timing::Timing;
use crate::{compiled::Clock, model::Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) action: Action,
    pub(super) rule: u32,
}

/// When a program is asked about.
#[derive(Clone, Copy)]
pub(super) enum Moment {
    At(Time),
    /// What is permitted then is permitted at any time; what is denied may be so at none.
    Whenever,
}

/// An outcome for a while.
#[derive(Clone, Copy)]
pub(super) struct Spell {
    pub(super) outcome: Outcome,
    /// When the first of all that was asked begins or ends to hold; `None`: as far as is known, never.
    pub(super) until: Option<Time>,
}

pub(super) struct Timeline {
    clock: Clock,
    /// From here on, a schedule may have moments that are not listed.
    unknown_from: Option<Time>,
}

// === impl Outcome ===

impl Outcome {
    pub(super) const NOT_ISOLATED: Self = Self {
        action: Action::Allow,
        rule: RuleId::NONE.0,
    };

    /// What no step of a program can be.
    pub(super) const CLOSED: Self = Self {
        action: Action::Deny,
        rule: RuleId::NONE.0,
    };

    const STALE: Self = Self {
        action: Action::Stale,
        rule: RuleId::NONE.0,
    };

    pub(super) fn allows(self) -> bool {
        self.action == Action::Allow
    }

    fn decision(self) -> Decision {
        let Self { action, rule } = self;
        Decision::new(action, RuleId(rule))
    }
}

// === impl Timeline ===

impl Timeline {
    /// `timings` are those of all rules that may have a say.
    pub(super) fn new<'t>(clock: Clock, timings: impl Iterator<Item = &'t Timing> + Clone) -> Self {
        // A rule that ends long after the moments of a schedule that are known may uncover it then.
        let known_until = timings.clone().filter_map(|one| one.known_until).min();
        let unknown_from = known_until.and_then(|end| {
            timings
                .filter_map(|timing| timing.first_change_after(end))
                .min()
        });
        Self {
            clock,
            unknown_from,
        }
    }

    /// What holds now, until when, and what then.
    ///
    /// What changes once more later has no room in a decision: unless it is permitted whatever the
    /// time, the tables close rather than to permit for too long.
    pub(super) fn decision(&self, spell: impl Fn(Moment) -> Spell) -> Decision {
        let Self {
            clock,
            unknown_from,
        } = self;
        let Spell {
            outcome: now,
            mut until,
        } = spell(Moment::At(clock.now));
        let changes = |at: Time, then: Outcome| {
            let decision = now.decision();
            if then == now {
                return decision;
            }
            decision.until(clock.boot_nanos(at), then.action, RuleId(then.rule))
        };
        let at_most = |then: Outcome| {
            if then.allows() && !spell(Moment::Whenever).outcome.allows() {
                Outcome::STALE
            } else {
                then
            }
        };
        let is_known = |time: &Time| unknown_from.is_none_or(|unknown| *time < unknown);
        let mut next: Option<(Time, Outcome)> = None;
        while let Some(time) = until.filter(is_known) {
            let then = spell(Moment::At(time));
            until = then.until;
            match next {
                None if then.outcome != now => next = Some((time, then.outcome)),
                Some((at, after)) if then.outcome != after => return changes(at, at_most(after)),
                None | Some(_) => {}
            }
        }
        match (next, unknown_from) {
            (None, None) => now.decision(),
            (None, Some(unknown)) => {
                changes(*unknown, at_most(spell(Moment::At(*unknown)).outcome))
            }
            (Some((at, then)), Some(_)) => changes(at, at_most(then)),
            (Some((at, then)), None) => changes(at, then),
        }
    }
}
