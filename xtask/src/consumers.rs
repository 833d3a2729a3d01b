//! Programs of others that read what ringfence writes, so that tests hold it against them.
//!
//! They are unpacked below target/consumers and not installed: the package of a server would start it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{apt::Apt, setup, shell};

/// Packages of programs. What libraries they need beside those of the machine, apt finds out.
const PACKAGES: [&str; 5] = [
    "nfdump",
    "prometheus",
    "rsyslog",
    "rsyslog-gnutls",
    "tshark",
];
/// Packages of Python, for programs of the tests that read by libraries of others.
const MODULES: [&str; 4] = [
    "duckdb==2.0.*",
    "grpcio==1.85.3",
    "opentelemetry-proto==1.45.2",
    "pyarrow==26.*",
];
const FOLDER: &str = "target/consumers";
/// In FOLDER: what the machine has of Python stays as it is.
const PYTHON: &str = "python";
/// Says which packages are there.
const COMPLETE: &str = "complete";

/// The folder of their programs. `None` where they cannot be had because a mirror is down: the tests that need them skip
/// themselves then, and this says why.
pub(crate) fn ready() -> Result<Option<PathBuf>> {
    let folder = shell::root().join(FOLDER);
    // This first: it begins with an empty folder.
    let have = [programs(&folder)?, modules(&folder.join(PYTHON))?];
    Ok(have.contains(&true).then(|| folder.join("usr/bin")))
}

fn programs(folder: &Path) -> Result<bool> {
    let mark = folder.join(COMPLETE);
    let wanted = PACKAGES.join("\n");
    if is_marked(&mark, &wanted) {
        return Ok(true);
    }
    empty(folder)?;
    let apt = Apt::of_machine();
    let download = || {
        let mut packages: Vec<_> = PACKAGES.map(str::to_owned).into();
        packages.extend(libraries(&apt.lacking(&PACKAGES)?));
        apt.download(&packages, folder)
    };
    // Its lists may be of a day when the mirror had others.
    let files = match download().or_else(|_| apt.update().and_then(|()| download())) {
        Ok(files) => files,
        Err(error) => return Ok(is_missing(&wanted, &error)),
    };
    for file in files {
        let mut dpkg = shell::command("dpkg");
        shell::run(dpkg.arg("--extract").arg(&file).arg(folder))?;
        fs::remove_file(&file).context("cannot remove a package that is unpacked")?;
    }
    set_mark(&mark, &wanted)
}

fn modules(folder: &Path) -> Result<bool> {
    let mark = folder.join(COMPLETE);
    let wanted = MODULES.join("\n");
    if is_marked(&mark, &wanted) {
        return Ok(true);
    }
    empty(folder)?;
    setup::ensure_python()?;
    let mut pip = shell::command("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
    pip.args(["install", "--only-binary=:all:", "--target"]);
    let fetched = shell::run(pip.arg(folder).args(MODULES));
    match fetched {
        Ok(()) => set_mark(&mark, &wanted),
        Err(error) => {
            // Tests would take a Python without modules for one that has them.
            empty(folder)?;
            Ok(is_missing(&wanted, &error))
        }
    }
}

fn is_marked(mark: &Path, wanted: &str) -> bool {
    fs::read_to_string(mark).is_ok_and(|there| there == wanted)
}

fn set_mark(mark: &Path, wanted: &str) -> Result<bool> {
    fs::write(mark, wanted).context("cannot mark programs as complete")?;
    Ok(true)
}

/// A package that was left behind halfway would be taken for one that was asked for.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn is_missing(wanted: &str, error: &anyhow::Error) -> bool {
    eprintln!("test: {wanted} cannot be had, and tests that need it skip themselves: {error:#}");
    false
}

/// Of these packages those that programs are linked with.
fn libraries(packages: &[String]) -> impl Iterator<Item = String> {
    let names = packages.iter().cloned();
    names.filter(|name| name.starts_with("lib") && !name.starts_with("libjs-"))
}
