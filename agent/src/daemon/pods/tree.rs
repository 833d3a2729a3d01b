//! The cgroups of this node's pods, and the processes in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::layout;
use crate::datapath::cgroup::{self, Hierarchy};

/// The file of a cgroup which the kernel writes to when the first process comes, and when the last one has gone.
/// Version 1 has none.
pub(super) const EVENTS: &str = "cgroup.events";

/// How deep kubelet's cgroups are looked for.
const DEPTH: usize = 8;

/// How deep a container may divide its cgroup before its parts are not looked at.
const PARTS: usize = 8;

/// Where the cgroups of pods are.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where they are looked for: in the first of these that has some.
    tops: Vec<Top>,
    roots: Vec<PathBuf>,
}

#[derive(Debug)]
struct Top {
    /// Where the search begins.
    folder: PathBuf,
    /// The root of the hierarchy of version 2; `None` of one of version 1.
    hierarchy: Option<PathBuf>,
}

/// The cgroup of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) folder: PathBuf,
    /// Its path below the root of the hierarchy of version 2, in which alone programs can be attached to it.
    pub(super) name: Option<String>,
}

/// A process that no other is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    /// In ticks of the boot clock, of which a second has 100. The oldest comes first.
    pub(super) began: u64,
    pub(super) pid: u32,
}

impl Tree {
    /// Looks below a folder only, or wherever cgroups are.
    pub(super) fn new(below: Option<PathBuf>) -> Self {
        let hierarchy = Hierarchy::find().ok();
        let hierarchy = hierarchy.map(|hierarchy| hierarchy.root().to_path_buf());
        let tops = if let Some(folder) = below {
            vec![Top {
                hierarchy: hierarchy.filter(|root| folder.starts_with(root)),
                folder,
            }]
        } else {
            let unified = hierarchy.map(|root| Top {
                folder: root.clone(),
                hierarchy: Some(root),
            });
            let legacy = cgroup::legacy().into_iter().map(|folder| Top {
                folder,
                hierarchy: None,
            });
            unified.into_iter().chain(legacy).collect()
        };
        Self {
            tops,
            roots: Vec::new(),
        }
    }

    /// Looks for where kubelet has its cgroups.
    pub(super) fn search(&mut self) {
        let found = self.tops.iter().map(|top| roots_below(&top.folder));
        self.roots = found
            .into_iter()
            .find(|roots| !roots.is_empty())
            .unwrap_or_default();
    }

    pub(super) fn is_found(&self) -> bool {
        self.roots.iter().any(|root| root.is_dir())
    }

    /// The pods that have a cgroup.
    pub(super) fn pods(&self) -> BTreeMap<String, Group> {
        let mut pods = BTreeMap::new();
        for folder in self.roots.iter().flat_map(|root| classes(root)) {
            for (name, folder) in folders(&folder) {
                if let Some(uid) = layout::uid(&name) {
                    pods.entry(uid).or_insert_with(|| self.group(folder));
                }
            }
        }
        pods
    }

    /// The folders in which cgroups of pods come and go, those of these pods, and what tells whether there is a process
    /// in them: of a file that nobody watches, the kernel announces nothing to who watches its folder.
    pub(super) fn watched(&self, pods: &BTreeMap<String, Group>) -> BTreeSet<PathBuf> {
        let tops = self.tops.iter().map(|top| top.folder.clone());
        let above = self.roots.iter().filter_map(|root| root.parent());
        tops.chain(above.map(Path::to_path_buf))
            .chain(self.roots.iter().flat_map(|root| classes(root)))
            .chain(pods.values().flat_map(|group| {
                let folder = &group.folder;
                [folder.clone(), folder.join(EVENTS)]
            }))
            .collect()
    }

    fn group(&self, folder: PathBuf) -> Group {
        let mut hierarchies = self.tops.iter().filter_map(|top| top.hierarchy.as_ref());
        let name = hierarchies.find_map(|root| folder.strip_prefix(root).ok()?.to_str());
        let name = name.map(str::to_owned);
        Group { folder, name }
    }
}

