//! Packages of Debian that are fetched to be unpacked somewhere, and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::shell;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with the machine's sources, or with one source and a state of its own: the machine's stays.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(crate) fn of_machine() -> Self {
        Self {
            options: Vec::new(),
        }
    }

    pub(crate) fn of_suite(suite: &str, folder: &Path) -> Result<Self> {
        let state = folder.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(part)).context("cannot make a folder for apt")?;
        }
        let mirror = mirror()?;
        let mirror = mirror.trim_end_matches('/');
        let security = if suite.ends_with("-security") {
            "-security"
        } else {
            ""
        };
        let source = format!("deb [signed-by={KEYRING}] {mirror}{security} {suite} main\n");
        let list = state.join("sources.list");
        fs::write(&list, source).context("cannot write a list of sources")?;
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", state.join("lists").display()),
            format!("Dir::Cache={}", state.join("cache").display()),
        ];
        Ok(Self {
            options: options.into(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = shell::command(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        // The user that apt would fetch as need not be able to write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    /// # Errors
    /// Also if a source cannot be reached: by itself, apt would be content with what it has.
    pub(crate) fn update(&self) -> Result<()> {
        let mut apt = self.command("apt-get");
        shell::run(apt.args(["--quiet=2", "--error-on=any", "update"]))
    }

    /// Names that begin so.
    pub(crate) fn packages(&self, start: &str) -> Result<Vec<String>> {
        let names = shell::output(self.command("apt-cache").args(["pkgnames", start]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// What would be installed with these packages, and is not there.
    pub(crate) fn lacking(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut apt = self.command("apt-get");
        apt.args(["--simulate", "--no-install-recommends", "install"]);
        let told = shell::output(apt.args(packages))?;
        let installed = told.lines().filter_map(|line| line.strip_prefix("Inst "));
        let names = installed.filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    pub(crate) fn download(&self, packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
        let mut apt = self.command("apt-get");
        apt.current_dir(folder);
        shell::run(apt.args(["--quiet=2", "download"]).args(packages))?;
        let entries = fs::read_dir(folder).context("cannot list a folder")?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files: Vec<_> = files
            .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        ensure!(files.len() == packages.len(), "apt-get left {files:?}");
        Ok(files)
    }
}

/// The mirror of Debian that this machine uses.
fn mirror() -> Result<String> {
    let known = || {
        let mut apt = shell::command("apt-get");
        apt.args(["indextargets", "--format", "$(ORIGIN) $(REPO_URI)"]);
        let sources = shell::output(&mut apt)?;
        let mut mirrors = sources
            .lines()
            .filter_map(|line| line.strip_prefix("Debian "));
        let mirror = mirrors.find(|address| !address.contains("security"));
        anyhow::Ok(mirror.map(str::to_owned))
    };
    if let Some(mirror) = known()? {
        return Ok(mirror);
    }
    // Whose a source is, apt knows from what it has fetched of it.
    shell::run(shell::command("apt-get").args(["--quiet=2", "update"]))?;
    known()?.context("no source of Debian is configured")
}
