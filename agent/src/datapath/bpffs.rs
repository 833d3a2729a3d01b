//! A folder on a bpf filesystem, where links and maps outlive the agent.
//!
//! Only this module makes a [`BpfDir`], and only after it has seen that the folder lies on a mounted
//! bpf filesystem: who holds one can pin.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use agent_common::abi::{ABI_VERSION, FLOWS_SINCE};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

mod watch;

pub(crate) use self::watch::Watch;

/// An agent's folder, unless it is given another.
pub(crate) const DEFAULT_FOLDER: &str = "/sys/fs/bpf/ringfence";

/// Where distributions mount it.
const STANDARD: &str = "/sys/fs/bpf";

/// An empty folder that says that the mount it lies in is of our making, and ours to take back.
///
/// The mount's source would say it too, but 5.10 forgets it.
const MOUNTED: &str = "mounted-here";

/// What `mount` shows as the source, where the kernel remembers it.
const SOURCE: &str = "ringfence";

const LINKS: &str = "links";
const MAPS: &str = "maps-v";

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Proof that a folder lies on a mounted bpf filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfDir {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    #[error("{}: not a folder of our own: give an absolute path without '..', like {STANDARD}/ringfence", .0.display())]
    Path(PathBuf),
    #[error("the kernel has no bpf filesystem (CONFIG_BPF_SYSCALL)")]
    NoFilesystem,
    #[error(
        "{STANDARD} does not exist: is sysfs mounted at /sys, and has the kernel CONFIG_BPF_SYSCALL?"
    )]
    NoMountPoint,
    #[error("mounting a bpf filesystem at {} needs root or CAP_SYS_ADMIN", .0.display())]
    Privilege(PathBuf),
    #[error("{} is not on a bpf filesystem and not empty: mounting one there would hide what it holds", .0.display())]
    Occupied(PathBuf),
    #[error("{} holds {}, which is not ours: left in place", .path.display(), .foreign.display())]
    Foreign { path: PathBuf, foreign: PathBuf },
    #[error("failed to {doing} {}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BpffsError {
    let path = path.to_path_buf();
    move |source| BpffsError::Io {
        doing,
        path,
        source,
    }
}

impl BpfDir {
    /// The folder at `path`, made and mounted where missing.
    ///
    /// Below `/sys/fs/bpf` the filesystem is mounted there, as everybody expects it; elsewhere at
    /// `path` itself.
    ///
    /// # Errors
    ///
    /// Says what is missing. Folders and mounts made before the failure stay; a next call uses them.
    pub fn prepare(path: &Path) -> Result<Self, BpffsError> {
        check(path)?;
        if !on_bpffs(path) {
            let standard = Path::new(STANDARD);
            if path.starts_with(standard) {
                if !standard.exists() {
                    return Err(BpffsError::NoMountPoint);
                }
                mount_at(standard)?;
            } else {
                make_folder(path)?;
                let mut entries = fs::read_dir(path).map_err(failed("read", path))?;
                if entries.next().is_some() {
                    return Err(BpffsError::Occupied(path.to_path_buf()));
                }
                mount_at(path)?;
                make_folder(&path.join(MOUNTED))?;
            }
        }
        let dir = Self {
            path: path.to_path_buf(),
        };
        for folder in [&dir.path, &dir.links(), &dir.maps()] {
            make_folder(folder)?;
        }
        Ok(dir)
    }

