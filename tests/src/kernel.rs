//! What is done to BPF objects without an agent: the kernel's own list of them, and what somebody
//! may do to those of an agent.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

/// The first members of `union bpf_attr` for the `*_GET_NEXT_ID` commands.
#[repr(C)]
#[derive(Debug, Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

/// `BPF_OBJ_GET` and `BPF_OBJ_PIN`.
#[repr(C)]
#[derive(Debug, Default)]
struct Pinned {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `BPF_PROG_LOAD`, as much of it as the simplest program needs.
#[repr(C)]
#[derive(Debug, Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
}

/// `BPF_LINK_UPDATE`; the first member alone is `BPF_LINK_DETACH`.
#[repr(C)]
#[derive(Debug, Default)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// `BPF_MAP_LOOKUP_ELEM`, and `BPF_MAP_GET_NEXT_KEY` with the next key in the place of the value.
#[repr(C)]
#[derive(Debug, Default)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

// From `enum bpf_cmd` in linux/bpf.h.
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_DETACH: libc::c_int = 34;

// From `enum bpf_map_type` in linux/bpf.h.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_HASH: u32 = 5;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;

const SCHED_CLS: u32 = 3;
/// `r0 = TCX_PASS; exit`: the end of the chain, and everything passes.
const PASS: [u64; 2] = [0x00b7, 0x0095];
/// Drops what has less than Ethernet and IPv4 headers in the linear part of its socket buffer: `data`,
/// `data_end` (at 76 and 80 of `struct __sk_buff`), 34 bytes between the two.
const ONLY_LINEAR: [u64; 7] = [
    0x004c_1261,
    0x0050_1361,
    0x22_0000_0207,
    0x00b7,
    0x0001_32bd,
    0x2_0000_00b7,
    0x0095,
];

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

/// Cuts the link that is pinned at `path` off what it leads to.
pub fn detach_link(path: &Path) -> Result<()> {
    let link = open_pin(path)?;
    let mut attributes = Update {
        link: link.as_raw_fd().cast_unsigned(),
        ..Update::default()
    };
    // SAFETY: the members of this command, without pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }
        .with_context(|| format!("cannot detach {}", path.display()))?;
    Ok(())
}

/// Puts a program that lets everything pass in the place of the one behind the link at `path`.
pub fn let_all_pass(path: &Path) -> Result<()> {
    let link = open_pin(path)?;
    let program = load(&PASS)?;
    let mut attributes = Update {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        ..Update::default()
    };
    // SAFETY: the members of this command, without pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }
        .with_context(|| format!("cannot replace the program of {}", path.display()))?;
    Ok(())
}

/// Pins a program for TC there that drops frames without a network header in the linear part of their buffer.
pub fn pin_only_linear(path: &Path) -> Result<()> {
    pin(path, &ONLY_LINEAR)
}

/// Pins a program for TC there that lets everything pass.
pub fn pin_all_pass(path: &Path) -> Result<()> {
    pin(path, &PASS)
}

fn pin(path: &Path, code: &[u64]) -> Result<()> {
    let program = load(code)?;
    let name = CString::new(path.as_os_str().as_bytes()).context("a path without zeros")?;
    let mut attributes = Pinned {
        path: address(name.as_ptr()),
        fd: program.as_raw_fd().cast_unsigned(),
        ..Pinned::default()
    };
    // SAFETY: the members of this command; the path ends with a zero and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }
        .with_context(|| format!("cannot pin to {}", path.display()))?;
    Ok(())
}

fn load(code: &[u64]) -> Result<OwnedFd> {
    allow_memory();
    let license = c"GPL";
    let mut attributes = Load {
        kind: SCHED_CLS,
        instructions: u32::try_from(code.len())?,
        code: address(code.as_ptr()),
        license: address(license.as_ptr()),
        ..Load::default()
    };
    // SAFETY: the members of this command; code and license outlive the call.
    let program =
        unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }.context("cannot load a program")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Before 5.11 what an agent of the same user has loaded counts for this process as well. Where that cannot be
