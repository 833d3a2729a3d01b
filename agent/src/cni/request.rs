//! What a runtime asks for: by the environment, and by a configuration.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::answer::{Code, Failure};
use crate::config::DEFAULT_SOCKET;

/// Of the specification, whose results have had one form since the first of these, as far as we look at them.
pub(super) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// In which errors are told where no version can be read.
const NEWEST: &str = "1.1.0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// What becomes of a pod for which nobody says that the kernel enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnUnavailable {
    /// It does not start; the runtime tries again.
    #[default]
    Refuse,
    /// It starts, as it would without the plugin.
    Admit,
}

/// As the configuration has it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) socket: PathBuf,
    pub(super) timeout: Duration,
    pub(super) on_unavailable: OnUnavailable,
    previous: Option<Value>,
}

/// About which pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) netns: PathBuf,
    pub(super) interface: String,
    pub(super) pod_namespace: String,
    pub(super) pod_name: String,
    pub(super) pod_uid: Option<String>,
}

/// Everybody's fields; those of other plugins and of runtimes are of no matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    cni_version: String,
    #[serde(default)]
    ringfence: RawSettings,
    prev_result: Option<Value>,
}

/// Ours, in which a mistake is one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSettings {
    socket: Option<PathBuf>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    on_unavailable: OnUnavailable,
    /// Which file the list was made from.
    #[expect(dead_code, reason = "it is there for who installs the plugin")]
    made_from: Option<String>,
}

/// Runtimes give a plugin some minutes in all.
const LONGEST: u64 = 60;

impl Command {
    pub(super) fn read(name: Option<&str>) -> Result<Self, Failure> {
        Ok(match name {
            Some("ADD") => Self::Add,
            Some("DEL") => Self::Del,
            Some("CHECK") => Self::Check,
            Some("GC") => Self::Gc,
            Some("STATUS") => Self::Status,
            Some("VERSION") => Self::Version,
            Some(other) => {
                let details = "one of ADD, DEL, CHECK, GC, STATUS, VERSION";
                let message = format!("CNI_COMMAND is {other:?}");
                return Err(Failure::new(Code::Environment, message, details));
            }
            None => {
                let details = "this is a CNI plugin: a container runtime starts it. To put it into the node's \
                               configuration: ringfence cni install";
                let message = "CNI_COMMAND is not set";
                return Err(Failure::new(Code::Environment, message, details));
            }
        })
    }
}

impl Settings {
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let raw: Value = serde_json::from_str(text).map_err(|error| {
            Failure::new(
                Code::Json,
                "the configuration is not JSON",
                error.to_string(),
            )
        })?;
        let raw: Raw = serde_json::from_value(raw).map_err(|error| {
            Failure::new(
                Code::Configuration,
                "the configuration is wrong",
                error.to_string(),
            )
        })?;
        let Raw {
            cni_version,
            ringfence,
            prev_result,
        } = raw;
        if !VERSIONS.contains(&cni_version.as_str()) {
            let details = format!("supported are {}", VERSIONS.join(", "));
            let message = format!("cniVersion {cni_version:?} is not supported");
            return Err(Failure::new(Code::Version, message, details));
        }
        let RawSettings {
            socket,
            timeout_seconds,
            on_unavailable,
            ..
        } = ringfence;
        let seconds = timeout_seconds.unwrap_or(10);
        if !(1..=LONGEST).contains(&seconds) {
            let details = format!("between 1 and {LONGEST}, not {seconds}");
            return Err(Failure::new(
                Code::Configuration,
                "ringfence.timeoutSeconds is wrong",
                details,
            ));
        }
        Ok(Self {
            socket: socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)),
            timeout: Duration::from_secs(seconds),
            on_unavailable,
            previous: prev_result,
        })
    }

    /// What the plugin before has made.
    pub(super) fn previous(&self) -> Result<&Value, Failure> {
        self.previous.as_ref().ok_or_else(|| {
            Failure::new(
                Code::Configuration,
                "there is no prevResult",
                "ringfence is a chained plugin: it has to come after the one that makes the interface",
            )
        })
    }
}

impl Asked {
    pub(super) fn read(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let required = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    let message = format!("{name} is not set");
                    Failure::new(Code::Environment, message, "a runtime has to say it")
                })
        };
        let arguments = variable("CNI_ARGS").unwrap_or_default();
        let argument = |name: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found
                .map(|(_, value)| value.to_owned())
                .filter(|value| !value.is_empty())
        };
        let of_pod = |name: &str| {
            argument(name).ok_or_else(|| {
                let message = format!("CNI_ARGS has no {name}");
                let details = "the plugin is for pods of Kubernetes, whose runtime says which pod it is about";
                Failure::new(Code::Environment, message, details)
            })
        };
        Ok(Self {
            netns: required("CNI_NETNS")?.into(),
            interface: required("CNI_IFNAME")?,
            pod_namespace: of_pod("K8S_POD_NAMESPACE")?,
            pod_name: of_pod("K8S_POD_NAME")?,
            pod_uid: argument("K8S_POD_UID"),
        })
    }
}

/// The version that a configuration speaks, as far as it can be told.
pub(super) fn version_of(text: &str) -> &'static str {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let asked = value.get("cniVersion").and_then(Value::as_str);
    let known = VERSIONS.iter().find(|version| asked == Some(**version));
    known.copied().unwrap_or(NEWEST)
}
