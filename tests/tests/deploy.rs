//! What is deployed agrees with the binary that it is for. Needs no root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::binary;

fn deployed(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../agent/deploy")
        .join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[test]
fn the_kinds_are_those_that_the_binary_prints() -> Result<()> {
    let printed = Command::new(binary()?)
        .args(["schema", "--crds"])
        .output()?;
    let printed = String::from_utf8(printed.stdout)?;
    ensure!(
        deployed("base/crds.yaml")? == printed,
        "run: target/debug/ringfence schema --crds >agent/deploy/base/crds.yaml"
    );
    Ok(())
}

#[test]
fn the_image_is_of_this_version() -> Result<()> {
    let tag = format!("newTag: {}\n", env!("CARGO_PKG_VERSION"));
    for folder in ["base", "uninstall", "with-cni"] {
        let text = deployed(&format!("{folder}/kustomization.yaml"))?;
        ensure!(text.contains(&tag), "{folder}: not {tag}");
    }
    Ok(())
}
