//! The agent's settings: flags over file over defaults.
//!
//! Two types: [`RawConfig`] is what somebody wrote, [`Config`] is complete and checked.

mod dns;
mod failsafe;
mod frames;
mod hubble;
mod interfaces;
mod kubernetes;
mod raw;
mod sinks;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

pub(crate) use self::{
    dns::DnsConfig,
    failsafe::FailsafeConfig,
    frames::FramesConfig,
    hubble::{HubbleConfig, HubbleTls},
    interfaces::WorkloadInterfacesConfig,
    kubernetes::{KubernetesConfig, RawKubernetes},
    raw::{RawCapacities, RawConfig},
    sinks::SinkConfig,
};
use crate::{
    datapath::bpffs::DEFAULT_FOLDER,
    flow::sink::{Destination, SinkSettings, Target, choice::Choice, privacy::Privacy},
    log::LogFormat,
};

pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/ringfence";
pub(crate) const DEFAULT_SOCKET: &str = "/run/ringfence/ringfence.sock";

/// What an address of a unix socket holds, less the zero at its end.
const SOCKET_PATH_LIMIT: usize = 107;

/// Settings that can be worked with. Prints as a settings file that gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Config {
    /// Files and folders of policy and inventory; `-` is standard input.
    pub(crate) policies: Vec<PathBuf>,
    /// Name of this node, in policy and in records.
    pub(crate) node: String,
    /// Of what the node is a part, in records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// Where programs, links and maps are pinned.
    pub(crate) bpffs: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// The control socket.
    pub(crate) socket: PathBuf,
    /// Where flow records go as JSON lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flows: Option<Target>,
    /// Further places for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sinks: Vec<SinkConfig>,
    /// Where Prometheus scrapes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Where Hubble's clients ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hubble: Option<HubbleConfig>,
    pub(crate) log_format: LogFormat,
    /// Enforcement ends with the agent.
    pub(crate) detach_on_exit: bool,
    pub(crate) capacities: Capacities,
    pub(crate) failsafe: FailsafeConfig,
    pub(crate) frames: FramesConfig,
    pub(crate) workload_interfaces: WorkloadInterfacesConfig,
    pub(crate) dns: DnsConfig,
    /// Objects come from the Kubernetes API as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<KubernetesConfig>,
}

/// Sizes of the kernel's tables. More is refused before the first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Capacities {
    pub(crate) endpoints: u32,
    /// Address prefixes, of each family.
    pub(crate) prefixes: u32,
    /// Addresses that endpoints may send from.
    pub(crate) addresses: u32,
    pub(crate) policy_entries: u32,
    pub(crate) port_entries: u32,
    /// Flows, of each family.
    pub(crate) flows: u32,
    /// Kinds of denied packets.
    pub(crate) denials: u32,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("settings file {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}{place}: {message}", place = at(*place))]
    Parse {
        path: PathBuf,
        place: Option<(u64, u64)>,
        message: String,
    },
    #[error("`{setting}` is {seen}, expected {expected}")]
    Value {
        setting: &'static str,
        seen: String,
        expected: String,
    },
    /// Every one that is wrong, a line for each.
    #[error("{0}")]
    Items(Items),
    #[error(
        "no policy to enforce: name files or folders by -f PATH or by `policies` in a settings \
             file, or take them from the Kubernetes API by --kubernetes"
    )]
    NoPolicies,
}

/// As [`ConfigError::Value`], in a list where only the place says which one.
#[derive(Debug)]
pub(crate) struct Item {
    path: PathBuf,
    line: u64,
    column: u64,
    setting: &'static str,
    seen: String,
    expected: String,
}

#[derive(Debug)]
pub(crate) struct Items(Vec<Item>);

impl Config {
    /// Reads the settings file, if there is one, and lays the flags over it.
    pub(crate) fn load(file: Option<&Path>, flags: RawConfig) -> Result<Self, ConfigError> {
        let raw = file.map(RawConfig::read).transpose()?.unwrap_or_default();
        Self::check(flags.over(raw))
    }

