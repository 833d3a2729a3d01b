//! Tells the agent which BPF object to embed, as `env!("RINGFENCE_BPF_OBJECT")`.
//!
//! The object needs another compiler, so `cargo xtask build` makes it beforehand. A variable of
//! the same name, when set, chooses another file.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

const VARIABLE: &str = "RINGFENCE_BPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={VARIABLE}");

    let root = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .and_then(|manifest| manifest.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let object = root.join(env::var_os(VARIABLE).map_or_else(by_profile, PathBuf::from));
    println!("cargo:rerun-if-changed={}", object.display());
    if !object.is_file() {
        eprintln!(
            "no BPF object at {}: run `cargo xtask build` once",
            object.display()
        );
        eprintln!("(with `--release` for a release build)");
        return ExitCode::FAILURE;
    }
    println!("cargo:rustc-env={VARIABLE}={}", object.display());
    ExitCode::SUCCESS
}

/// The debug object logs; the release object never does.
fn by_profile() -> PathBuf {
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let name = if release {
        "ringfence.bpf.o"
    } else {
        "ringfence-debug.bpf.o"
    };
    Path::new("target/bpf").join(name)
}
