//! Which records a sink is for.

use std::{collections::BTreeMap, num::NonZeroU32};

use ipnet::IpNet;
use serde::Serialize;

use crate::flow::record::{Direction, Kind, Line, Record, Verdict};

/// Prints as what gives the same settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Choice {
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub(crate) filter: Filter,
    /// Of so many permitted flows the beginning and updates of one are written; of ends, of what was denied, and of what some policy
    /// would deny, everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<NonZeroU32>,
}

/// Every list must have something that fits; an empty one is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Filter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) verdicts: Vec<Verdict>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) directions: Vec<Direction>,
    /// Of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) namespaces: Vec<String>,
    /// All of them at one end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cidrs: Vec<IpNet>,
}

impl Choice {
    /// Losses, and what was tampered with, are for every sink: what is missing might have fitted.
    pub(crate) fn takes(&self, line: &Line) -> bool {
        line.flow()
            .is_none_or(|flow| self.filter.fits(flow) && self.is_in_sample(flow))
    }

    /// By how many a record that was taken is to be multiplied.
    pub(crate) fn sampling(&self, line: &Line) -> Option<NonZeroU32> {
        let flow = line.flow()?;
        self.sample
            .filter(|one_in| one_in.get() > 1 && is_sampled(flow))
    }

    fn is_in_sample(&self, flow: &Record) -> bool {
        let Some(one_in) = self.sample.filter(|_| is_sampled(flow)) else {
            return true;
        };
        // All of its bits are as good as any.
        flow.flow_id.0.is_multiple_of(one_in.get().into())
    }
}

fn is_sampled(flow: &Record) -> bool {
    flow.verdict == Verdict::Allow && flow.would_be.is_empty() && flow.kind != Kind::End
}

impl Filter {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn fits(&self, flow: &Record) -> bool {
        let Self {
            verdicts,
            directions,
            namespaces,
            labels,
            cidrs,
        } = self;
        (verdicts.is_empty() || verdicts.contains(&flow.verdict))
            && (directions.is_empty() || directions.contains(&flow.direction))
            && (namespaces.is_empty() || flow.is_of_namespace(namespaces))
            && (labels.is_empty() || flow.has_labels(|| labels.iter()))
            && (cidrs.is_empty() || flow.is_within(cidrs))
    }
}
