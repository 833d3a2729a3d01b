//! Programs of others that read what ringfence writes, so that tests hold it against them.
//!
//! They are unpacked below target/consumers and not installed: the package of a server would start it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{apt::Apt, shell};

/// Packages of programs. What libraries they need beside those of the machine, apt finds out.
const PACKAGES: [&str; 5] = [
    "nfdump",
    "prometheus",
    "rsyslog",
    "rsyslog-gnutls",
    "tshark",
];
const FOLDER: &str = "target/consumers";
/// Says which packages are there.
const COMPLETE: &str = "complete";

/// The folder of their programs. `None` where they cannot be had because a mirror is down: the tests that need them skip
/// themselves then, and this says why.
pub(crate) fn ready() -> Result<Option<PathBuf>> {
    let folder = shell::root().join(FOLDER);
    let programs = folder.join("usr/bin");
    let mark = folder.join(COMPLETE);
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
        return Ok(Some(programs));
    }
    // A package that was left behind halfway would be taken for one that was asked for.
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let apt = Apt::of_machine();
    let download = || {
        let mut packages: Vec<_> = PACKAGES.map(str::to_owned).into();
        packages.extend(libraries(&apt.lacking(&PACKAGES)?));
        apt.download(&packages, &folder)
    };
    // Its lists may be of a day when the mirror had others.
    let files = match download().or_else(|_| apt.update().and_then(|()| download())) {
        Ok(files) => files,
        Err(error) => {
            eprintln!(
                "test: {wanted} cannot be had, and tests that need it skip themselves: {error:#}"
            );
            return Ok(None);
        }
    };
    for file in files {
        let mut dpkg = shell::command("dpkg");
        shell::run(dpkg.arg("--extract").arg(&file).arg(&folder))?;
        fs::remove_file(&file).context("cannot remove a package that is unpacked")?;
    }
    fs::write(&mark, wanted).context("cannot mark programs as complete")?;
    Ok(Some(programs))
}

/// Of these packages those that programs are linked with.
fn libraries(packages: &[String]) -> impl Iterator<Item = String> {
    let names = packages.iter().cloned();
    names.filter(|name| name.starts_with("lib") && !name.starts_with("libjs-"))
}
