//! A program at the way out of an interface, for what processes of the node send past its protocols.
//!
//! Of the folder's, not of an endpoint's: it asks whose process it is with each frame.

use std::{
    collections::BTreeSet,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use crate::datapath::{
    attach::{
        AttachError, TcHook,
        entry::{entries, fields, interface, mark, shown, unmark},
        failed, make_clsact, release_qdisc,
    },
    bpffs::BpfDir,
    pin::{self, Link},
    syscall::{self, AttachType, LinkTarget},
    tamper::Kind,
    tc::{self, Number, Side},
};

/// What hangs there. Dropping it detaches nothing.
#[derive(Debug)]
pub(crate) struct Outlet {
    index: u32,
    program: u32,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Link(PathBuf, Link),
    Filter(Number),
}

/// Attaches, or takes over what an earlier agent attached there.
pub(crate) fn attach(
    dir: &BpfDir,
    index: u32,
    hook: TcHook,
    program: BorrowedFd<'_>,
) -> Result<Outlet, AttachError> {
    let what = format!("a program to the way out of interface {index}");
    let hold = match hook {
        TcHook::Tcx => {
            let path = pin_of(dir, index);
            let target = LinkTarget::Interface(index);
            let create = || syscall::link_to_interface(program, index, AttachType::TcxEgress);
            let held = pin::hold(&path, target, program, create);
            let (_, link) = held.map_err(failed("attach", &what))?;
            Hold::Link(path, link)
        }
        TcHook::Clsact => Hold::Filter(put_filter(dir, index, &what, program)?),
    };
    Ok(Outlet {
        index,
        program: syscall::object_id(program).map_err(failed("ask for", "a program"))?,
        hold,
    })
}

fn put_filter(
    dir: &BpfDir,
    index: u32,
    what: &str,
    program: BorrowedFd<'_>,
) -> Result<Number, AttachError> {
    make_clsact(dir, index)?;
    let known = number_of(dir, index)?;
    let number = match known {
        Some(number) => number,
        None => tc::free_number(index).map_err(failed("ask for", what))?,
    };
    // The entry first: a filter without one would be forgotten if the agent dies in between.
    let entry = mark_of(dir, index, number);
    mark(&entry)?;
    let there = match known {
        Some(_) => tc::filter(index, Side::Egress, number).map_err(failed("ask for", what))?,
        None => None,
    };
    let put = match there {
        Some(_) => tc::replace_filter(index, Side::Egress, number, program),
        None => tc::add_filter(index, Side::Egress, number, program),
    };
    if let Err(error) = put {
        // Another agent may have been quicker to take the number.
        if there.is_none() {
            unmark(&entry)?;
        }
        return Err(failed("attach", what)(error));
    }
    Ok(number)
}

/// The interfaces where something is attached, by whichever agent of the folder.
pub(crate) fn attached(dir: &BpfDir) -> Result<BTreeSet<u32>, AttachError> {
    let entries = entries(dir)?;
    Ok(entries.iter().filter_map(|path| index_of(path)).collect())
}

/// Takes off what is attached there. An interface that is gone has taken it along.
pub(crate) fn release(dir: &BpfDir, index: u32) -> Result<(), AttachError> {
    let pin = pin_of(dir, index);
    if pin.exists() {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    if let Some(number) = number_of(dir, index)? {
        tc::remove_filter(index, Side::Egress, number)
            .map_err(failed("remove the filter of", interface(index)))?;
        unmark(&mark_of(dir, index, number))?;
        release_qdisc(dir, index)?;
    }
    Ok(())
}

impl Outlet {
    /// What has been done to it, of an interface that is there still.
    pub(crate) fn interference(&self, dir: &BpfDir) -> Result<Option<Kind>, AttachError> {
        let (program, is_named) = match &self.hold {
            Hold::Link(path, link) => {
                let info = link.info().map_err(failed("read", shown(path)))?;
                let is_there = info.target == LinkTarget::Interface(self.index);
                let is_named = link.is_at(path).map_err(failed("read", shown(path)))?;
                (is_there.then_some(info.program), is_named)
            }
            Hold::Filter(number) => {
                let filter = tc::filter(self.index, Side::Egress, *number)
                    .map_err(failed("read the filters of", interface(self.index)))?;
                let is_named = mark_of(dir, self.index, *number).is_dir();
                (filter.map(|filter| filter.program), is_named)
            }
        };
        Ok(match program {
            None => Some(Kind::Detached),
            Some(program) if program != self.program => Some(Kind::Replaced),
            Some(_) => (!is_named).then_some(Kind::Unpinned),
        })
    }

    /// Gives it its name back: a second link of one program is refused.
    pub(crate) fn name_again(&self, dir: &BpfDir) -> Result<(), AttachError> {
        match &self.hold {
            Hold::Link(path, link) => {
                if !link.is_at(path).map_err(failed("read", shown(path)))? {
                    link.name(path).map_err(failed("pin", shown(path)))?;
                }
                Ok(())
            }
            Hold::Filter(number) => mark(&mark_of(dir, self.index, *number)),
        }
    }
}

fn pin_of(dir: &BpfDir, index: u32) -> PathBuf {
    dir.links().join(format!("out-{index}"))
}

fn mark_of(dir: &BpfDir, index: u32, Number(number): Number) -> PathBuf {
    dir.links().join(format!("out-{index}-{number}"))
}

fn index_of(path: &Path) -> Option<u32> {
    match fields(path)?.as_slice() {
        ["out", index] | ["out", index, _] => index.parse().ok(),
        _ => None,
    }
}

/// Whether a filter of the folder's hangs there.
pub(super) fn has_filter(dir: &BpfDir, index: u32) -> Result<bool, AttachError> {
    Ok(number_of(dir, index)?.is_some())
}

/// The number of the folder's filter there.
fn number_of(dir: &BpfDir, of: u32) -> Result<Option<Number>, AttachError> {
    let entries = entries(dir)?;
    let mut numbers = entries
        .iter()
        .filter_map(|path| match fields(path)?.as_slice() {
            ["out", index, number] if index.parse() == Ok(of) => number.parse().ok(),
            _ => None,
        });
    Ok(numbers.next().map(Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_interface() {
        let index = |name: &str| index_of(Path::new(name));
        assert_eq!(index("/links/out-17"), Some(17));
        assert_eq!(index("/links/out-17-2"), Some(17));
        for other in ["out", "out-x", "out-17-2-1", "tc-3-17", "if-3-from"] {
            assert_eq!(index(other), None, "{other}");
        }
    }
}
