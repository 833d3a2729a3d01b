//! Names of what is attached, in the folder `links`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use agent_common::table::Endpoint;

use crate::datapath::{
    attach::{AttachError, EndpointId, failed},
    bpffs::BpfDir,
    tc::Number,
};

/// The endpoints for which something is attached.
pub fn attached(dir: &BpfDir) -> Result<BTreeSet<EndpointId>, AttachError> {
    Ok(entries(dir)?
        .iter()
        .filter_map(|path| match fields(path)?.as_slice() {
            ["if" | "cg", endpoint, _] => endpoint.parse().ok(),
            _ => Filters::at(path).map(|filters| filters.endpoint),
        })
        .filter(|endpoint| *endpoint != Endpoint::NOBODY.id)
        .collect())
}

/// An entry about filters: whose, on which interface, and which of ours there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filters {
    pub(super) endpoint: EndpointId,
    pub(super) index: u32,
    pub(super) number: Number,
}

impl Filters {
    pub(super) fn at(path: &Path) -> Option<Self> {
        let (endpoint, index, number) = match fields(path)?.as_slice() {
            ["tc", endpoint, index] => (*endpoint, *index, Number::FIRST),
            ["tc", endpoint, index, number] => (*endpoint, *index, Number(number.parse().ok()?)),
            _ => return None,
        };
        Some(Self {
            endpoint: endpoint.parse().ok()?,
            index: index.parse().ok()?,
            number,
        })
    }

    pub(super) fn path(self, dir: &BpfDir) -> PathBuf {
        let Self {
            endpoint,
            index,
            number,
        } = self;
        dir.links().join(match number {
            Number::FIRST => format!("tc-{endpoint}-{index}"),
            Number(number) => format!("tc-{endpoint}-{index}-{number}"),
        })
    }
}

/// The number of this folder's filters on an interface, whichever endpoint they are of.
pub(super) fn number(dir: &BpfDir, index: u32) -> Result<Option<Number>, AttachError> {
    let entries = entries(dir)?;
    let mut filters = entries.iter().filter_map(|path| Filters::at(path));
    Ok(filters
        .find(|filters| filters.index == index)
        .map(|filters| filters.number))
}

pub(super) fn tcx_pins(dir: &BpfDir, endpoint: EndpointId) -> [PathBuf; 2] {
    ["from", "to"].map(|side| dir.links().join(format!("if-{endpoint}-{side}")))
}

pub(super) fn cgroup_pins(dir: &BpfDir, endpoint: EndpointId) -> [PathBuf; 6] {
    ["in", "out", "connect4", "connect6", "setsockopt", "lsm"]
        .map(|side| dir.links().join(format!("cg-{endpoint}-{side}")))
}

/// Whether there is an entry about an endpoint's filters on an interface.
pub(super) fn is_marked(
    dir: &BpfDir,
    endpoint: EndpointId,
    index: u32,
) -> Result<bool, AttachError> {
    let mut entries = entries(dir)?.into_iter();
    Ok(entries.any(|path| {
        Filters::at(&path).is_some_and(|it| it.endpoint == endpoint && it.index == index)
    }))
}

pub(super) fn entries(dir: &BpfDir) -> Result<Vec<PathBuf>, AttachError> {
    let links = dir.links();
    let read =
        fs::read_dir(&links).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(failed("read", shown(&links))),
    }
}

pub(super) fn interface(index: u32) -> String {
    format!("interface {index}")
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

pub(super) fn fields(path: &Path) -> Option<Vec<&str>> {
    let name = path.file_name()?.to_str()?;
    Some(name.split('-').collect())
}

pub(super) fn mark(path: &Path) -> Result<(), AttachError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed("create", shown(path))),
    }
}

pub(super) fn unmark(path: &Path) -> Result<(), AttachError> {
    fs::remove_dir(path).map_err(failed("remove", shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_about_filters_is_read_as_it_is_written() {
        let read = |name: &str| Filters::at(Path::new(name));
        let filters = |number| Filters {
            endpoint: 3,
            index: 17,
            number: Number(number),
        };
        assert_eq!(read("/links/tc-3-17"), Some(filters(1)));
        assert_eq!(read("/links/tc-3-17-2"), Some(filters(2)));
        for other in ["if-3-from", "tc-3", "tc-x-17", "tc-3-17-2-1", "qdisc-17"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