    /// Completes and checks.
    pub(crate) fn check(raw: RawConfig) -> Result<Self, ConfigError> {
        let RawConfig {
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
        } = raw;
        let node = node.unwrap_or_else(hostname);
        if node.is_empty() {
            return Err(refuse("node", &"empty", "the name of this node"));
        }
        if let Some(cluster) = cluster.as_deref().filter(|it| !is_cluster_name(it)) {
            let expected = "letters, digits, `-`, `_` and `.`, 63 at most".to_owned();
            return Err(refuse("cluster", &format_args!("`{cluster}`"), expected));
        }
        let flows = flows.as_deref().map(Target::parse);
        let socket = absolute("socket", socket, DEFAULT_SOCKET)?;
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            let expected = format!("at most {SOCKET_PATH_LIMIT}, as the kernel has it");
            return Err(refuse(
                "socket",
                &format!("a path of {length} bytes"),
                expected,
            ));
        }
        Ok(Self {
            policies: policies.unwrap_or_default(),
            node,
            cluster,
            bpffs: absolute("bpffs", bpffs, DEFAULT_FOLDER)?,
            state_dir: absolute("state_dir", state_dir, DEFAULT_STATE_DIR)?,
            hubble: hubble
                .map(|hubble| HubbleConfig::check(hubble, &socket))
                .transpose()?,
            socket,
            sinks: SinkConfig::check(sinks.unwrap_or_default(), flows.as_ref())?,
            flows,
            metrics: metrics.as_deref().map(listened_at).transpose()?,
            log_format: log_format.unwrap_or_default(),
            detach_on_exit: detach_on_exit.unwrap_or_default(),
            capacities: Capacities::check(&capacities.unwrap_or_default())?,
            failsafe: FailsafeConfig::check(failsafe.unwrap_or_default())?,
            frames: FramesConfig::check(frames.unwrap_or_default())?,
            workload_interfaces: WorkloadInterfacesConfig::check(
                workload_interfaces.unwrap_or_default(),
            )?,
            dns: DnsConfig::check(dns.unwrap_or_default())?,
            kubernetes: kubernetes.map(KubernetesConfig::check).transpose()?,
        })
    }

    /// What a flag names, and what is listed.
    pub(crate) fn all_sinks(&self) -> impl Iterator<Item = SinkSettings> {
        let flag = self.flows.iter().map(|target| SinkSettings {
            name: target.to_string(),
            destination: Destination::Plain(target.clone()),
            choice: Choice::default(),
            privacy: Privacy::default(),
        });
        let listed = self.sinks.iter().map(|sink| SinkSettings {
            name: sink.name.clone(),
            destination: sink.destination.clone(),
            choice: sink.choice.clone(),
            privacy: sink.privacy.clone(),
        });
        flag.chain(listed)
    }

    /// What only `run` needs.
    pub(crate) fn with_policies(self) -> Result<Self, ConfigError> {
        if self.policies.is_empty() && self.kubernetes.is_none() {
            Err(ConfigError::NoPolicies)
        } else {
            Ok(self)
        }
    }
}

/// It stands before a node's name and a `/` for Hubble's clients, and in names of others' attributes.
fn is_cluster_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(is_letter)
}

impl Capacities {
    fn check(raw: &RawCapacities) -> Result<Self, ConfigError> {
        let RawCapacities {
            endpoints,
            prefixes,
            addresses,
            policy_entries,
            port_entries,
            flows,
            denials,
        } = *raw;
        // An entry takes tens of bytes: this is more than any machine has, and fits the kernel.
        let large = 1 << 26;
        Ok(Self {
            // Numbers of endpoints have 16 bits, and 0 is none.
            endpoints: within("capacities.endpoints", endpoints, 1024, u16::MAX.into())?,
            prefixes: within("capacities.prefixes", prefixes, 200_000, large)?,
            addresses: within("capacities.addresses", addresses, 16_384, large)?,
            policy_entries: within("capacities.policy_entries", policy_entries, 262_144, large)?,
            port_entries: within("capacities.port_entries", port_entries, 65_536, large)?,
            flows: within("capacities.flows", flows, 131_072, large)?,
            denials: within("capacities.denials", denials, 16_384, large)?,
        })
    }
}

fn within(
    setting: &'static str,
    value: Option<u32>,
    default: u32,
    most: u32,
) -> Result<u32, ConfigError> {
    let value = value.unwrap_or(default);
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    Err(refuse(setting, &value, format!("1 to {most}")))
}

fn listened_at(metrics: &str) -> Result<SocketAddr, ConfigError> {
    let expected = "an address and a port, such as 127.0.0.1:9464 or [::1]:9464";
    let address = metrics.parse().ok();
    // Nobody would learn which port 0 has become.
    let address = address.filter(|address: &SocketAddr| address.port() != 0);
    address.ok_or_else(|| refuse("metrics", &metrics, expected))
}

/// Paths are kept whole, because a daemon may be started from anywhere.
fn absolute(
    setting: &'static str,
    path: Option<PathBuf>,
    default: &str,
) -> Result<PathBuf, ConfigError> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    std::path::absolute(&path).map_err(|error| refuse(setting, &path.display(), error.to_string()))
}

fn refuse(
    setting: &'static str,
    seen: &dyn fmt::Display,
    expected: impl Into<String>,
) -> ConfigError {
    ConfigError::Value {
        setting,
        seen: seen.to_string(),
        expected: expected.into(),
    }
}

// === impl Items ===

impl fmt::Display for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, item) in self.0.iter().enumerate() {
            let Item {
                path,
                line,
                column,
                setting,
                seen,
                expected,
            } = item;
            if number > 0 {
                f.write_str("\n")?;
            }
            let path = path.display();
            write!(
                f,
                "{path}:{line}:{column}: `{setting}` is {seen}, expected {expected}"
            )?;
        }
        Ok(())
    }
}

/// Line and column, where they are known.
fn at(place: Option<(u64, u64)>) -> String {
    place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
