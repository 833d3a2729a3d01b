//! `cargo xtask lint`: format, layout, clippy on both targets, documentation, dependencies.

mod code;
mod layout;

use anyhow::Result;

use crate::{
    build::{self, Object},
    shell,
    toolchain::Toolchain,
};

/// Check the format, the layout rules, clippy, the documentation and the dependencies.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The kernel side is linted for its own target, apart.
const HOST: [&str; 3] = ["--workspace", "--exclude", "agent-ebpf"];

pub(crate) fn run(_: &Args) -> Result<()> {
    shell::run(shell::command("cargo").args(["fmt", "--all", "--check"]))?;
    layout::check()?;

    let object = build::object(Object::Release)?;
    kernel_side()?;

    let host = |subcommand: &str| {
        let mut cargo = shell::command("cargo");
        cargo
            .env("RINGFENCE_BPF_OBJECT", &object)
            .arg(subcommand)
            .args(HOST)
            .args(build::FEATURES);
        cargo
    };
    // Without what only some builds have; nothing else compiles this.
    let mut bare = shell::command("cargo");
    bare.env("RINGFENCE_BPF_OBJECT", &object);
    shell::run(bare.args(["clippy", "--package", "agent", "--lib", "--", "-Dwarnings"]))?;
    shell::run(host("clippy").args(["--all-targets", "--", "-Dwarnings"]))?;
    shell::run(
        host("doc")
            .env("RUSTDOCFLAGS", "-Dwarnings")
            .args(["--no-deps", "--document-private-items"]),
    )?;
    dependencies()
}

/// All forms of the BPF object; rustc's own warnings are denied by every build.
fn kernel_side() -> Result<()> {
    let Toolchain { compiler, linker } = Toolchain::locate()?;
    if !compiler.has_clippy() {
        eprintln!("lint: skipped: clippy for BPF, {} has none", compiler.road);
        return Ok(());
    }
    for object in [Object::Release, Object::Debug, Object::Bench] {
        let mut clippy = build::cargo_for_bpf(&compiler, "clippy", &linker);
        shell::run(clippy.args(object.features()).args(["--", "-Dwarnings"]))?;
    }
    Ok(())
}

/// Licences, bans and sources, by deny.toml. Advisories need a database from the network and
/// change without a commit, so they are not part of what a commit must pass.
fn dependencies() -> Result<()> {
    if shell::output(shell::command("cargo").args(["deny", "--version"])).is_err() {
        eprintln!("lint: skipped: dependencies, cargo-deny is not installed");
        return Ok(());
    }
    shell::run(shell::command("cargo").args(["deny", "check", "licenses", "bans", "sources"]))
}
