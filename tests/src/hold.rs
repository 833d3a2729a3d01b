//! What the programs of an agent hang by, as the folder of its links tells, and what somebody may do to that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::kernel;
use crate::lab::Netns;

/// A pinned link, or, where the kernel has no TCX, an empty folder that tells of filters.
#[derive(Debug)]
pub enum Hold {
    Link(PathBuf),
    Filters {
        folder: PathBuf,
        interface: String,
        sides: &'static [&'static str],
        number: u16,
    },
}

impl Hold {
    /// All that endpoints and ways out hang by; other links note processes, and see no packet.
    pub fn all(agent: &Agent) -> Result<Vec<Self>> {
        let folder = agent.bpffs().join("links");
        let entries = fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))?;
        let mut holds = Vec::new();
        for entry in entries {
            holds.extend(Self::at(entry?.path()));
        }
        Ok(holds)
    }

    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name.starts_with("process-") {
            return None;
        }
        if !path.is_dir() {
            return Some(Self::Link(path));
        }
        let fields: Vec<_> = name.split('-').collect();
        let (index, sides, number): (_, &[_], _) = match fields.as_slice() {
            ["tc", _, index] => (index, &["ingress", "egress"], 1),
            ["tc", _, index, number] => (index, &["ingress", "egress"], number.parse().ok()?),
            ["out", index, number] => (index, &["egress"], number.parse().ok()?),
            // Whose making a clsact is.
            _ => return None,
        };
        Some(Self::Filters {
            // How `tc` names an interface by its index.
            interface: format!("if{index}"),
            folder: path.clone(),
            sides,
            number,
        })
    }

    pub fn name(&self) -> &Path {
        match self {
            Self::Link(path) | Self::Filters { folder: path, .. } => path,
        }
    }

    /// Takes the program off.
    pub fn cut(&self, host: &Netns) -> Result<()> {
        match self {
            Self::Link(path) => kernel::detach_link(path),
            Self::Filters { .. } => self.filters(host, "delete", &["bpf"]),
        }
    }

    /// Puts a program that lets everything pass in the place of the agent's; it is pinned to `spare`.
    pub fn let_all_pass(&self, host: &Netns, spare: &Path) -> Result<()> {
        match self {
            Self::Link(path) => kernel::let_all_pass(path),
            Self::Filters { .. } => {
                if !spare.exists() {
                    kernel::pin_all_pass(spare)?;
                }
                let spare = spare.display().to_string();
                self.filters(host, "replace", &["bpf", "da", "object-pinned", &spare])
            }
        }
    }

    /// Takes its name in the folder away.
    pub fn unname(&self) -> Result<()> {
        let name = self.name();
        let removed = match self {
            Self::Link(path) => fs::remove_file(path),
            Self::Filters { folder, .. } => fs::remove_dir(folder),
        };
        removed.with_context(|| format!("cannot remove {}", name.display()))
    }

    fn filters(&self, host: &Netns, verb: &str, what: &[&str]) -> Result<()> {
        let Self::Filters {
            interface,
            sides,
            number,
            ..
        } = self
        else {
            return Ok(());
        };
        let handle = format!("0x5246{number:04x}");
        for side in *sides {
            let of = ["filter", verb, "dev", interface, side];
            let filter = ["protocol", "all", "pref", "1", "handle", &handle];
            host.ask("tc", &[&of[..], &filter, what].concat())?;
        }
        Ok(())
    }
}
