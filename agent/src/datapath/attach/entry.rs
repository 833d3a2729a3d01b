//! Names of what is attached, in the folder `links`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::datapath::{
    attach::{AttachError, EndpointId, failed},
    bpffs::BpfDir,
};

/// The endpoints for which something is attached.
pub fn attached(dir: &BpfDir) -> Result<BTreeSet<EndpointId>, AttachError> {
    Ok(entries(dir)?
        .iter()
        .filter_map(|path| match fields(path)?.as_slice() {
            ["if" | "cg" | "tc", endpoint, _] => endpoint.parse().ok(),
            _ => None,
        })
        .collect())
}

pub(super) fn tcx_pins(dir: &BpfDir, endpoint: EndpointId) -> [PathBuf; 2] {
    ["from", "to"].map(|side| dir.links().join(format!("if-{endpoint}-{side}")))
}

pub(super) fn cgroup_pins(dir: &BpfDir, endpoint: EndpointId) -> [PathBuf; 2] {
    ["in", "out"].map(|side| dir.links().join(format!("cg-{endpoint}-{side}")))
}

pub(super) fn filter_mark(dir: &BpfDir, endpoint: EndpointId, index: u32) -> PathBuf {
    dir.links().join(format!("tc-{endpoint}-{index}"))
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
