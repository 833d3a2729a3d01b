//! Kernels of Debian: found, fetched and unpacked below target/vm, never installed.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{apt::Apt, shell};

/// The oldest kernel that is supported.
pub(crate) const OLDEST: Series = Series {
    major: 5,
    minor: 10,
};
/// The newest that is tested.
pub(crate) const NEWEST: Series = Series {
    major: 6,
    minor: 18,
};

/// A line of kernels, such as 5.10: the newest of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    major: u32,
    minor: u32,
}

/// A kernel that is on this machine, to be booted.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    release: String,
    folder: PathBuf,
}

/// Why a kernel cannot be had at this time: nothing that is wrong here.
#[derive(Debug)]
pub(crate) struct Unavailable {
    series: Series,
    why: String,
}

/// What the tests need of a kernel beyond its image; each with what it depends on.
const MODULES: [&str; 18] = [
    "veth",
    "bridge",
    "dummy",
    "sch_ingress",
    "cls_bpf",
    "act_gact",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "netlink_diag",
    "unix_diag",
    "overlay",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "8021q",
];
const FOLDER: &str = "target/vm";
/// Written when all else is in place.
const COMPLETE: &str = "complete";

impl Series {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) =
            numbers.ok_or_else(|| format!("`{text}` is no series of kernels such as 5.10"))?;
        Ok(Self { major, minor })
    }

    /// Where Debian keeps it, if not where this machine's packages come from.
    fn suite(self) -> &'static str {
        match (self.major, self.minor) {
            (5, 10) => "bullseye-security",
            (6, 1) => "bookworm-security",
            (6, 12) => "trixie-security",
            _ => "trixie-backports",
        }
    }

    /// Whether a package is an image of this series, for virtual machines: small, and with all of its
    /// drivers in one package.
    fn has(self, package: &str) -> bool {
        let version = package
            .strip_prefix("linux-image-")
            .and_then(|rest| rest.strip_suffix("-cloud-amd64"));
        let numbers = version.and_then(|version| {
            let rest = version.strip_prefix(&self.to_string())?;
            // Of what follows at least one more number, else it is a package that only names another.
            rest.strip_prefix(['.', '-'])
        });
        numbers.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor } = self;
        write!(f, "{major}.{minor}")
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} cannot be fetched: {}", self.series, self.why)
    }
}

impl std::error::Error for Unavailable {}

impl Kernel {
    /// The newest kernel of a series, from the last time or from a mirror.
    ///
    /// # Errors
    /// The outer one if what was fetched cannot be unpacked.
    pub(crate) fn fetch(series: Series) -> Result<Result<Self, Unavailable>> {
        let folder = shell::root().join(FOLDER).join(series.to_string());
        if !folder.join(COMPLETE).exists() {
            empty(&folder)?;
            let packages = match download(series, &folder) {
                Ok(packages) => packages,
                Err(error) => {
                    let why = format!("{error:#}");
                    return Ok(Err(Unavailable { series, why }));
                }
            };
            unpack(&folder, &packages)?;
            fs::write(folder.join(COMPLETE), "").context("cannot mark a kernel as complete")?;
        }
        let release = release(&folder)?;
        eprintln!("vm-test: kernel {series}: {release}");
        Ok(Ok(Self { release, folder }))
    }

    /// # Errors
    /// If the package had none where Debian's packages have theirs.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let Self {
            folder, release, ..
        } = self;
        let places = [
            format!("boot/vmlinuz-{release}"),
            format!("lib/modules/{release}/vmlinuz"),
        ];
        let mut files = places.map(|place| folder.join(place)).into_iter();
        let image = files.find(|file| file.is_file());
        image.with_context(|| format!("{release} has no image in {}", folder.display()))
    }

    /// A folder for what belongs to this kernel.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The content of each module that the tests need, in the order in which they are to be loaded.
    pub(crate) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for module in MODULES {
            let mut modprobe = shell::command("modprobe");
            modprobe.arg("--dirname").arg(&self.folder);
            modprobe.args(["--set-version", &self.release, "--config", "/dev/null"]);
            modprobe.args(["--show-depends", module]);
            // `insmod PATH` for each, or `builtin NAME`.
            for line in shell::output(&mut modprobe)?.lines() {
                let Some(file) = line.strip_prefix("insmod ") else {
                    continue;
                };
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files.iter().map(|file| module(file)).collect()
    }
}

