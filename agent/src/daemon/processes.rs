//! Where the cgroups of processes are, for records.

use std::sync::Arc;

use crate::{datapath::cgroup::Paths, flow::process::CgroupPaths};

#[derive(Debug)]
pub(crate) struct Groups(pub(crate) Paths);

impl CgroupPaths for Groups {
    fn path(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>> {
        let Self(paths) = self;
        paths.of(cgroup, pid)
    }
}
