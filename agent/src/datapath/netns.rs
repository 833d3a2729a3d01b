//! Other network namespaces: which one an interface leads to, and how a question is asked there.
//!
//! For the [helper](super::helper) alone: an agent may do neither.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::datapath::{
    link::{self, Link},
    mountinfo,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("no name and no process leads to the network namespace behind {0}")]
    Hidden(String),
    #[error("{0} leads into no other network namespace")]
    Leafless(String),
    #[error("failed to {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Does `work` on a thread that has entered the namespace and ends with it: the caller stays where it is.
///
/// What is opened there, such as a netlink socket, stays of that namespace. Needs `CAP_SYS_ADMIN`.
pub(crate) fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let visit = thread::Builder::new().name("visitor".to_owned());
        let visit = visit.spawn_scoped(scope, || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        })?;
        let panicked = |_| Err(io::Error::other("the thread in the namespace panicked"));
        visit.join().unwrap_or_else(panicked)
    })
}

/// The namespace at the other end of an interface, by its number with us.
///
/// A number leads to no namespace, only the other way round: so each that can be found is asked for its
/// own. Found are those that are mounted somewhere, as every runtime of containers does, and those that
/// a process is in.
pub(crate) fn behind(link: &Link) -> Result<File, NetnsError> {
    let Some(number) = link.leads_to_netns else {
        return Err(NetnsError::Leafless(link.name.clone()));
    };
    let mut asked = BTreeSet::new();
    for path in mounted()?.into_iter().chain(of_processes()?) {
        // Names and processes come and go meanwhile.
        let Ok(namespace) = File::open(&path) else {
            continue;
        };
        let Ok(metadata) = namespace.metadata() else {
            continue;
        };
        if !asked.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        if matches!(link::number_of(&namespace, &path), Ok(Some(its)) if its == number) {
            return Ok(namespace);
        }
    }
    Err(NetnsError::Hidden(link.name.clone()))
}

/// Where the namespace of a process is opened.
pub(crate) fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

fn mounted() -> Result<Vec<PathBuf>, NetnsError> {
    let mounts = mountinfo::mounts().map_err(failed("list mounts"))?;
    // Namespaces of other kinds are mounted as well.
    let is_network = |root: &Path| root.to_string_lossy().starts_with("net:");
    let mounts = mounts.into_iter();
    Ok(mounts
        .filter(|mount| mount.fs_type == "nsfs" && is_network(&mount.root))
        .map(|mount| mount.point)
        .collect())
}

fn of_processes() -> Result<Vec<PathBuf>, NetnsError> {
    let processes = fs::read_dir("/proc").map_err(failed("list processes"))?;
    let processes = processes.filter_map(Result::ok);
    Ok(processes
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(|entry| entry.path().join("ns/net"))
        .collect())
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> NetnsError {
    move |source| NetnsError::Io { doing, source }
}
