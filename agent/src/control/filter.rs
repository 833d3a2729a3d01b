//! Which records a client wants.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::FlowsRequest;
use crate::flow::record::{Line, Record};

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkloadName {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{seen:?} is not a workload: expected NAMESPACE/NAME")]
pub(crate) struct InvalidWorkloadName {
    seen: String,
}

impl FlowsRequest {
    /// Losses pass every filter: what is missing might have matched. So does what was tampered with.
    pub(crate) fn wants(&self, line: &Line) -> bool {
        let Self {
            last: _,
            follow: _,
            verdict,
            workload,
        } = self;
        line.flow().is_none_or(|flow| {
            verdict.is_none_or(|verdict| flow.verdict == verdict)
                && workload.as_ref().is_none_or(|name| name.is_part_of(flow))
        })
    }
}

impl WorkloadName {
    fn is_part_of(&self, flow: &Record) -> bool {
        let mut ends = flow.workloads();
        ends.any(|it| it.namespace == self.namespace && it.name == self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidWorkloadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(InvalidWorkloadName {
                seen: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for WorkloadName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkloadName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
