//! A link that a name on a bpf filesystem keeps alive.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::datapath::syscall::{self, LinkInfo, LinkTarget};

/// How a program came to hang where it hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It took the place of the program of an earlier agent; no packet saw neither.
    TakenOver,
    /// It was attached anew.
    Attached,
}

/// Makes the link at `path` lead from `target` to `program`.
///
/// A link that is there and leads to the target gets the new program in one step. One that leads
/// elsewhere, or to a target that is gone, is cut off only once the new one stands.
pub(crate) fn hold(
    path: &Path,
    target: LinkTarget,
    program: BorrowedFd<'_>,
    create: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<Held> {
    let old = open(path)?;
    if let Some(old) = &old
        && syscall::link_info(old.as_fd())?.target == target
    {
        match syscall::link_update(old.as_fd(), program) {
            Ok(()) => return Ok(Held::TakenOver),
            // The target went away since it was asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(error),
        }
    }
    let link = create()?;
    drop(old);
    release(path)?;
    syscall::pin(link.as_fd(), path)?;
    Ok(Held::Attached)
}

/// Cuts the link off and removes its name. A name that is not there is as good.
pub(crate) fn release(path: &Path) -> io::Result<()> {
    let Some(link) = open(path)? else {
        return Ok(());
    };
    // Without this, the program would run until the kernel has got round to the last reference. Not
    // before 5.9, and not when the target is gone: then removing the name has to do.
    match syscall::link_detach(link.as_fd()) {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "link not cut, only unpinned");
        }
    }
    fs::remove_file(path)
}

/// What the link at `path` leads to, or `None` if there is none.
pub(crate) fn info(path: &Path) -> io::Result<Option<LinkInfo>> {
    open(path)?
        .map(|link| syscall::link_info(link.as_fd()))
        .transpose()
}

fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    match syscall::open_pin(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Held {
    /// Of two programs: taken over only if both were.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::TakenOver, Self::TakenOver) => Self::TakenOver,
            _ => Self::Attached,
        }
    }
}
