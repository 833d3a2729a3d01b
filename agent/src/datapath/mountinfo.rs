//! What is mounted where, from `/proc/thread-self/mountinfo`: threads may differ in what they see.

use std::{ffi::OsString, fs, io, os::unix::ffi::OsStringExt, path::PathBuf};

pub(crate) const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The folder of the filesystem that is seen at `point`; `/` unless a part is bound.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    pub(crate) fs_type: String,
}

/// Every mount of the calling thread's mount namespace, in the order in which they were made.
pub(crate) fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(MOUNTINFO)?))
}

/// Lines that do not have the form are left out: later kernels may only add fields.
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `id parent major:minor root point options [optional…] - type source super-options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = rest.next()?;
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (first, tail)
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &[u8] = b"\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 22 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate
40 22 0:30 /inner /mnt/with\\040space\\134x rw - bpf ringfence rw,mode=700
short line
41 22 0:31 / /mnt/with\\040space\\134x rw - tmpfs tmpfs rw
";

    #[test]
    fn optional_fields_and_escapes_are_read() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[1].fs_type, "cgroup2");
        assert_eq!(mounts[1].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[2].point, Path::new("/mnt/with space\\x"));
        assert_eq!(mounts[2].root, Path::new("/inner"));
    }
}
