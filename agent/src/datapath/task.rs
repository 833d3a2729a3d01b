//! Where the kernel keeps what no helper of it tells, found in its own types (BTF).
//!
//! The layout is that of the kernel's `uapi/linux/btf.h`.

use std::{fs, io};

/// The kernel's types, of itself. Since 5.4.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
/// The last kind that is known here: of a later one, nobody knows how long it is.
const LAST: u32 = ENUM64;

/// Bytes of every type's head, and of a member.
const HEAD: usize = 12;

/// How deep structs without a name may lie within each other.
const DEPTH: u32 = 8;

/// Bytes from the begin of a `task_struct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// To the pointer to its process: the first of its threads.
    pub(crate) process: u32,
    /// To when it began, of the boot clock. Since 5.5.
    pub(crate) started: u32,
}

/// Of the running kernel.
pub(crate) fn offsets() -> io::Result<Offsets> {
    let bytes = fs::read(TYPES)?;
    find(&bytes).ok_or_else(|| io::Error::other(format!("{TYPES} says nothing of a task's begin")))
}

fn find(bytes: &[u8]) -> Option<Offsets> {
    let types = Types::read(bytes)?;
    let task = types.structure("task_struct")?;
    Some(Offsets {
        process: types.member(task, "group_leader", DEPTH)?,
        started: types.member(task, "start_boottime", DEPTH)?,
    })
}

struct Types<'b> {
    /// Where each type begins in `section`; the first has number 1.
    starts: Vec<usize>,
    section: &'b [u8],
    strings: &'b [u8],
}

impl<'b> Types<'b> {
    fn read(bytes: &'b [u8]) -> Option<Self> {
        if bytes.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let body = bytes.get(size(word(bytes, 4)?)?..)?;
        let part = |start: u32, length: u32| body.get(size(start)?..)?.get(..size(length)?);
        let section = part(word(bytes, 8)?, word(bytes, 12)?)?;
        let strings = part(word(bytes, 16)?, word(bytes, 20)?)?;
        let mut starts = Vec::new();
        let mut at = 0;
        while at < section.len() {
            starts.push(at);
            at += HEAD + behind(word(section, at + 4)?)?;
        }
        Some(Self {
            starts,
            section,
            strings,
        })
    }

    fn structure(&self, name: &str) -> Option<usize> {
        let mut starts = self.starts.iter().copied();
        starts.find(|&at| {
            let is_struct = word(self.section, at + 4).is_some_and(|info| kind(info) == STRUCT);
            is_struct && self.name(at) == Some(name.as_bytes())
        })
    }

    /// Bytes from the begin of a struct or union to a member of it, or of one without a name in it.
    fn member(&self, at: usize, name: &str, depth: u32) -> Option<u32> {
        let info = word(self.section, at + 4)?;
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        let members = (0..size(info & 0xffff)?).map(|number| at + HEAD * (number + 1));
        for member in members {
            let bits = word(self.section, member + 8)?;
            // Where some members are bit fields, the upper byte is their size.
            let bits = if info >> 31 == 0 {
                bits
            } else {
                bits & 0x00ff_ffff
            };
            let found = match self.name(member)? {
                [] => {
                    let inner = size(word(self.section, member + 4)?)?.checked_sub(1)?;
                    let inner = self.starts.get(inner).filter(|_| depth > 0);
                    inner.and_then(|&inner| self.member(inner, name, depth - 1))
                }
                own => (own == name.as_bytes()).then_some(0),
            };
            if let Some(found) = found {
                return Some(bits / 8 + found);
            }
        }
        None
    }

    fn name(&self, at: usize) -> Option<&'b [u8]> {
        let text = self.strings.get(size(word(self.section, at)?)?..)?;
        text.split(|byte| *byte == 0).next()
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Bytes that follow a type's head.
fn behind(info: u32) -> Option<usize> {
    let count = size(info & 0xffff)?;
    Some(match kind(info) {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
        ENUM | FUNC_PROTO => 8 * count,
        0..=LAST => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*word))
}

fn size(word: u32) -> Option<usize> {
    usize::try_from(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0task_struct\0group_leader\0start_boottime\0flags\0";

    fn name(text: &str) -> u32 {
        let place = STRINGS
            .windows(text.len() + 1)
            .position(|part| part.strip_suffix(b"\0") == Some(text.as_bytes()));
        u32::try_from(place.unwrap()).unwrap()
    }

    fn btf(types: &[u32]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (length, strings) = (types.len(), STRINGS.len());
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, length, length, strings] {
            bytes.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(STRINGS);
        bytes
    }

    #[test]
    fn members_are_found_behind_bit_fields_and_in_structs_without_a_name() {
        let bit_fields = 1 << 31;
        let types = [
            // 1: an integer, whose four bytes more must be skipped.
            [0, INT << 24, 8].as_slice(),
            &[64],
            // 2: a struct of the same name's beginning is not it.
            &[name("flags"), STRUCT << 24, 0],
            // 3: without a name.
            &[0, STRUCT << 24 | 2, 16],
            &[name("flags"), 1, 0],
            &[name("start_boottime"), 1, 64],
            // 4: the one that is looked for.
            &[name("task_struct"), bit_fields | STRUCT << 24 | 3, 48],
            &[name("flags"), 1, 3 << 24 | 5],
            &[0, 3, 128],
            &[name("group_leader"), 1, 256],
        ];
        let found = find(&btf(&types.concat()));
        let expected = Offsets {
            process: 32,
            started: 24,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn what_is_not_there_or_cut_off_or_unknown_is_not_found() {
        let task = [
            name("task_struct"),
            STRUCT << 24 | 1,
            8,
            name("flags"),
            1,
            0,
        ];
        assert_eq!(find(&btf(&task)), None);
        assert_eq!(find(&btf(&task[..4])), None);
        assert_eq!(find(&btf(&[0, 31 << 24, 0])), None);
        assert_eq!(find(b""), None);
        assert_eq!(find(&[0; 64]), None);
    }

    #[test]
    fn the_running_kernel_says_where_they_are() {
        if let Ok(offsets) = offsets() {
            assert!(offsets.process > 0 && offsets.started > 0, "{offsets:?}");
            assert_ne!(offsets.process, offsets.started);
        }
    }
}
