//! Programs at an interface that is a workload's, when nobody knows yet which one's.
//!
//! They are those of endpoints: the table of interfaces makes the difference. So an endpoint that turns
//! up takes over what hangs there, and no packet meets neither.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use agent_common::table::Endpoint;

use crate::datapath::{
    attach::{
        AttachError, Attached, Programs, Target, TcHook,
        entry::{Filters, entries, fields, shown},
        failed, link_to, make_clsact, put_filters, release_filters, remove_filters,
    },
    bpffs::BpfDir,
    pin,
};

/// Attaches to both directions of an interface, or takes over what hangs there.
///
/// # Errors
///
/// One direction may then be attached: calling again, or [`release`], is right.
pub fn attach(
    dir: &BpfDir,
    index: u32,
    hook: TcHook,
    programs: Programs<'_>,
) -> Result<Attached, AttachError> {
    let ids = programs.ids()?;
    let (outcome, links) = match hook {
        TcHook::Tcx => {
            let linked = link_to(pins(dir, index), index, programs)?;
            remove_filters(dir, |filters| is_at(*filters, index))?;
            linked
        }
        TcHook::Clsact => {
            make_clsact(dir, index)?;
            let outcome = put_filters(dir, Endpoint::NOBODY.id, index, programs)?;
            release_links(dir, index)?;
            (outcome, Vec::new())
        }
    };
    Ok(Attached {
        endpoint: Endpoint::NOBODY.id,
        target: Target::Interface { index, hook },
        outcome,
        programs: ids,
        links,
        unsecured: None,
    })
}

/// Takes off what is attached there, unless an endpoint has taken it over. An interface that is gone has
/// taken it along.
pub fn release(dir: &BpfDir, index: u32) -> Result<(), AttachError> {
    release_links(dir, index)?;
    release_filters(dir, |filters| is_at(*filters, index))
}

/// The interfaces where something is attached, by whichever agent of the folder.
pub fn attached(dir: &BpfDir) -> Result<BTreeSet<u32>, AttachError> {
    let entries = entries(dir)?;
    Ok(entries.iter().filter_map(|path| index_of(path)).collect())
}

pub(super) fn pins(dir: &BpfDir, index: u32) -> [PathBuf; 2] {
    ["from", "to"].map(|side| dir.links().join(format!("unknown-{index}-{side}")))
}

fn release_links(dir: &BpfDir, index: u32) -> Result<(), AttachError> {
    for pin in pins(dir, index) {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    Ok(())
}

fn is_at(filters: Filters, index: u32) -> bool {
    filters.endpoint == Endpoint::NOBODY.id && filters.index == index
}

fn index_of(path: &Path) -> Option<u32> {
    if let ["unknown", index, _] = fields(path)?.as_slice() {
        return index.parse().ok();
    }
    let filters = Filters::at(path)?;
    (filters.endpoint == Endpoint::NOBODY.id).then_some(filters.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_interface() {
        let index = |name: &str| index_of(Path::new(name));
        assert_eq!(index("/links/unknown-17-from"), Some(17));
        assert_eq!(index("/links/tc-0-17"), Some(17));
        assert_eq!(index("/links/tc-0-17-2"), Some(17));
        for other in [
            "unknown-17",
            "unknown-x-to",
            "tc-3-17",
            "if-0-from",
            "out-17",
        ] {
            assert_eq!(index(other), None, "{other}");
        }
    }
}