/// allowed, loading says so.
#[expect(
    clippy::disallowed_methods,
    reason = "where maps are bounded by it, and only there; whether it may is found out by trying"
)]
fn allow_memory() {
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    let _may = setrlimit(Resource::Memlock, all).is_ok();
}

/// A pinned map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    kind: u32,
    key: usize,
    value: usize,
    size: u32,
}

impl Map {
    pub fn open(path: &Path) -> Result<Self> {
        let fd = open_pin(path)?;
        let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = fs::read_to_string(&info).with_context(|| format!("cannot read {info}"))?;
        let number = |name: &str| -> Result<u32> {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.strip_prefix(':'));
            let number = number.with_context(|| format!("{}: no {name}", path.display()))?;
            Ok(number.trim().parse()?)
        };
        Ok(Self {
            kind: number("map_type")?,
            key: usize::try_from(number("key_size")?)?,
            value: usize::try_from(number("value_size")?)?,
            size: number("max_entries")?,
            fd,
        })
    }

    /// How many entries there are; `None` of an array and whatever else has none of its own.
    /// While others write to it, it is about so many.
    pub fn entries(&self) -> Result<Option<u64>> {
        if ![HASH, PERCPU_HASH, LRU_HASH, LPM_TRIE].contains(&self.kind) {
            return Ok(None);
        }
        let (mut count, mut key, mut next) = (0, None, vec![0_u8; self.key]);
        // Who removes the key that one stands at sends one back to the start.
        for _ in 0..u64::from(self.size) * 2 {
            let mut attributes = Element {
                map: self.fd.as_raw_fd().cast_unsigned(),
                key: key
                    .as_ref()
                    .map_or(0, |key: &Vec<u8>| address(key.as_ptr())),
                value: address(next.as_mut_ptr()),
                ..Element::default()
            };
            // SAFETY: the members of this command; both keys have the size of the map's.
            match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) } {
                Ok(_) => {
                    count += 1;
                    key = Some(next.clone());
                }
                // The end of the list.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error).context("cannot list a map"),
            }
        }
        Ok(Some(count))
    }

    /// The elements of an array of 64-bit words.
    pub fn words(&self) -> Result<Vec<u64>> {
        ensure!(
            self.kind == ARRAY && self.key == 4 && self.value == 8,
            "not an array of words"
        );
        let mut words = Vec::new();
        for index in 0..self.size {
            let mut word = 0_u64;
            let mut attributes = Element {
                map: self.fd.as_raw_fd().cast_unsigned(),
                key: address(&raw const index),
                value: address(&raw mut word),
                ..Element::default()
            };
            // SAFETY: the members of this command; key and value have the sizes of the map's.
            unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) }.context("cannot read an array")?;
            words.push(word);
        }
        Ok(words)
    }
}

/// Ids of programs, maps and links that a process has open.
pub fn held_by(process: u32) -> Result<Objects> {
    let folder = format!("/proc/{process}/fdinfo");
    let mut held = Objects::default();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        // It may have been closed by now.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let ids = |name: &str| -> Option<u32> {
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        held.maps.extend(ids("map_id:"));
        match ids("link_id:") {
            // It also tells the id of its program.
            Some(link) => drop(held.links.insert(link)),
            None => held.programs.extend(ids("prog_id:")),
        }
    }
    Ok(held)
}

fn open_pin(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path without zeros")?;
    let mut attributes = Pinned {
        path: address(name.as_ptr()),
        ..Pinned::default()
    };
    // SAFETY: the members of this command; the path ends with a zero and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }
        .with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn ids(command: libc::c_int) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut query = NextId::default();
    loop {
        // SAFETY: the members of these commands, without pointers.
        match unsafe { bpf(command, &mut query) } {
            Ok(_) => {
                found.insert(query.next);
                query.start = query.next;
            }
            // The end of the list.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

/// # Safety
///
/// `T` must be the layout of this command's part of `union bpf_attr`, and each pointer in it must
/// lead to memory that is valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is valid for its size; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            mem::size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