impl Group {
    /// The oldest process of each container, and of the pod beside them: who was first is in the pod's own
    /// namespace, whatever its children have made for themselves.
    ///
    /// Those of `before` that are still there are not looked for again.
    pub(super) fn leaders(&self, before: &BTreeSet<Process>) -> BTreeSet<Process> {
        let containers = folders(&self.folder).into_iter();
        let members = containers
            .map(|(_, container)| {
                let mut members = BTreeSet::new();
                gather(&container, 0, &mut members);
                members
            })
            .chain([members(&self.folder)]);
        members
            .filter_map(|members| {
                let known = before.iter().find(|process| members.contains(&process.pid));
                match known.filter(|process| process.is_there()) {
                    Some(process) => Some(*process),
                    None => members.into_iter().filter_map(Process::of).min(),
                }
            })
            .collect()
    }

    /// Whether a process is in it.
    pub(super) fn has(&self, process: Process) -> bool {
        let mut all = BTreeSet::new();
        gather(&self.folder, 0, &mut all);
        all.contains(&process.pid) && process.is_there()
    }
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            began: began(&stat)?,
            pid,
        })
    }

    fn is_there(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// `pid (name) state …`, where the name may have anything in it; the begin is the 22nd field.
pub(crate) fn began(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A kubelet that runs in a pod, as clusters for tests do, has its pods for itself: nothing is looked for below one.
fn roots_below(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level = vec![top.to_path_buf()];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for (name, folder) in level.iter().flat_map(|folder| folders(folder)) {
            if layout::is_root(&name) {
                found.push(folder);
            } else {
                next.push(folder);
            }
        }
        level = next;
    }
    found.sort();
    found
}

/// A root, and the classes of service in it.
fn classes(root: &Path) -> Vec<PathBuf> {
    let within = folders(root).into_iter();
    let within = within.filter(|(name, _)| layout::uid(name).is_none());
    [root.to_path_buf()]
        .into_iter()
        .chain(within.map(|(_, folder)| folder))
        .collect()
}

/// What cannot be read, or goes meanwhile, has none.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

fn gather(folder: &Path, depth: usize, pids: &mut BTreeSet<u32>) {
    pids.extend(members(folder));
    if depth < PARTS {
        for (_, part) in folders(folder) {
            gather(&part, depth + 1, pids);
        }
    }
}

/// 0 stands for a process that cannot be seen from here.
fn members(group: &Path) -> BTreeSet<u32> {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = pids.lines().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| *pid != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(top: &Path) -> Tree {
        let mut tree = Tree {
            tops: vec![Top {
                folder: top.to_path_buf(),
                hierarchy: Some(top.to_path_buf()),
            }],
            roots: Vec::new(),
        };
        tree.search();
        tree
    }

    fn found(folders: &[&str]) -> Vec<(String, String)> {
        let top = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(top.path().join(folder)).unwrap();
        }
        let pods = tree(top.path()).pods().into_iter();
        pods.map(|(uid, group)| (uid, group.name.unwrap()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(uid, path): &(&str, &str)| ((*uid).to_owned(), (*path).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn pods_of_every_class_are_found_with_either_driver() {
        let cgroupfs = [
            "kubepods/burstable/poda-1/0123",
            "kubepods/besteffort/podb-2",
            "kubepods/podc-3",
        ];
        let expected = [
            ("a-1", "kubepods/burstable/poda-1"),
            ("b-2", "kubepods/besteffort/podb-2"),
            ("c-3", "kubepods/podc-3"),
        ];
        assert_eq!(found(&cgroupfs), pairs(&expected));
        let systemd = [
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_1.slice/cri-containerd-01.scope",
            "kubepods.slice/kubepods-podc_3.slice/crio-01.scope",
        ];
        let expected = [
            (
                "a-1",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_1.slice",
            ),
            ("c-3", "kubepods.slice/kubepods-podc_3.slice"),
        ];
        assert_eq!(found(&systemd), pairs(&expected));
    }

    #[test]
    fn a_kubelet_with_a_root_of_its_own_is_found_and_one_in_a_pod_is_not_ours() {
        let nested = [
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-poda_1.slice/x.scope",
            "system.slice/k.service/kubepods/podb-2/01/kubelet/kubepods/podd-4",
        ];
        let expected = [
            (
                "a-1",
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-poda_1.slice",
            ),
            ("b-2", "system.slice/k.service/kubepods/podb-2"),
        ];
        assert_eq!(found(&nested), pairs(&expected));
    }

    #[test]
    fn what_only_looks_like_a_pod_is_none() {
        assert_eq!(
            found(&["poda-1", "burstable/poda-1", "kubepods/burstable"]),
            []
        );
    }

    #[test]
    fn the_begin_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(began(stat), Some(4711));
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_there());
    }
}
