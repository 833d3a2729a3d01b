//! `cargo xtask build`: the BPF object first, then the agent that embeds it.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    setup, shell,
    toolchain::{Compiler, Toolchain},
};

/// Build `target/debug/ringfence`, or `target/release/ringfence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimised, and without the BPF programs' log messages.
    #[arg(long)]
    pub(crate) release: bool,
}

/// The forms of the BPF object; all are optimised, because the verifier judges that code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// As it ships: no message, no trace.
    Release,
    /// With aya-log's messages.
    Debug,
    /// As it ships, and beside it the program that turns packets for the benchmark.
    Bench,
}

/// What the agent has beside the usual, wherever it is built here: files of Parquet.
pub(crate) const FEATURES: [&str; 2] = ["--features", "agent/parquet"];

/// BPF is built in the byte order of the host, where it will run.
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};
/// A target folder of its own: another compiler must not make the host's build stale.
const TARGET_DIR: &str = "target/bpf-build";

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    let mut host = shell::command("cargo");
    host.args(["build", "--package", "agent"]).args(FEATURES);
    if args.release {
        host.arg("--release");
    }
    object(if args.release {
        Object::Release
    } else {
        Object::Debug
    })?;
    shell::run(&mut host)
}

impl Object {
    /// Where `agent/build.rs` looks for it, relative to the workspace root.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Release => "target/bpf/ringfence.bpf.o",
            Self::Debug => "target/bpf/ringfence-debug.bpf.o",
            Self::Bench => "target/bpf/ringfence-bench.bpf.o",
        }
    }

    pub(crate) fn features(self) -> &'static [&'static str] {
        match self {
            Self::Release => &[],
            Self::Debug => &["--features", "trace"],
            Self::Bench => &["--features", "bench"],
        }
    }
}

/// Builds one form of the BPF object and returns its absolute path.
///
/// # Errors
/// If a tool is missing or the build fails; the object of an earlier build stays.
pub(crate) fn object(object: Object) -> Result<PathBuf> {
    let Toolchain { compiler, linker } = Toolchain::locate()?;
    shell::run(cargo_for_bpf(&compiler, "build", &linker).args(object.features()))?;

    let built = shell::root()
        .join(TARGET_DIR)
        .join(TARGET)
        .join("bpf/ringfence-bpf");
    let kept = shell::root().join(object.path());
    copy_if_changed(&built, &kept)?;
    Ok(kept)
}

/// The kernel wants types (BTF); bpf-linker makes them from debug information. Left to itself it also has every
/// structure zeroed and copied by calls of functions that go byte by byte: a quarter of all that the verifier
/// walks through.
const BPF_FLAGS: [&str; 4] = [
    "-Dwarnings",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
];

/// Cargo on the kernel side's crate, for its target, with warnings denied.
pub(crate) fn cargo_for_bpf(compiler: &Compiler, subcommand: &str, linker: &Path) -> Command {
    let mut cargo = compiler.cargo(subcommand);
    let linker_of_target = format!(
        "CARGO_TARGET_{}_LINKER",
        TARGET.to_ascii_uppercase().replace('-', "_")
    );
    cargo.env(linker_of_target, linker);
    cargo.env("RUSTFLAGS", BPF_FLAGS.join(" "));
    cargo.args([
        "--package",
        "agent-ebpf",
        "--profile",
        "bpf",
        "--target",
        TARGET,
    ]);
    cargo.args(["--target-dir", TARGET_DIR, "-Zbuild-std=core"]);
    cargo
}

/// Copies only other bytes: a fresh modification time would rebuild the agent.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
    match fs::read(to) {
        Ok(old) if old == new => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to read {}", to.display()));
        }
        Ok(_) | Err(_) => {}
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    fs::write(to, new).with_context(|| format!("failed to write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("below/to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let first = fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), first);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
    }

    #[test]
    fn the_two_objects_are_two_files() {
        assert_ne!(Object::Release.path(), Object::Debug.path());
        assert!(Object::Release.features().is_empty());
    }
}
