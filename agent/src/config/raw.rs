//! Settings as they are written, in a file or by flags: everything may be missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ConfigError;
use crate::log::LogFormat;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    pub(crate) policies: Option<Vec<PathBuf>>,
    pub(crate) node: Option<String>,
    pub(crate) bpffs: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) flows: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) detach_on_exit: Option<bool>,
    pub(crate) capacities: Option<RawCapacities>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCapacities {
    pub(crate) endpoints: Option<u32>,
    pub(crate) prefixes: Option<u32>,
    pub(crate) identities: Option<u32>,
    pub(crate) addresses: Option<u32>,
    pub(crate) policy_entries: Option<u32>,
    pub(crate) port_entries: Option<u32>,
    pub(crate) flows: Option<u32>,
    pub(crate) denials: Option<u32>,
}

impl RawConfig {
    /// A file of YAML, and so of JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text)
    }

    /// `self` where it says something, else `below`. Lists replace, they do not add up: what is
    /// enforced must be visible in one place.
    pub(crate) fn over(self, below: Self) -> Self {
        let Self {
            policies,
            node,
            bpffs,
            state_dir,
            socket,
            flows,
            log_format,
            detach_on_exit,
            capacities,
        } = self;
        Self {
            policies: policies.or(below.policies),
            node: node.or(below.node),
            bpffs: bpffs.or(below.bpffs),
            state_dir: state_dir.or(below.state_dir),
            socket: socket.or(below.socket),
            flows: flows.or(below.flows),
            log_format: log_format.or(below.log_format),
            detach_on_exit: detach_on_exit.or(below.detach_on_exit),
            capacities: capacities.or(below.capacities),
        }
    }
}
