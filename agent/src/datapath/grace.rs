//! Waiting until no program runs that was running before.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::datapath::syscall;

/// A map of maps that is there only to be written to.
///
/// The kernel promises (since 5.0) that when such a write returns, every program that may have seen
/// the earlier state has ended. `membarrier` was tried first: it is refused where processors run
/// without a tick (`nohz_full`), and does not wait on a machine with a single processor.
#[derive(Debug)]
pub(crate) struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    pub(crate) fn new() -> io::Result<Self> {
        let inner = syscall::array_of_one(None)?;
        let outer = syscall::array_of_one(Some(inner.as_fd()))?;
        Ok(Self { outer, inner })
    }

    /// Returns once no program runs that was running when this was called.
    pub(crate) fn wait(&self) -> io::Result<()> {
        syscall::put_inner(self.outer.as_fd(), self.inner.as_fd())
    }
}
