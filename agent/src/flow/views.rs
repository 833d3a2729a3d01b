//! What the policies that decide nothing would have said of a flow: those in audit, and those staged.
//!
//! They are asked here and not in the kernel: nothing waits for the answer, and a packet that begins a
//! flow costs the same with them and without. The tables are the kernel's own, and so is the function that
//! reads them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use agent_common::{
    table::Endpoint,
    verdict::{Action, Reason, RuleId},
};
use serde::{Deserialize, Serialize};

use super::{record::Kind, report::FlowReport};

/// Answers by the policy sets that are in force.
pub(crate) trait PolicySets: std::fmt::Debug + Send {
    /// Why a set lets a flow in or turns it away, and by which rule. `None` where it has no answer: it is being replaced.
    fn ask(&self, flow: &FlowReport, endpoint: Endpoint, set: u32) -> Option<(Reason, RuleId)>;
}

/// Where there are none.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct NoSets;

/// The policy sets of an endpoint that decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Views {
    /// Flags of [`Endpoint`].
    pub(crate) flags: u16,
    pub(crate) audit: Option<u32>,
    pub(crate) staged: Option<u32>,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum View {
    Audit,
    Staged,
}

/// A view that says something else than was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opinion {
    pub(crate) view: View,
    pub(crate) allows: bool,
    pub(crate) reason: Reason,
    pub(crate) rule: RuleId,
}

/// In how many records each view said something else.
#[derive(Debug, Default)]
pub(crate) struct OpinionCounts([AtomicU64; OPINIONS.len()]);

const OPINIONS: [(View, bool, &str); 3] = [
    (View::Audit, false, "audit-deny"),
    (View::Staged, false, "staged-deny"),
    (View::Staged, true, "staged-allow"),
];

#[cfg(test)]
impl PolicySets for NoSets {
    fn ask(&self, _: &FlowReport, _: Endpoint, _: u32) -> Option<(Reason, RuleId)> {
        None
    }
}

impl Views {
    /// What they say otherwise of a flow that goes on, or was turned away.
    pub(crate) fn of(self, flow: &FlowReport, sets: &dyn PolicySets) -> Vec<Opinion> {
        let is_allowed = match flow.kind {
            Kind::Start | Kind::Update => true,
            // Nothing but policy lets a packet through that was dropped for what it is.
            Kind::Deny if is_by_policy(flow.reason) => false,
            Kind::Deny | Kind::End => return Vec::new(),
        };
        let Self {
            flags,
            audit,
            staged,
        } = self;
        let endpoint = Endpoint {
            id: flow.key.endpoint(),
            flags,
        };
        let views = [(View::Audit, audit), (View::Staged, staged)];
        let opinion = |(view, set): (View, Option<u32>)| {
            let (reason, rule) = sets.ask(flow, endpoint, set?)?;
            let opinion = Opinion {
                view,
                allows: reason.action() == Action::Allow,
                reason,
                rule,
            };
            // A policy in audit that permits more than is enforced changes nothing for anybody.
            let is_said = view == View::Staged || !opinion.allows;
            (opinion.allows != is_allowed && is_said).then_some(opinion)
        };
        views.into_iter().filter_map(opinion).collect()
    }
}

fn is_by_policy(reason: u8) -> bool {
    matches!(
        Reason::from_number(reason),
        Some(Reason::DefaultDeny | Reason::DenyRule | Reason::StaleSchedule | Reason::Revoked)
    )
}

impl View {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Staged => "staged",
        }
    }
}

impl OpinionCounts {
    pub(crate) fn add(&self, opinion: Opinion) {
        let is_it = |(view, allows, _): &(View, bool, &str)| {
            (*view, *allows) == (opinion.view, opinion.allows)
        };
        for (_, count) in OPINIONS.iter().zip(&self.0).filter(|(kind, _)| is_it(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        OPINIONS.iter().map(|(_, _, name)| *name)
    }

    /// Those that there were any of, by name.
    pub(crate) fn get(&self) -> BTreeMap<String, u64> {
        let counts = OPINIONS.iter().zip(&self.0);
        counts
            .map(|((_, _, name), count)| ((*name).to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests;
