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

/// A link that we hold besides its name: who takes its name away does not cut it off.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// Makes the link at `path` lead from `target` to `program`.
///
/// A link that is there and leads to the target gets the new program in one step. One that leads
/// elsewhere, or to a target that is gone, is cut off only once the new one stands.
pub(crate) fn hold(
    path: &Path,
    target: LinkTarget,
    program: BorrowedFd<'_>,
    create: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<(Held, Link)> {
    let old = open(path)?;
    if let Some(old) = old
        && syscall::link_info(old.as_fd())?.target == target
    {
        match syscall::link_update(old.as_fd(), program) {
            Ok(()) => return Ok((Held::TakenOver, Link(old))),
            // The target went away since it was asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(error),
        }
    }
    let link = Link(create()?);
    release(path)?;
    syscall::pin(link.0.as_fd(), path)?;
    Ok((Held::Attached, link))
}

impl Link {
    /// What it leads to now.
    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        syscall::link_info(self.0.as_fd())
    }

    pub(crate) fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_at(self.0.as_fd(), path)
    }

    pub(crate) fn name(&self, path: &Path) -> io::Result<()> {
        name(self.0.as_fd(), path)
    }
}

/// Whether `path` is a name of the object.
pub(crate) fn is_at(object: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
    let ours = syscall::object_id(object)?;
    Ok(match syscall::open_pin(path) {
        Ok(found) => syscall::object_id(found.as_fd())? == ours,
        // Nothing, or nothing that is a name of any object.
        Err(_) => false,
    })
}

/// Makes `path` a name of the object, whatever is there.
pub(crate) fn name(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    forget(path)?;
    syscall::pin(object, path)
}

/// Removes a name. One that is not there is as good.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
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
