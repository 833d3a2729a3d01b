//! Which interfaces are workloads', and what becomes of those of which nobody knows whose they are.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::{ConfigError, Item, Items};
use crate::datapath::{
    engine::{UnknownMode, WorkloadInterfaces},
    link::NamePattern,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWorkloadInterfaces {
    #[serde(skip)]
    pub(super) file: PathBuf,
    #[serde(default)]
    names: Vec<Spanned<String>>,
    unknown: Option<UnknownMode>,
}

/// Prints as what gives the same settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct WorkloadInterfacesConfig {
    /// None by default.
    names: BTreeSet<NamePattern>,
    unknown: UnknownMode,
}

impl WorkloadInterfacesConfig {
    /// # Errors
    ///
    /// With all that is wrong, in the order in which it is written.
    pub(super) fn check(raw: RawWorkloadInterfaces) -> Result<Self, ConfigError> {
        let RawWorkloadInterfaces {
            file,
            names: written,
            unknown,
        } = raw;
        let mut names = BTreeSet::new();
        let mut refused = Vec::new();
        for text in written {
            match text.value.parse() {
                Ok(pattern) => {
                    names.insert(pattern);
                }
                Err(error) => {
                    let error: crate::datapath::link::NamePatternError = error;
                    refused.push(Item {
                        path: file.clone(),
                        line: text.referenced.line(),
                        column: text.referenced.column(),
                        setting: "workload_interfaces.names",
                        seen: format!("`{}`", text.value),
                        expected: error.to_string(),
                    });
                }
            }
        }
        if !refused.is_empty() {
            return Err(ConfigError::Items(Items(refused)));
        }
        Ok(Self {
            names,
            unknown: unknown.unwrap_or_default(),
        })
    }

    /// `None` if no interface is taken for a workload's, be it by its name, or because pods are `found` here.
    pub(crate) fn mode(&self, found: bool) -> Option<UnknownMode> {
        (found || !self.names.is_empty()).then_some(self.unknown)
    }

    /// As the datapath takes them.
    pub(crate) fn settings(&self) -> WorkloadInterfaces {
        let Self { names, unknown } = self;
        WorkloadInterfaces {
            names: names.clone(),
            mode: *unknown,
        }
    }
}
