//! A BPF file system of a lab's own. Unmounting it drops every pin in it, and with the last pin
//! the kernel drops links, programs and maps: the safety net below the agent's own clean-up.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::lab::names;

/// A mounted BPF file system; unmounted on drop.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Mounts a fresh one at `path`, which is made.
    pub fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount("bpf", &path, "bpf", MountFlags::empty(), None::<&CStr>)
            .with_context(|| format!("cannot mount bpffs at {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _gone = unmount(&self.path, UnmountFlags::DETACH).is_ok();
    }
}

/// Unmounts everything below `folder`: for a folder that an agent mounted something in.
pub(crate) fn unmount_below(folder: &Path) {
    for point in mount_points()
        .into_iter()
        .rev()
        .filter(|point| point.starts_with(folder))
    {
        let _gone = unmount(point, UnmountFlags::DETACH).is_ok();
    }
}

/// Unmounts what dead runs left.
pub(crate) fn unmount_orphans() {
    let orphaned = |point: &PathBuf| {
        point
            .iter()
            .any(|part| part.to_str().is_some_and(names::is_orphan))
    };
    for point in mount_points().into_iter().rev().filter(orphaned) {
        let _gone = unmount(point, UnmountFlags::DETACH).is_ok();
    }
}

/// All mount points, in order of mounting. Lab paths hold nothing that mountinfo escapes.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}
