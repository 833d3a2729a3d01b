//! What the kernel can do and what this process may do, asked before anything is loaded.
//!
//! Each is tried, never read off a version: distributions carry features back.

use std::{fmt, io, path::Path};

use agent_common::protocol::{TCP, UDP};
use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
    util::KernelVersion,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::datapath::{
    attach::TcHook, bpffs, cgroup::Hierarchy, lsm, privileges, sockets::Sockets, syscall,
};

/// Something of the kernel that the agent uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Feature {
    pub name: &'static str,
    pub available: bool,
    /// The first mainline kernel that has it.
    pub since: &'static str,
    /// Without it the agent does not run.
    pub required: bool,
    /// What it is for, or what happens without it.
    pub note: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error("the kernel lacks what ringfence needs: {}", list(.0))]
    Missing(Vec<Feature>),
    #[error("needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: missing {}", .0.join(", "))]
    Privileges(Vec<String>),
    #[error("failed to ask the kernel for {name}")]
    Probe {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

fn list(features: &[Feature]) -> String {
    let names: Vec<_> = features.iter().map(Feature::to_string).collect();
    names.join(", ")
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Linux {})", self.name, self.since)
    }
}

/// Every feature that the agent uses. Needs the privileges that [`privileges()`] asks for.
pub fn features() -> Result<Vec<Feature>, FeatureError> {
    let required = |name, available, since, note| Feature {
        name,
        available,
        since,
        required: true,
        note,
    };
    let optional = |name, available, since, note| Feature {
        name,
        available,
        since,
        required: false,
        note,
    };
    Ok(vec![
        required(
            "TC programs",
            program(ProgramType::SchedClassifier, "TC programs")?,
            "4.1",
            "enforcement on interfaces",
        ),
        required(
            "cgroup packet programs",
            program(ProgramType::CgroupSkb, "cgroup packet programs")?,
            "4.10",
            "enforcement on cgroups",
        ),
        required(
            "longest-prefix maps",
            map(MapType::LpmTrie, "longest-prefix maps")?,
            "4.11",
            "addresses and ports",
        ),
        required(
            "links",
            syscall::knows_links(),
            "5.7",
            "enforcement that outlives the agent",
        ),
        required(
            "ring buffer",
            map(MapType::RingBuf, "ring buffer")?,
            "5.8",
            "flow records",
        ),
        required(
            "socket storage",
            map(MapType::SkStorage, "socket storage")?,
            "5.2",
            "processes in flow records",
        ),
        required(
            "boot clock",
            helper(BpfHelper::BPF_FUNC_ktime_get_boot_ns, "boot clock")?,
            "5.8",
            "time that goes on in suspend",
        ),
        required(
            "bpf filesystem",
            bpffs_known()?,
            "4.4",
            "keeps programs and maps without the agent",
        ),
        optional(
            "TCX",
            tcx()?,
            "6.6",
            "else filters on a clsact queueing discipline",
        ),
        optional(
            "cgroup2 hierarchy",
            Hierarchy::find().is_ok(),
            "4.5",
            "else no endpoints by cgroup or systemd unit",
        ),
        optional(
            "types of the kernel (BTF)",
            Path::new("/sys/kernel/btf/vmlinux").exists(),
            "5.4",
            "else connections that are no longer permitted are dropped, and hang until a time-out",
        ),
        optional(
            "ending TCP sockets (tcp_diag)",
            ending(TCP, "ending TCP sockets")?,
            "4.5",
            "else TCP connections that are no longer permitted hang until a time-out",
        ),
        optional(
            "ending UDP sockets (udp_diag)",
            ending(UDP, "ending UDP sockets")?,
            "4.9",
            "else owners of UDP sockets are not told that their peer is no longer permitted",
        ),
        optional(
            "programs as security modules",
            lsm::require().is_ok(),
            "6.0",
            "else processes in a cgroup may, by system calls of 32 bits, send frames past every hook",
        ),
    ])
}

/// All features if none that is required is missing.
pub fn require() -> Result<Vec<Feature>, FeatureError> {
    let found = features()?;
    let missing: Vec<_> = found
        .iter()
        .filter(|feature| feature.required && !feature.available)
        .cloned()
        .collect();
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(FeatureError::Missing(missing))
    }
}

/// Whether this process may do what the agent does; names what is missing.
pub fn privileges() -> Result<(), FeatureError> {
    let held = privileges::held().map_err(|source| FeatureError::Probe {
        name: "the capabilities of this process",
        source,
    })?;
    let missing = privileges::missing(held);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(FeatureError::Privileges(missing))
    }
}

/// Before Linux 5.11 maps count as locked memory, of which a process is allowed 64 KiB. To be allowed more takes a
/// right (`CAP_SYS_RESOURCE`) that is about to be given up; systemd gives the memory itself (`LimitMEMLOCK=`).
#[expect(
    clippy::disallowed_methods,
    reason = "where maps are bounded by it, and only there; whether it may is found out by trying"
)]
pub fn allow_memory() {
    let otherwise_since = KernelVersion::new(5, 11, 0);
    if KernelVersion::current().is_ok_and(|kernel| kernel >= otherwise_since) {
        return;
    }
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    if getrlimit(Resource::Memlock) != all
        && let Err(error) = setrlimit(Resource::Memlock, all)
    {
        tracing::warn!(%error, "maps may not have the memory that they need (RLIMIT_MEMLOCK)");
    }
}

fn program(kind: ProgramType, name: &'static str) -> Result<bool, FeatureError> {
    is_program_supported(kind).map_err(|error| FeatureError::Probe {
        name,
        source: io::Error::other(error),
    })
}

fn map(kind: MapType, name: &'static str) -> Result<bool, FeatureError> {
    is_map_supported(kind).map_err(|error| FeatureError::Probe {
        name,
        source: io::Error::other(error),
    })
}

fn helper(helper: BpfHelper, name: &'static str) -> Result<bool, FeatureError> {
    is_helper_supported(ProgramType::SchedClassifier, helper).map_err(|error| FeatureError::Probe {
        name,
        source: io::Error::other(error),
    })
}

fn ending(protocol: u8, name: &'static str) -> Result<bool, FeatureError> {
    Sockets::can_end(protocol).map_err(|source| FeatureError::Probe { name, source })
}

fn tcx() -> Result<bool, FeatureError> {
    TcHook::of_kernel()
        .map(|hook| hook == TcHook::Tcx)
        .map_err(|source| FeatureError::Probe {
            name: "TCX",
            source,
        })
}

fn bpffs_known() -> Result<bool, FeatureError> {
    bpffs::known().map_err(|source| FeatureError::Probe {
        name: "bpf filesystem",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let missing = ["CAP_PERFMON", "CAP_BPF"].map(str::to_owned).to_vec();
        assert_eq!(
            FeatureError::Privileges(missing).to_string(),
            "needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: missing CAP_PERFMON, CAP_BPF"
        );
    }

    #[test]
    fn a_missing_feature_is_named_with_its_kernel() {
        let feature = Feature {
            name: "ring buffer",
            available: false,
            since: "5.8",
            required: true,
            note: "flow records",
        };
        assert_eq!(
            FeatureError::Missing(vec![feature]).to_string(),
            "the kernel lacks what ringfence needs: ring buffer (Linux 5.8)"
        );
    }
}