/// Name and content of a module, unpacked.
fn module(file: &Path) -> Result<(String, Vec<u8>)> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("no name: {}", file.display()))?;
    let Some(name) = name.strip_suffix(".xz") else {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok((name.to_owned(), content));
    };
    let mut xz = shell::command("xz");
    let unpacked = xz.args(["--decompress", "--stdout"]).arg(file).output();
    let unpacked = unpacked.context("cannot run xz")?;
    if !unpacked.status.success() {
        bail!("xz cannot unpack {}", file.display());
    }
    Ok((name.to_owned(), unpacked.stdout))
}

/// Downloads what the newest kernel consists of, and returns the files.
fn download(series: Series, folder: &Path) -> Result<Vec<PathBuf>> {
    let machine = Apt::of_machine();
    if let Some(packages) = newest(series, &machine)? {
        match machine.download(&packages, folder) {
            Ok(files) => return Ok(files),
            // Its lists may be of a day when the mirror had others.
            Err(error) => eprintln!("vm-test: {error:#}"),
        }
    }
    let suite = series.suite();
    eprintln!("vm-test: kernel {series} is looked for in {suite}");
    let apt = Apt::of_suite(suite, folder)?;
    apt.update()?;
    let packages = newest(series, &apt)?;
    let packages = packages.with_context(|| format!("{suite} has none"))?;
    apt.download(&packages, folder)
}

/// The packages of the newest kernel: one, or in Debian's newer packages image and modules apart.
fn newest(series: Series, apt: &Apt) -> Result<Option<Vec<String>>> {
    let mut images = apt.packages("linux-image-")?;
    images.retain(|package| series.has(package));
    let Some(image) = images
        .into_iter()
        .max_by_key(|package| version_key(package))
    else {
        return Ok(None);
    };
    let version = image.replacen("linux-image-", "", 1);
    let modules = format!("linux-modules-{version}");
    if apt.packages(&modules)?.contains(&modules) {
        return Ok(Some(vec![format!("linux-binary-{version}"), modules]));
    }
    Ok(Some(vec![image]))
}

/// The numbers of a name, to be compared one by one.
fn version_key(package: &str) -> Vec<u32> {
    package
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn unpack(folder: &Path, packages: &[PathBuf]) -> Result<()> {
    for package in packages {
        let mut dpkg = shell::command("dpkg");
        shell::run(dpkg.arg("--extract").arg(package).arg(folder))?;
        fs::remove_file(package).context("cannot remove a package that is unpacked")?;
    }
    // Tools look below /lib, where newer packages have nothing.
    if !folder.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", folder.join("lib"))
            .context("cannot link lib to usr/lib")?;
    }
    let mut depmod = shell::command("depmod");
    shell::run(depmod.arg("--basedir").arg(folder).arg(release(folder)?))
}

/// The one kernel in a folder.
fn release(folder: &Path) -> Result<String> {
    let modules = folder.join("lib/modules");
    let mut entries =
        fs::read_dir(&modules).with_context(|| format!("no {}", modules.display()))?;
    let name = entries.find_map(|entry| entry.ok()?.file_name().into_string().ok());
    name.with_context(|| format!("no kernel in {}", modules.display()))
}

fn empty(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_of_its_series_alone() {
        let of = |series: &str, package: &str| Series::parse(series).unwrap().has(package);
        assert!(of("5.10", "linux-image-5.10.0-39-cloud-amd64"));
        assert!(of("6.1", "linux-image-6.1.0-56-cloud-amd64"));
        assert!(of("6.12", "linux-image-6.12.117+deb12-cloud-amd64"));
        assert!(!of("6.1", "linux-image-6.12.117+deb12-cloud-amd64"));
        assert!(!of("6.12", "linux-image-6.12-cloud-amd64"), "names another");
        assert!(!of("6.12", "linux-image-6.12.117+deb12-amd64"));
        assert!(!of("6.1", "linux-image-6.1.0-56-cloud-amd64-unsigned"));
    }

    #[test]
    fn the_newest_is_told_by_numbers() {
        let key = version_key;
        assert!(key("linux-image-6.12.117+deb12") > key("linux-image-6.12.99+deb12"));
        assert!(key("linux-image-6.1.0-56-cloud") > key("linux-image-6.1.0-9-cloud"));
    }

    #[test]
    fn a_series_has_two_numbers() {
        assert_eq!(Series::parse("5.10").unwrap(), OLDEST);
        assert_eq!(OLDEST.to_string(), "5.10");
        for wrong in ["5", "attach", "5.10.3", ""] {
            assert!(Series::parse(wrong).is_err(), "{wrong}");
        }
    }
}
