//! `cargo xtask image`: the agent as an OCI archive, from nothing but its binary.
//!
//! | module | holds |
//! |---|---|
//! | [`archive`] | the layer and the archive around it, as bytes |
//! | [`sbom`] | what the binary is made of |
//!
//! The same sources, compiler and C library give the same bytes: no time, no user and no path of the machine is in it.

mod archive;
mod sbom;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{build, build::Object, setup, shell};
use archive::{Image, Layer};

/// Build target/image/ringfence.tar, an OCI archive FROM scratch, and its SBOM beside it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the archive calls the image; may be repeated.
    #[arg(long = "name", value_name = "NAME:TAG")]
    names: Vec<String>,
    /// Put in this binary, linked statically, and build none.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Where everything of the image goes.
const FOLDER: &str = "target/image";
const ARCHIVE: &str = "ringfence.tar";
const SBOM: &str = "ringfence.cdx.json";
/// Texts that a binary must be given away with.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { names, binary } = args;
    setup::ensure()?;
    let names = if names.is_empty() {
        vec![format!("localhost/ringfence:{}", env!("CARGO_PKG_VERSION"))]
    } else {
        names.clone()
    };
    let archive = create(binary.as_deref(), &names)?;
    eprintln!("image: {} in {}", names.join(", "), archive.display());
    Ok(())
}

/// Builds the archive and returns its path.
pub(crate) fn create(binary: Option<&Path>, names: &[String]) -> Result<PathBuf> {
    let folder = shell::root().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let target = target()?;
    let binary = match binary {
        Some(binary) => binary.to_owned(),
        None => compile(&target, &folder)?,
    };
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let sbom = sbom::of_agent(&target)?;
    write(&folder.join(SBOM), &sbom)?;

    let mut layer = Layer::new();
    for (path, mode) in [
        ("tmp", 0o1777),
        ("run", 0o755),
        ("var", 0o755),
        ("var/lib", 0o755),
    ] {
        layer.folder(path, mode)?;
    }
    for licence in LICENCES {
        layer.file(licence, 0o644, &read(&shell::root().join(licence))?)?;
    }
    layer.file("ringfence", 0o755, &read(&binary)?)?;
    layer.file(SBOM, 0o644, &sbom)?;
    let image = Image {
        names,
        architecture: architecture(&target),
        version: env!("CARGO_PKG_VERSION"),
        entrypoint: "/ringfence",
        layer: layer.finish()?,
    };
    let path = folder.join(ARCHIVE);
    write(&path, &image.archive()?)?;
    Ok(path)
}

/// The release build, with the C library in it: the image has no loader.
fn compile(target: &str, folder: &Path) -> Result<PathBuf> {
    let object = build::object(Object::Release)?;
    // A folder of its own: with other flags, the usual one would be built anew each time.
    let own = folder.join("build");
    let mut cargo = shell::command("cargo");
    cargo
        .env("RINGFENCE_BPF_OBJECT", object)
        .env("RUSTFLAGS", flags()?)
        .args(["build", "--release", "--locked", "--package", "agent"])
        .args(build::FEATURES)
        .args(["--target", target, "--target-dir"])
        .arg(&own);
    shell::run(&mut cargo)?;

    let built = own.join(target).join("release/ringfence");
    let stripped = folder.join("ringfence");
    let mut strip = shell::command("strip");
    strip
        .arg("--strip-debug")
        .arg("-o")
        .arg(&stripped)
        .arg(built);
    shell::run(&mut strip)?;
    Ok(stripped)
}

/// Linked statically, and without the folders of this machine.
fn flags() -> Result<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    Ok(format!(
        "-Ctarget-feature=+crt-static --remap-path-prefix={}=/ringfence --remap-path-prefix={}=/cargo",
        shell::root().display(),
        home.display()
    ))
}

/// Of this machine, as rustc calls it. Named, so that what runs at build time is not linked the same way.
fn target() -> Result<String> {
    let said = shell::output(shell::command("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// As images have it.
fn architecture(target: &str) -> &str {
    match target.split('-').next() {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => other.unwrap_or(target),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
