//! Cgroups of version 2: where the hierarchy is, and which cgroup a name means.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirEntryExt as _, MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::datapath::mountinfo::{self, Mount};

mod name;
mod paths;
mod watch;

pub(crate) use self::paths::Paths;
pub use self::{
    name::{CgroupName, NameError},
    watch::{Change, Watch},
};

/// How deep slices may nest before the search for a unit gives up: systemd itself never gets there.
const DEPTH: usize = 16;

/// The cgroup2 hierarchy, wherever it is mounted.
///
/// `/sys/fs/cgroup` on machines that have only version 2, `/sys/fs/cgroup/unified` on those that have
/// both; never assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
}

/// A cgroup that existed when it was opened. Holding it does not keep it from being removed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    id: u64,
    directory: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup2 hierarchy is mounted: endpoints known by cgroup or systemd unit need one (mount -t cgroup2 none /sys/fs/cgroup)"
    )]
    NoHierarchy,
    #[error("{name} does not exist below {}", .root.display())]
    Absent { name: CgroupName, root: PathBuf },
    #[error("{name} means several cgroups: {}; name one by `cgroup:`", list(.found))]
    Ambiguous {
        name: CgroupName,
        found: Vec<PathBuf>,
    },
    #[error("failed to read {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

impl CgroupError {
    /// Whether waiting can help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Ambiguous { .. })
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError::Io { path, source }
}

