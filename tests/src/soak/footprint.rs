//! What an agent holds, of memory, of the kernel and of its file system: what grows is a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::kernel::{Map, Objects, held_by};

/// Tables whose entries follow traffic, not policy.
const OF_TRAFFIC: [&str; 4] = ["FLOWS_V4", "FLOWS_V6", "DENIALS", "COUNTERS"];

/// Counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// KiB.
    pub(super) resident: u64,
    pub(super) threads: u64,
    pub(super) descriptors: u64,
    pub(super) sockets: u64,
    /// In the agent's own network namespace.
    pub(super) netlink: u64,
    pub(super) programs: u64,
    pub(super) maps: u64,
    pub(super) links: u64,
    pub(super) pins: u64,
    /// By table, of those that follow policy.
    pub(super) entries: BTreeMap<String, u64>,
    pub(super) flows: u64,
}

impl Footprint {
    /// Also adds what the agent holds in the kernel to `ours`.
    pub(super) fn of(agent: &Agent, ours: &mut Objects) -> Result<Self> {
        let process = agent.process().context("the agent does not run")?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .context("cannot read the agent's status")?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("no {name}"))?.parse()?)
        };
        let targets = targets(process)?;
        let sockets: BTreeSet<&str> = targets
            .iter()
            .filter_map(|target| target.strip_prefix("socket:[")?.strip_suffix(']'))
            .collect();
        let netlink = fs::read_to_string(format!("/proc/{process}/net/netlink"))
            .context("cannot read the table of netlink sockets")?;
        let netlink = netlink
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .filter(|inode| sockets.contains(inode));
        let held = held_by(process)?;
        let mut footprint = Self {
            resident: number("VmRSS:")?,
            threads: number("Threads:")?,
            descriptors: count(targets.len()),
            sockets: count(sockets.len()),
            netlink: count(netlink.count()),
            programs: count(held.programs.len()),
            maps: count(held.maps.len()),
            links: count(held.links.len()),
            ..Self::default()
        };
        ours.programs.extend(held.programs);
        ours.maps.extend(held.maps);
        ours.links.extend(held.links);
        footprint.look_into(agent.bpffs())?;
        Ok(footprint)
    }

    fn look_into(&mut self, folder: &Path) -> Result<()> {
        for (name, path) in pins(folder)? {
            self.pins += 1;
            let is_map = path.contains("/maps-");
            let Some(entries) = is_map
                .then(|| Map::open(Path::new(&path))?.entries())
                .transpose()?
                .flatten()
            else {
                continue;
            };
            if name.starts_with("FLOWS_") {
                self.flows += entries;
            }
            if !OF_TRAFFIC.contains(&name.as_str()) {
                self.entries.insert(name, entries);
            }
        }
        Ok(())
    }

    /// The most of each.
    pub(super) fn peak(&mut self, other: &Self) {
        for ((_, most), (_, value)) in self.numbers().into_iter().zip(other.values()) {
            *most = (*most).max(value);
        }
        for (table, entries) in &other.entries {
            let most = self.entries.entry(table.clone()).or_default();
            *most = (*most).max(*entries);
        }
        self.flows = self.flows.max(other.flows);
    }

    fn numbers(&mut self) -> [(&'static str, &mut u64); 9] {
        let Self {
            resident,
            threads,
            descriptors,
            sockets,
            netlink,
            programs,
            maps,
            links,
            pins,
            entries: _,
            flows: _,
        } = self;
        [
            ("KiB of memory", resident),
            ("threads", threads),
            ("descriptors", descriptors),
            ("sockets", sockets),
            ("netlink sockets", netlink),
            ("programs", programs),
            ("maps", maps),
            ("links", links),
            ("pins", pins),
        ]
    }

    fn values(&self) -> [(&'static str, u64); 9] {
        let mut copy = self.clone();
        copy.numbers().map(|(name, number)| (name, *number))
    }

    /// An error if there is more of anything than there was, in the same state of policy and cast.
    /// `before` is the most that was seen while everything happened for the first time.
    pub(super) fn is_no_more_than(&self, before: &Self) -> Result<()> {
        for ((name, now), (_, then)) in self.values().into_iter().zip(before.values()) {
            let most = match name {
                // Allocators keep some, and more of it where more was needed at once.
                "KiB of memory" => then + then / 2 + (8 << 10),
                // Those that wait for file systems come and go.
                "threads" => then + 4,
                // Somebody asks for the status.
                "descriptors" | "sockets" => then + 2,
                _ => then,
            };
            ensure!(now <= most, "{now} {name}, and there were {then}");
        }
        ensure!(
            self.entries == before.entries,
            "entries by table: {:?}, and there were {:?}",
            self.entries,
            before.entries
        );
        Ok(())
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.values() {
            write!(f, "{number} {name}, ")?;
        }
        let entries: u64 = self.entries.values().sum();
        write!(f, "{entries} entries, {} flows", self.flows)
    }
}

/// Flows by both tables, and how many of them the endpoints are said to hold.
pub(super) fn flows(agent: &Agent) -> Result<(u64, u64)> {
    let (mut flows, mut held) = (0, 0);
    for (name, path) in pins(agent.bpffs())? {
        let map = || Map::open(Path::new(&path));
        if name.starts_with("FLOWS_") {
            flows += map()?.entries()?.unwrap_or_default();
        } else if name == "HELD" {
            // The first two, of nobody, are what is free.
            held += map()?.words()?.iter().skip(2).sum::<u64>();
        }
    }
    Ok((flows, held))
}

fn targets(process: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{process}/fd");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        // It may have been closed by now.
        if let Ok(target) = fs::read_link(entry?.path()) {
            targets.push(target.to_string_lossy().into_owned());
        }
    }
    Ok(targets)
}

/// Names and paths of all files below a folder of pins.
pub(super) fn pins(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(pins(&entry.path())?);
        } else {
            let path = entry.path().to_string_lossy().into_owned();
            found.push((entry.file_name().to_string_lossy().into_owned(), path));
        }
    }
    Ok(found)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_pin_is_a_leak_and_one_more_thread_is_none() {
        let before = Footprint {
            pins: 3,
            threads: 3,
            ..Footprint::default()
        };
        let now = Footprint {
            threads: 4,
            ..before.clone()
        };
        now.is_no_more_than(&before)
            .expect("a thread comes and goes");
        let now = Footprint { pins: 4, ..now };
        let said = now.is_no_more_than(&before).expect_err("a pin stays");
        assert_eq!(said.to_string(), "4 pins, and there were 3");
    }

    #[test]
    fn a_peak_has_the_most_of_each() {
        let mut peak = Footprint {
            pins: 3,
            maps: 1,
            ..Footprint::default()
        };
        peak.peak(&Footprint {
            maps: 2,
            ..Footprint::default()
        });
        assert_eq!((peak.pins, peak.maps), (3, 2));
    }
}
