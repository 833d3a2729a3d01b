//! Names that say which process they belong to, and the clean-up after those that died.
//!
//! Everything that outlives a process (namespaces, bpffs mounts, scratch folders, control groups)
//! is called `rf<pid>-<number>…`. Two runs never collide, and the next run finds what a killed
//! one left.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgroup;
use crate::lab::{bpffs, netns};

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// A prefix that no other lab uses, in this process or another.
pub fn unique() -> String {
    SWEPT.call_once(sweep);
    format!(
        "rf{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The process that a name belongs to, if the name is one of ours.
fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix("rf")?.split_once('-')?;
    pid.parse().ok()
}

/// Whether `name` was left behind by a process that is gone.
pub(crate) fn is_orphan(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes what dead runs left. Failures are ignored: nothing depends on a clean machine, since
/// names do not collide.
fn sweep() {
    for name in orphans(Path::new(netns::FOLDER)) {
        kill_inhabitants(&name);
        netns::delete(&name);
    }
    bpffs::unmount_orphans();
    let scratch = std::env::temp_dir();
    for name in orphans(&scratch) {
        let _gone = fs::remove_dir_all(scratch.join(name)).is_ok();
    }
    if let Ok(root) = cgroup::root() {
        for name in orphans(&root) {
            let _gone = fs::remove_dir(root.join(name)).is_ok();
        }
    }
}

fn orphans(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_orphan(name))
        .collect()
}

/// Ends the processes that still run in an orphaned namespace: an agent whose test was killed.
fn kill_inhabitants(name: &str) {
    let listed = Command::new("ip")
        .args(["netns", "pids", name])
        .stderr(Stdio::null())
        .output();
    let Ok(listed) = listed else { return };
    for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner("rf42-0-host"), Some(42));
        assert_eq!(owner("rfc-0"), None);
        assert_eq!(owner("cni-1234"), None);
        assert!(!is_orphan(&format!("rf{}-0", std::process::id())));
    }
}