impl Hierarchy {
    pub fn find() -> Result<Self, CgroupError> {
        let mounts = mountinfo::mounts().map_err(unreadable(Path::new(mountinfo::MOUNTINFO)))?;
        root_of(&mounts).map(|root| Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the cgroup that `name` means.
    pub fn open(&self, name: &CgroupName) -> Result<Cgroup, CgroupError> {
        let absent = || CgroupError::Absent {
            name: name.clone(),
            root: self.root.clone(),
        };
        let path = self.locate(name)?.ok_or_else(absent)?;
        match open(&path) {
            Ok(directory) => Cgroup::of(path, directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(absent()),
            Err(error) => Err(unreadable(&path)(error)),
        }
    }

    /// Opens the cgroup that all others are in, as far as they can be seen.
    pub fn open_root(&self) -> Result<Cgroup, CgroupError> {
        let directory = open(&self.root).map_err(unreadable(&self.root))?;
        Cgroup::of(self.root.clone(), directory)
    }

    /// Where the cgroup that `name` means is now, if it exists.
    ///
    /// A slice lies where its name says. Any other unit is looked for in every slice: where systemd
    /// puts it depends on its `Slice=`, and instances of a template get a slice of their own. Units of
    /// users' managers are not found, because those lie below a service.
    fn locate(&self, name: &CgroupName) -> Result<Option<PathBuf>, CgroupError> {
        let unit = match name {
            CgroupName::Unit(unit) => unit,
            CgroupName::Path(path) | CgroupName::Slice { path, .. } => {
                let path = self.root.join(path);
                return Ok(path.is_dir().then_some(path));
            }
        };
        let found: Vec<_> = self
            .slices()
            .into_iter()
            .map(|slice| slice.join(unit))
            .filter(|path| path.is_dir())
            .collect();
        match <[PathBuf; 1]>::try_from(found) {
            Ok([path]) => Ok(Some(path)),
            Err(found) if found.is_empty() => Ok(None),
            Err(found) => Err(CgroupError::Ambiguous {
                name: name.clone(),
                found,
            }),
        }
    }

    /// The id of the cgroup that `name` means now: the kernel's, and the inode of its folder.
    fn identify(&self, name: &CgroupName) -> Option<u64> {
        let path = self.locate(name).ok().flatten()?;
        fs::metadata(path).ok().map(|metadata| metadata.ino())
    }

    /// The folders in which `name` appears and vanishes, or its nearest ancestors do.
    fn vantage(&self, name: &CgroupName) -> BTreeSet<PathBuf> {
        match name {
            CgroupName::Unit(_) => {
                let mut folders: BTreeSet<_> = self.slices().into_iter().collect();
                folders.insert(self.root.clone());
                folders
            }
            CgroupName::Path(path) | CgroupName::Slice { path, .. } => self
                .root
                .join(path)
                .ancestors()
                .skip(1)
                .find(|ancestor| ancestor.is_dir())
                .map(Path::to_path_buf)
                .into_iter()
                .collect(),
        }
    }

    /// Every slice. One that cannot be read, or vanishes meanwhile, has no units for us.
    fn slices(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut level = vec![self.root.clone()];
        for _ in 0..DEPTH {
            level = level.iter().flat_map(|folder| slices_in(folder)).collect();
            found.extend_from_slice(&level);
        }
        found
    }
}

/// Where hierarchies of version 1 are mounted, which some have beside that of version 2, or instead of it.
pub(crate) fn legacy() -> Vec<PathBuf> {
    let mounts = mountinfo::mounts().unwrap_or_default().into_iter();
    mounts
        .filter(|mount| mount.fs_type == "cgroup" && mount.root == Path::new("/"))
        .map(|mount| mount.point)
        .collect()
}

impl Cgroup {
    fn of(path: PathBuf, directory: OwnedFd) -> Result<Self, CgroupError> {
        let id = id(&directory).map_err(unreadable(&path))?;
        Ok(Self {
            path,
            id,
            directory,
        })
    }

    /// Whether it is the machine's root, and not what a namespace or a bind mount shows as one.
    pub fn is_root(&self) -> bool {
        // The first that the kernel makes (kernfs numbers its nodes from 1).
        self.id == 1
    }

    /// What BPF programs see as the cgroup's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ids of it and of all below, whose sockets its programs see.
    pub fn family(&self) -> BTreeSet<u64> {
        let mut ids = BTreeSet::from([self.id]);
        below(&self.path, &mut ids);
        ids
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

/// Of several mounts the first that shows the whole hierarchy; else the first that shows a part.
fn root_of(mounts: &[Mount]) -> Result<PathBuf, CgroupError> {
    let mut all = mounts.iter().filter(|mount| mount.fs_type == "cgroup2");
    let first = all.clone().next();
    all.find(|mount| mount.root == Path::new("/"))
        .or(first)
        .map(|mount| mount.point.clone())
        .ok_or(CgroupError::NoHierarchy)
}

/// The ids of all groups below one: the numbers of their folders.
fn below(folder: &Path, ids: &mut BTreeSet<u64>) {
    // A group that has gone has no sockets.
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.insert(entry.ino());
            below(&entry.path(), ids);
        }
    }
}

fn slices_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "slice"))
        .collect()
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The cgroup's id is its inode number: 64 bits on every machine that the agent runs on.
fn id(directory: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(directory)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Mount> {
        mountinfo::parse(text.as_bytes())
    }

    #[test]
    fn the_hierarchy_is_found_in_both_layouts() {
        let hybrid = parsed(
            "30 22 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
             31 30 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let pure = parsed("30 22 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let found = |mounts: &[Mount]| root_of(mounts).unwrap();
        assert_eq!(found(&hybrid), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found(&pure), Path::new("/sys/fs/cgroup"));
        assert!(matches!(root_of(&[]), Err(CgroupError::NoHierarchy)));
    }

    #[test]
    fn a_mount_of_the_whole_is_preferred_to_one_of_a_part() {
        let mounts = parsed(
            "30 22 0:25 /system.slice /part rw - cgroup2 cgroup2 rw\n\
             31 22 0:25 / /whole rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(root_of(&mounts).unwrap(), Path::new("/whole"));
    }

    #[test]
    fn a_unit_is_found_in_any_slice_but_not_below_a_service() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy {
            root: root.path().to_path_buf(),
        };
        let make = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
        let at = |unit: &str| hierarchy.locate(&CgroupName::unit(unit).unwrap());
        make("system.slice/nginx.service");
        make("system.slice/system-getty.slice/getty@tty1.service");
        make("user.slice/user-1.slice/user@1.service/app.slice/mine.service");
        make("a.slice/a-b.slice");
        let found = |unit: &str| {
            at(unit).unwrap().map(|path| {
                path.strip_prefix(root.path())
                    .unwrap()
                    .display()
                    .to_string()
            })
        };
        assert_eq!(
            found("nginx.service").as_deref(),
            Some("system.slice/nginx.service")
        );
        assert_eq!(
            found("getty@tty1.service").as_deref(),
            Some("system.slice/system-getty.slice/getty@tty1.service")
        );
        assert_eq!(found("mine.service"), None);
        assert_eq!(found("a-b.slice").as_deref(), Some("a.slice/a-b.slice"));
        make("a.slice/nginx.service");
        assert!(matches!(
            at("nginx.service"),
            Err(CgroupError::Ambiguous { .. })
        ));
    }
}
