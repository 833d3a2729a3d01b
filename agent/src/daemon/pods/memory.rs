//! Where pods are held, as the next agent takes it up.
//!
//! A process of a pod can move the inner end of its interface to a namespace where nobody asks. As long as an agent
//! runs, it knows whose the host side is all the same; one that has started anew would find the pod without an
//! interface, and the interface without a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{daemon::file, source::kubernetes::placement::Beside};

/// Another one is of another boot, whose numbers of interfaces mean nothing now.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Keeps it in the state folder.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    boot: String,
    pods: BTreeMap<String, Held>,
    /// The disk has not taken what there is now.
    has_failed: bool,
}

/// A pod that is held at an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The number of the host side.
    pub(super) host: u32,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) assured: BTreeSet<IpAddr>,
    pub(super) beside: BTreeMap<u32, Beside>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    boot: String,
    pods: BTreeMap<String, Held>,
}

impl Memory {
    /// Reads what an earlier agent kept; what cannot be understood is as good as nothing.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let boot = fs::read_to_string(BOOT).unwrap_or_default();
        Self::of_boot(state_dir.join("pods.json"), boot)
    }

    fn of_boot(path: PathBuf, boot: String) -> Self {
        let kept = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?));
        let kept = kept.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "where pods were held is not known");
            }
            Kept::default()
        });
        let is_of_this_boot = !boot.is_empty() && kept.boot == boot;
        Self {
            path,
            boot,
            pods: if is_of_this_boot {
                kept.pods
            } else {
                BTreeMap::new()
            },
            has_failed: false,
        }
    }

    pub(super) fn pods(&self) -> &BTreeMap<String, Held> {
        &self.pods
    }

    /// Without it on disk the next agent has to believe the pods' processes.
    pub(super) fn keep(&mut self, pods: BTreeMap<String, Held>) {
        if self.pods == pods {
            return;
        }
        let kept = Kept {
            boot: self.boot.clone(),
            pods,
        };
        let written = serde_json::to_vec(&kept).map_err(io::Error::from);
        match written.and_then(|bytes| file::replace(&self.path, &bytes)) {
            Ok(()) => {
                self.pods = kept.pods;
                self.has_failed = false;
            }
            // The next look tries again.
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(path = %self.path.display(), %error, "cannot keep where pods are held");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> BTreeMap<String, Held> {
        let beside = Beside {
            interface: "net1".to_owned(),
            addresses: BTreeSet::new(),
        };
        let held = Held {
            host: 7,
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            assured: BTreeSet::new(),
            beside: [(8, beside)].into(),
        };
        [("u1".to_owned(), held)].into()
    }

    #[test]
    fn the_next_agent_of_the_same_boot_takes_it_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        let open = |boot: &str| Memory::of_boot(path.clone(), boot.to_owned());
        let mut memory = open("one");
        assert!(memory.pods().is_empty());
        memory.keep(held());
        assert_eq!(*open("one").pods(), held());
        assert!(open("two").pods().is_empty());
        fs::write(&path, "{").unwrap();
        assert!(open("one").pods().is_empty());
    }

    #[test]
    fn what_the_disk_did_not_take_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("state");
        let path = below.join("pods.json");
        let open = || Memory::of_boot(path.clone(), "one".to_owned());
        let mut memory = open();
        memory.keep(held());
        assert!(open().pods().is_empty());
        fs::create_dir(&below).unwrap();
        memory.keep(held());
        assert_eq!(*open().pods(), held());
    }

    #[test]
    fn without_a_boot_to_tell_from_others_nothing_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        Memory::of_boot(path.clone(), String::new()).keep(held());
        assert!(Memory::of_boot(path, String::new()).pods().is_empty());
    }
}
