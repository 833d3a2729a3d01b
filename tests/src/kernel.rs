//! Which BPF objects the kernel holds, by its own list of ids.

use std::collections::BTreeSet;
use std::io;
use std::mem;

use anyhow::{Context, Result};

/// The first members of `union bpf_attr` for the `*_GET_NEXT_ID` commands.
#[repr(C)]
#[derive(Debug, Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

// From `enum bpf_cmd` in linux/bpf.h.
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;

/// Ids of all programs, maps and links of the machine at one moment. Ids are never used twice
/// while the machine is up, so sets of them can be subtracted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Objects {
    pub fn now() -> Result<Self> {
        Ok(Self {
            programs: ids(BPF_PROG_GET_NEXT_ID).context("cannot list BPF programs")?,
            maps: ids(BPF_MAP_GET_NEXT_ID).context("cannot list BPF maps")?,
            links: ids(BPF_LINK_GET_NEXT_ID).context("cannot list BPF links")?,
        })
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.each(other, |left, right| left - right)
    }

    /// What is in both.
    #[must_use]
    pub fn still_in(&self, other: &Self) -> Self {
        self.each(other, |left, right| left & right)
    }

    pub fn is_empty(&self) -> bool {
        let Self {
            programs,
            maps,
            links,
        } = self;
        programs.is_empty() && maps.is_empty() && links.is_empty()
    }

    fn each(
        &self,
        other: &Self,
        operation: fn(&BTreeSet<u32>, &BTreeSet<u32>) -> BTreeSet<u32>,
    ) -> Self {
        let Self {
            programs,
            maps,
            links,
        } = self;
        Self {
            programs: operation(programs, &other.programs),
            maps: operation(maps, &other.maps),
            links: operation(links, &other.links),
        }
    }
}

fn ids(command: libc::c_int) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut query = NextId::default();
    loop {
        // SAFETY: the kernel reads and writes at most the given number of bytes of `query`, which
        // is alive for the call and laid out as the kernel's own.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                &raw mut query,
                mem::size_of::<NextId>(),
            )
        };
        if result == 0 {
            found.insert(query.next);
            query.start = query.next;
            continue;
        }
        let error = io::Error::last_os_error();
        // The end of the list.
        if error.raw_os_error() == Some(libc::ENOENT) {
            return Ok(found);
        }
        return Err(error);
    }
}