    /// The folder at `path` if an agent has left one, without making anything.
    pub fn existing(path: &Path) -> Result<Option<Self>, BpffsError> {
        check(path)?;
        let there = path.is_dir() && on_bpffs(path);
        Ok(there.then(|| Self {
            path: path.to_path_buf(),
        }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where attachments are kept.
    pub fn links(&self) -> PathBuf {
        self.path.join(LINKS)
    }

    /// Where maps of this program's ABI are kept: another version never finds them by accident.
    pub fn maps(&self) -> PathBuf {
        self.path.join(format!("{MAPS}{ABI_VERSION}"))
    }

    /// The maps that agents of another ABI version have left.
    pub fn foreign_maps(&self) -> Result<Vec<PathBuf>, BpffsError> {
        let ours = self.maps();
        let folders = entries(&self.path)?;
        Ok(folders
            .into_iter()
            .filter(|path| is_maps(path) && *path != ours)
            .collect())
    }

    /// Of [`BpfDir::foreign_maps`] those whose flows we understand; of several, the latest.
    pub(crate) fn earlier_maps(&self) -> Result<Option<PathBuf>, BpffsError> {
        let folders = self.foreign_maps()?.into_iter();
        let known = folders.filter_map(|path| Some((version(&path)?, path)));
        let known = known.filter(|(version, _)| (FLOWS_SINCE..ABI_VERSION).contains(version));
        Ok(known.max().map(|(_, path)| path))
    }

    /// Takes away the names of maps of other versions. Programs that use them go on.
    pub(crate) fn remove_foreign_maps(&self) -> Result<(), BpffsError> {
        for folder in self.foreign_maps()? {
            fs::remove_dir_all(&folder).map_err(failed("remove", &folder))?;
        }
        Ok(())
    }

    /// Unpins everything, of every ABI version, and takes back what `prepare` made: the folders, and
    /// the mount if it is at the folder itself. A mount at `/sys/fs/bpf` stays: others use it. So does one
    /// that this process may not take back, empty but for what says whose it is.
    ///
    /// # Errors
    ///
    /// [`BpffsError::Foreign`] if somebody else keeps something there; all of ours is then gone.
    pub fn remove_all(self) -> Result<(), BpffsError> {
        let mut foreign = None;
        for entry in entries(&self.path)? {
            if entry.file_name() == Some(OsStr::new(LINKS)) || is_maps(&entry) {
                fs::remove_dir_all(&entry).map_err(failed("remove", &entry))?;
            } else if entry.file_name() != Some(OsStr::new(MOUNTED)) {
                foreign = Some(entry);
            }
        }
        if let Some(foreign) = foreign {
            return Err(BpffsError::Foreign {
                path: self.path,
                foreign,
            });
        }
        let mark = self.path.join(MOUNTED);
        if mark.is_dir() {
            // The mark goes with the mount.
            match unmount(&self.path, UnmountFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM) => {
                    tracing::warn!(
                        path = %self.path.display(),
                        "an empty bpf filesystem stays mounted: `ringfence detach` takes it back"
                    );
                    return Ok(());
                }
                Err(errno) => return Err(failed("unmount", &self.path)(errno.into())),
            }
        }
        fs::remove_dir(&self.path).map_err(failed("remove", &self.path))
    }
}

/// Whether the kernel has the filesystem, mounted or not.
pub(crate) fn known() -> io::Result<bool> {
    let filesystems = fs::read_to_string("/proc/filesystems")?;
    Ok(filesystems
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some("bpf")))
}

/// Refuses what could lead elsewhere, and the places that belong to everybody.
fn check(path: &Path) -> Result<(), BpffsError> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path != Path::new("/") && path != Path::new(STANDARD) {
        Ok(())
    } else {
        Err(BpffsError::Path(path.to_path_buf()))
    }
}

fn is_maps(path: &Path) -> bool {
    version(path).is_some()
}

fn version(maps: &Path) -> Option<u32> {
    let name = maps.file_name()?.to_str()?;
    name.strip_prefix(MAPS)?.parse().ok()
}

/// Whether `path`, or its nearest ancestor that exists, lies on a bpf filesystem.
fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|ancestor| rustix::fs::statfs(ancestor).ok())
        .is_some_and(|stat| stat.f_type == BPF_FS_MAGIC)
}

/// What people and programs have put into a folder. The kernel itself may put iterators into the root
/// of a filesystem; only its own names have a dot.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, BpffsError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map(|mut paths: Vec<PathBuf>| {
            paths.retain(|path| path.extension().is_none());
            paths
        })
        .map_err(failed("read", folder))
}

/// Makes a folder that only its owner enters: who can open a pinned map can change what is enforced.
fn make_folder(folder: &Path) -> Result<(), BpffsError> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
        .map_err(failed("create", folder))
}

fn mount_at(point: &Path) -> Result<(), BpffsError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(SOURCE, point, "bpf", flags, Some(c"mode=0700")).map_err(|errno| match errno {
        Errno::NODEV => BpffsError::NoFilesystem,
        Errno::PERM => BpffsError::Privilege(point.to_path_buf()),
        other => failed("mount a bpf filesystem at", point)(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_or_belong_to_all_are_refused() {
        for path in [
            "",
            "relative",
            "/sys/fs/bpf",
            "/",
            "/sys/fs/bpf/../x",
            "/a/..",
        ] {
            assert!(check(Path::new(path)).is_err(), "{path}");
        }
        for path in ["/sys/fs/bpf/ringfence", "/run/test/bpf"] {
            assert!(check(Path::new(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn only_folders_of_maps_count_as_such() {
        assert!(is_maps(Path::new("/x/maps-v12")));
        assert!(!is_maps(Path::new("/x/maps-vnext")));
        assert!(!is_maps(Path::new("/x/links")));
    }
}
