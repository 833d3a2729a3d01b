//! The bpf system call, for what aya 0.14 does not offer: links by interface index, the program
//! behind a cgroup link replaced, a link's target read, a link cut before its last reference goes.
//!
//! Numbers and layouts are those of the kernel's `uapi/linux/bpf.h`, which only ever grows.

use std::{
    ffi::CString,
    fs::File,
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const ITER_CREATE: libc::c_long = 33;
const LINK_DETACH: libc::c_long = 34;

/// Put the program before all others of the chain. Since 6.6.
const BEFORE: u32 = 1 << 3;

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    CgroupIngress = 0,
    CgroupEgress = 1,
    CgroupSockCreate = 2,
    CgroupConnect4 = 10,
    CgroupConnect6 = 11,
    CgroupPostBind4 = 12,
    CgroupPostBind6 = 13,
    CgroupSetsockopt = 22,
    LsmCgroup = 43,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What a link leads to. A link whose target is gone says interface 0 or cgroup 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    Cgroup(u64),
    Interface(u32),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) program: u32,
    pub(crate) target: LinkTarget,
}

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElemAttr {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapBatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    zero: u32,
    expected_revision: u64,
}

/// `link_create` with `bpf_iter_link_info` behind it.
#[repr(C)]
#[derive(Default)]
struct IterLinkAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct IterCreateAttr {
    link_fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    zero: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// How the kernel's `bpf_map_info`, `bpf_prog_info` and `bpf_link_info` all begin.
#[repr(C)]
#[derive(Default)]
struct ObjectInfoHead {
    kind: u32,
    id: u32,
}

/// The head of the kernel's `bpf_link_info`, up to what the two kinds of target need.
#[repr(C)]
#[derive(Default)]
struct LinkInfoHead {
    kind: u32,
    id: u32,
    prog_id: u32,
    zero: u32,
    target: u64,
    attach_type: u32,
    zero2: u32,
}

const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_TCX: u32 = 11;

/// The system call. The kernel reads and writes `attr` and what its pointers lead to.
///
/// # Safety
///
/// `T` must be the layout of `command`'s part of `union bpf_attr`, and each pointer in it must lead
/// to memory that is valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is valid for its size; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            mem::size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Attaches before all others of the interface's chain. Minimum kernel: 6.6.
pub(crate) fn link_to_interface(
    program: BorrowedFd<'_>,
    index: u32,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    link_create(program, index, attach_type, BEFORE)
}

/// Attaches beside all others of the cgroup: a link never takes another's place. Minimum kernel: 5.7.
pub(crate) fn link_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    link_create(program, number(cgroup), attach_type, 0)
}

fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: number(program),
        target,
        attach_type: attach_type as u32,
        flags,
        ..LinkCreateAttr::default()
    };
    // SAFETY: the layout of this command; it holds no pointers.
    let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches an iterator to a map; it stays attached for as long as the result lives. Minimum
/// kernel: 5.8.
pub(crate) fn link_to_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const ITERATOR: u32 = 28;
    let map = number(map);
    let mut attr = IterLinkAttr {
        prog_fd: number(program),
        attach_type: ITERATOR,
        info: address(&raw const map),
        info_len: 4,
        ..IterLinkAttr::default()
    };
    // SAFETY: the layout of this command; the kernel reads the four bytes of `map`, which outlives
    // the call.
    let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What an iterator writes, once through its map. Minimum kernel: 5.8.
pub(crate) fn iterate(link: BorrowedFd<'_>) -> io::Result<File> {
    let mut attr = IterCreateAttr {
        link_fd: number(link),
        flags: 0,
    };
    // SAFETY: the layout of this command; it holds no pointers.
    let fd = unsafe { bpf(ITER_CREATE, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Whether reading an iterator is to go on: after a million elements of which none was written, the kernel
/// wants to be asked again.
pub(crate) fn is_to_be_asked_again(error: &io::Error) -> bool {
    [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock].contains(&error.kind())
}

/// Replaces the program behind a link, at once for every packet. Minimum kernel: 5.7.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: number(link),
        new_prog_fd: number(program),
        ..LinkUpdateAttr::default()
    };
    // SAFETY: the layout of this command; it holds no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// Cuts a link off its target, whoever else holds it. Minimum kernel: 5.9.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr {
        link_fd: number(link),
    };
    // SAFETY: the layout of this command; it holds no pointers.
    unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
}

/// Minimum kernel: 5.8.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut head = LinkInfoHead::default();
    let mut attr = InfoAttr {
        bpf_fd: number(link),
        info_len: u32::try_from(mem::size_of::<LinkInfoHead>()).map_err(io::Error::other)?,
        info: address(std::ptr::from_mut(&mut head)),
    };
    // SAFETY: the layout of this command; the kernel writes at most `info_len` bytes to `head`,
    // which outlives the call and is valid whatever integers it holds.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let target = match head.kind {
        LINK_TYPE_CGROUP => LinkTarget::Cgroup(head.target),
        // The interface is the first half of these eight bytes, the attach type the second.
        LINK_TYPE_TCX => LinkTarget::Interface(first_half(head.target)),
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo {
        program: head.prog_id,
        target,
    })
}

