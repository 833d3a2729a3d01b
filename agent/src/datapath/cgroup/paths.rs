//! From the number of a cgroup to its path, by a process that is in it.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Hierarchy;

/// Groups that are remembered, dead ones too: they never get another path, and their numbers are never
/// given to others.
const KNOWN: usize = 4096;

/// Paths of cgroups, once they have been found.
#[derive(Debug)]
pub(crate) struct Paths {
    root: Option<PathBuf>,
    known: HashMap<u64, Arc<str>>,
}

impl Paths {
    pub(crate) fn new() -> Self {
        let hierarchy = Hierarchy::find().ok();
        Self {
            root: hierarchy.map(|hierarchy| hierarchy.root().to_path_buf()),
            known: HashMap::new(),
        }
    }

    /// The path of a group below the root of the hierarchy. `pid` was in it: another process that has the
    /// number by now, or counts by another namespace, is not taken for it.
    pub(crate) fn of(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>> {
        if let Some(path) = self.known.get(&cgroup) {
            return Some(Arc::clone(path));
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path: Arc<str> = in_hierarchy(&groups)?.into();
        let folder = self.root.as_ref()?.join(path.trim_start_matches('/'));
        if number(&folder)? != cgroup {
            return None;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(cgroup, Arc::clone(&path));
        Some(path)
    }
}

/// The line about the hierarchy of version 2.
fn in_hierarchy(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

fn number(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_hierarchies_the_one_of_version_2_counts() {
        let groups = "2:cpu:/user.slice\n1:name=systemd:/x\n0::/system.slice/nginx.service\n";
        assert_eq!(in_hierarchy(groups), Some("/system.slice/nginx.service"));
        assert_eq!(in_hierarchy("1:name=systemd:/x\n"), None);
    }

    #[test]
    fn a_path_is_believed_only_if_it_is_of_that_group_and_is_then_known() {
        let pid = std::process::id();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let Some(own) = in_hierarchy(&groups) else {
            return;
        };
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(own.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        let id = number(&folder).unwrap();
        let mut paths = Paths {
            root: Some(root.path().to_path_buf()),
            known: HashMap::new(),
        };
        assert_eq!(paths.of(id + 1, pid), None);
        assert_eq!(paths.of(id, u32::MAX), None);
        assert_eq!(paths.of(id, pid).as_deref(), Some(own));
        assert_eq!(paths.of(id, u32::MAX).as_deref(), Some(own));
    }
}
