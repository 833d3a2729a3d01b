//! Debian's packages: which, what for, and how they are installed.

use anyhow::{Context as _, Result, bail};

use super::Mode;
use crate::shell;

/// A program that something here calls, and the package that has it.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    pub(super) why: &'static str,
}

/// What the build and the tests call. A test that needs another program adds its row.
pub(super) const TOOLS: [Tool; 5] = [
    Tool {
        program: "cc",
        package: "gcc",
        why: "Rust links host binaries with it",
    },
    Tool {
        program: "c++",
        package: "g++",
        why: "`cargo xtask fuzz` builds libFuzzer with it",
    },
    Tool {
        program: "git",
        package: "git",
        why: "`cargo xtask lint` asks it which files are ours",
    },
    Tool {
        program: "ip",
        package: "iproute2",
        why: "the tests and the demo make namespaces, links and addresses with it",
    },
    Tool {
        program: "python3",
        package: "python3",
        why: "the tour of README.md serves a page with it",
    },
];

/// What root's tests and benchmarks call beside them. They lie where nobody else looks for programs.
pub(super) const PRIVILEGED: [Tool; 2] = [
    Tool {
        program: "nft",
        package: "nftables",
        why: "the tests lead Services to backends with it, and `cargo xtask bench wire` holds ringfence against it",
    },
    Tool {
        program: "mkfs.ext4",
        package: "e2fsprogs",
        why: "the tests make a disk with it that fails",
    },
];

/// What the tests call, beside them, once.
pub(super) const PYTHON: [Tool; 1] = [Tool {
    program: "pip3",
    package: "python3-pip",
    why: "fetches DuckDB and pyarrow, which the tests hold against files of Parquet",
}];

/// What `cargo xtask vm-test` calls beside them.
pub(super) const VIRTUAL_MACHINES: [Tool; 5] = [
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "boots another kernel, by emulation where there is nothing better",
    },
    Tool {
        program: "modprobe",
        package: "kmod",
        why: "tells which modules a module needs, and in which order",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "newer kernel packages have their modules packed",
    },
    Tool {
        program: "strip",
        package: "binutils",
        why: "a guest has its files in memory, so they go without debug information",
    },
    Tool {
        program: "setpriv",
        package: "util-linux",
        why: "a guest gets the programs that the tests call",
    },
];

/// What `cargo xtask kubernetes` calls beside them. All else of a cluster is unpacked into a cache of its own.
pub(super) const CLUSTER: [Tool; 5] = [
    Tool {
        program: "dpkg-source",
        package: "dpkg-dev",
        why: "Kubernetes comes as Debian's source package",
    },
    Tool {
        program: "make",
        package: "make",
        why: "the source of Kubernetes is built with it",
    },
    Tool {
        program: "rsync",
        package: "rsync",
        why: "the build of Kubernetes copies its generated files with it",
    },
    Tool {
        program: "openssl",
        package: "openssl",
        why: "makes the certificates of a cluster",
    },
    Tool {
        program: "nsenter",
        package: "util-linux",
        why: "enters the namespaces of a cluster's node",
    },
];

/// Packages that must be of the same release: the one on the right, if it is here in another, keeps apt from
/// having the one on the left.
const COMPANIONS: [(&str, &str); 1] = [("qemu-system-x86", "qemu-utils")];

/// A compiler with library source. The LLVM beside it follows from the version it reports.
pub(super) const COMPILER: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", CLIPPY];
/// Clippy for that compiler: the kernel side is linted for its own target.
pub(super) const CLIPPY: &str = "rust-web-clippy";

pub(super) fn is_here() -> bool {
    shell::find("apt-get").is_some()
}

/// Installs packages that are known to be missing.
///
/// # Errors
/// If this is not Debian, not root, or apt refuses; each with the command to run instead. In
/// [`Mode::DryRun`] always, because something is missing.
pub(super) fn install(packages: &[&str], mode: Mode) -> Result<()> {
    let list = packages.join(" ");
    if !is_here() {
        bail!("not a Debian system; install what Debian calls: {list}");
    }
    if mode == Mode::DryRun {
        bail!("to be installed with apt-get: {list}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("packages are installed by root; run: apt-get update && apt-get install {list}");
    }
    let apt = || {
        let mut command = shell::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::run(apt().arg("update"))?;
    // `--no-remove`: rather fail than replace the user's own compiler package.
    shell::run(
        apt()
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(packages)
            .args(companions(packages)?),
    )
    .with_context(|| format!("failed to install {list} (is this Debian 12 with its updates?)"))
}

/// What else apt is to be told, so that it can have `packages`.
fn companions(packages: &[&str]) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for (package, companion) in COMPANIONS {
        if packages.contains(&package) && is_installed(companion) {
            let release = release(package)?;
            eprintln!("setup: {companion} becomes {release}, as {package} is to be");
            arguments.extend([
                "--allow-downgrades".to_owned(),
                format!("{companion}={release}"),
            ]);
        }
    }
    Ok(arguments)
}

/// The release of a package that apt would install.
fn release(package: &str) -> Result<String> {
    let mut show = shell::command("apt-cache");
    let shown = shell::output(show.args(["show", "--no-all-versions", package]))?;
    let release = shown
        .lines()
        .find_map(|line| line.strip_prefix("Version: "));
    let release = release.with_context(|| format!("apt knows no release of {package}"))?;
    Ok(release.to_owned())
}

fn is_installed(package: &str) -> bool {
    let mut query = shell::command("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    shell::output(&mut query).is_ok_and(|status| status == "installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_says_what_it_is_for() {
        for Tool {
            program,
            package,
            why,
        } in TOOLS
            .iter()
            .chain(&VIRTUAL_MACHINES)
            .chain(&CLUSTER)
            .chain(&PRIVILEGED)
            .chain(&PYTHON)
        {
            assert!(
                !program.is_empty() && !package.is_empty() && why.len() > 20,
                "{program}"
            );
        }
    }

    #[test]
    fn a_dry_run_installs_nothing_and_names_the_packages() {
        let error = install(&["no-such-package"], Mode::DryRun)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-package"), "{error}");
    }
}