/// The number of a map, program or link, which no other of its kind ever gets.
pub(crate) fn object_id(object: BorrowedFd<'_>) -> io::Result<u32> {
    let mut head = ObjectInfoHead::default();
    let mut attr = InfoAttr {
        bpf_fd: number(object),
        info_len: u32::try_from(mem::size_of::<ObjectInfoHead>()).map_err(io::Error::other)?,
        info: address(std::ptr::from_mut(&mut head)),
    };
    // SAFETY: the layout of this command; the kernel writes at most `info_len` bytes to `head`,
    // which outlives the call and is valid whatever integers it holds.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(head.id)
}

/// The key that follows `after` in a map, in the kernel's own order; the first if `after` is not
/// there or is `None`. `None` at the end.
///
/// # Safety
///
/// `K` must have the size of the map's keys.
pub(crate) unsafe fn next_key<K: aya::Pod>(
    map: BorrowedFd<'_>,
    after: Option<&K>,
) -> io::Result<Option<K>> {
    let mut next = mem::MaybeUninit::<K>::zeroed();
    let mut attr = MapElemAttr {
        map_fd: number(map),
        key: after.map_or(0, |after| address(std::ptr::from_ref(after))),
        value: address(next.as_mut_ptr()),
        ..MapElemAttr::default()
    };
    // SAFETY: the layout of this command. The kernel reads and writes one key, which the caller
    // says is of the size of `K`; both places outlive the call.
    match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) } {
        // SAFETY: the kernel has written it, and any bytes are a valid `Pod`.
        Ok(_) => Ok(Some(unsafe { next.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the kernel has written of a batch of entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) entries: usize,
    /// Where the next one begins, unless this is the last.
    pub(crate) next: Option<u32>,
}

/// Entries of a hash map from `from` on, or from its beginning, whole buckets at a time. Since 5.6.
///
/// # Errors
///
/// `ENOSPC` if there is room for less than a bucket.
///
/// # Safety
///
/// `K` and `V` must have the sizes of the map's keys and values.
pub(crate) unsafe fn lookup_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    entries: (&mut [mem::MaybeUninit<K>], &mut [mem::MaybeUninit<V>]),
) -> io::Result<Batch> {
    let (keys, values) = entries;
    let room = keys.len().min(values.len());
    let mut next = 0_u32;
    let mut attr = MapBatchAttr {
        in_batch: from.as_ref().map_or(0, |from| address(from)),
        out_batch: address(std::ptr::from_mut(&mut next)),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: u32::try_from(room).map_err(io::Error::other)?,
        map_fd: number(map),
        ..MapBatchAttr::default()
    };
    // SAFETY: the layout of this command. The kernel writes at most `count` keys and values, for which there is
    // room by what the caller says of their sizes, and a place of a hash map, which has four bytes.
    let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
    let entries = usize::try_from(attr.count).map_err(io::Error::other)?;
    match result {
        Ok(_) => Ok(Batch {
            entries,
            next: Some(next),
        }),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Batch {
            entries,
            next: None,
        }),
        Err(error) => Err(error),
    }
}

fn first_half(eight: u64) -> u32 {
    let [a, b, c, d, ..] = eight.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Makes an array of one 32-bit value, or of one map like `inner`.
pub(crate) fn array_of_one(inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;
    let mut attr = MapCreateAttr {
        map_type: inner.map_or(ARRAY, |_| ARRAY_OF_MAPS),
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: inner.map_or(0, number),
    };
    // SAFETY: the attributes are those of this command.
    let fd = unsafe { bpf(MAP_CREATE, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts `inner` into an array of maps.
pub(crate) fn put_inner(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0_u32, number(inner));
    let mut attr = MapElemAttr {
        map_fd: number(outer),
        key: address(&raw const key),
        value: address(&raw const value),
        ..MapElemAttr::default()
    };
    // SAFETY: the attributes are those of this command; key and value live until it returns.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Gives an object a name on a bpf filesystem.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: address(name.as_ptr()),
        bpf_fd: number(object),
        file_flags: 0,
    };
    // SAFETY: the layout of this command; the path ends with a zero and outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: address(name.as_ptr()),
        ..ObjAttr::default()
    };
    // SAFETY: the layout of this command; the path ends with a zero and outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Programs of an interface's chain, in the order in which they run. Minimum kernel: 6.6; EINVAL
/// before.
pub(crate) fn programs_of_interface(index: u32, attach_type: AttachType) -> io::Result<Vec<u32>> {
    // The kernel allows no more than 63 in a chain.
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target: index,
        attach_type: attach_type as u32,
        prog_ids: address(ids.as_mut_ptr()),
        count: 64,
        ..QueryAttr::default()
    };
    // SAFETY: the layout of this command; the kernel writes at most `count` integers to `ids`, which
    // outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.count).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(count).collect())
}

/// Whether the kernel knows links to cgroups: it then finds the descriptors bad, not the command.
pub(crate) fn knows_links() -> bool {
    let mut attr = LinkCreateAttr {
        prog_fd: u32::MAX,
        target: u32::MAX,
        ..LinkCreateAttr::default()
    };
    // SAFETY: the layout of this command; it holds no pointers, and no such descriptor exists.
    let result = unsafe { bpf(LINK_CREATE, &mut attr) };
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EBADF))
}
