//! Files of the state folder.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

/// Whole or not at all.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let replaced = write(&new, content).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // Of a full disk, what was written takes room that others wait for.
        let _removed = fs::remove_file(&new).is_ok();
    }
    replaced
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}
