//! Settings as they are written, in a file or by flags: everything may be missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use super::{
    ConfigError, dns::RawDns, failsafe::RawFailsafe, frames::RawFrames, hubble::RawHubble,
    interfaces::RawWorkloadInterfaces, kubernetes::RawKubernetes, sinks::RawSinks,
};
use crate::log::LogFormat;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    pub(crate) policies: Option<Vec<PathBuf>>,
    pub(crate) node: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) bpffs: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) flows: Option<String>,
    pub(crate) sinks: Option<RawSinks>,
    pub(crate) metrics: Option<String>,
    pub(crate) hubble: Option<RawHubble>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) detach_on_exit: Option<bool>,
    pub(crate) capacities: Option<RawCapacities>,
    pub(crate) failsafe: Option<RawFailsafe>,
    pub(crate) frames: Option<RawFrames>,
    pub(crate) workload_interfaces: Option<RawWorkloadInterfaces>,
    pub(crate) dns: Option<RawDns>,
    pub(crate) kubernetes: Option<RawKubernetes>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCapacities {
    pub(crate) endpoints: Option<u32>,
    pub(crate) prefixes: Option<u32>,
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
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut raw: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = error
                .location()
                .map(|location| (location.line(), location.column()));
            let told = error
                .without_snippet()
                .render_with_formatter(&UserMessageFormatter);
            // The place stands before the message, as in every message about a file.
            let message = place
                .map(|(line, column)| format!(" at line {line}, column {column}"))
                .and_then(|suffix| told.strip_suffix(&suffix))
                .unwrap_or(&told)
                .to_owned();
            ConfigError::Parse {
                path: path.to_owned(),
                place,
                message,
            }
        })?;
        if let Some(failsafe) = &mut raw.failsafe {
            path.clone_into(&mut failsafe.file);
        }
        if let Some(interfaces) = &mut raw.workload_interfaces {
            path.clone_into(&mut interfaces.file);
        }
        if let Some(dns) = &mut raw.dns {
            path.clone_into(&mut dns.file);
        }
        if let Some(sinks) = &mut raw.sinks {
            path.clone_into(&mut sinks.file);
        }
        if let Some(hubble) = &mut raw.hubble {
            path.clone_into(&mut hubble.file);
        }
        Ok(raw)
    }

    /// `self` where it says something, else `below`. Lists replace, they do not add up: what is
    /// enforced must be visible in one place.
    pub(crate) fn over(self, below: Self) -> Self {
        let Self {
            policies,
            node,
            cluster,
            bpffs,
            state_dir,
            socket,
            flows,
            sinks,
            metrics,
            hubble,
            log_format,
            detach_on_exit,
            capacities,
            failsafe,
            frames,
            workload_interfaces,
            dns,
            kubernetes,
        } = self;
        Self {
            policies: policies.or(below.policies),
            node: node.or(below.node),
            cluster: cluster.or(below.cluster),
            bpffs: bpffs.or(below.bpffs),
            state_dir: state_dir.or(below.state_dir),
            socket: socket.or(below.socket),
            flows: flows.or(below.flows),
            sinks: sinks.or(below.sinks),
            metrics: metrics.or(below.metrics),
            hubble: hubble.or(below.hubble),
            log_format: log_format.or(below.log_format),
            detach_on_exit: detach_on_exit.or(below.detach_on_exit),
            capacities: capacities.or(below.capacities),
            failsafe: failsafe.or(below.failsafe),
            frames: frames.or(below.frames),
            workload_interfaces: workload_interfaces.or(below.workload_interfaces),
            dns: dns.or(below.dns),
            kubernetes: match (kubernetes, below.kubernetes) {
                (Some(over), Some(below)) => Some(over.over(below)),
                (over, below) => over.or(below),
            },
        }
    }
}
