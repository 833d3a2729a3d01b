//! What is deployed agrees with the binary that it is for. Needs no root.

#[path = "deploy/chart.rs"]
mod chart;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use chart::{DAEMON_SET, PLUGIN, SETTINGS, kinds, template};
use ringfence_lab::agent::binary;
use serde_json::Value;

/// What the chart makes in its own way: who changes the settings wants the agents restarted.
const OF_THE_CHART: &str = "ringfence.io/settings";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/deploy")
}

fn deployed(name: &str) -> Result<String> {
    let path = folder().join(name);
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

#[test]
fn the_chart_is_of_this_version() -> Result<()> {
    let chart: Value = serde_saphyr::from_str(&deployed("chart/Chart.yaml")?)?;
    for version in ["version", "appVersion"] {
        ensure!(chart[version] == env!("CARGO_PKG_VERSION"), "{version}");
    }
    Ok(())
}

/// `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn the_charts_files_are_made_from_the_kustomization() -> Result<()> {
    let mut files = Vec::new();
    for name in [
        "namespace.yaml",
        "rbac.yaml",
        "settings.yaml",
        "daemonset.yaml",
    ] {
        files.push((format!("templates/{name}"), template(name, deployed)?));
    }
    let kinds = kinds(deployed)?;
    let kinds = kinds.into_iter();
    files.extend(kinds.map(|(name, text)| (format!("crds/{name}"), text)));
    for (name, made) in &files {
        let path = folder().join("chart").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, made)?;
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            there == *made,
            "{name}; run: UPDATE_GOLDEN=1 cargo test --test deploy"
        );
    }
    // And no other: it would be of a kind that is no more.
    for below in ["templates", "crds"] {
        let there = fs::read_dir(folder().join("chart").join(below))?.count();
        let made = files.iter().filter(|(name, _)| name.starts_with(below));
        ensure!(there == made.count(), "{there} files in {below}");
    }
    Ok(())
}

#[test]
fn the_charts_values_are_those_of_the_kustomization() -> Result<()> {
    let values: Value = serde_saphyr::from_str(&deployed("chart/values.yaml")?)?;
    for place in DAEMON_SET.iter().chain(&SETTINGS).chain(&PLUGIN) {
        let Some(value) = &place.value else { continue };
        let default: Value = serde_saphyr::from_str(value.default)?;
        ensure!(
            values.pointer(value.path) == Some(&default),
            "{}",
            value.path
        );
    }
    Ok(())
}

#[test]
fn helm_and_kustomize_make_the_same() -> Result<()> {
    let Some(helm) = program("HELM", "helm") else {
        println!("SKIPPED: no helm. $HELM can name one, or it is on the PATH.");
        return Ok(());
    };
    let Some(kubectl) = program("KUBECTL", "kubectl") else {
        println!("SKIPPED: no kubectl, whose kustomize the chart is compared with.");
        return Ok(());
    };
    let chart = folder().join("chart");
    let lint = Command::new(&helm)
        .args(["lint", "--strict"])
        .arg(&chart)
        .output()?;
    let said = String::from_utf8_lossy(&lint.stdout);
    ensure!(lint.status.success() && !said.contains("[ERROR]"), "{said}");
    for (kustomization, with_plugin) in [("base", "false"), ("with-cni", "true")] {
        let mut template = Command::new(&helm);
        template.args(["template", "ringfence"]).arg(&chart);
        template.args(["--namespace", "ringfence-system", "--include-crds"]);
        template.args(["--set", "namespace.create=true", "--set"]);
        template.arg(format!("cni.enabled={with_plugin}"));
        let mut kustomize = Command::new(&kubectl);
        kustomize.arg("kustomize").arg(folder().join(kustomization));
        let (of_helm, of_kustomize) = (objects(template)?, objects(kustomize)?);
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
        ensure!(
            names(&of_helm) == names(&of_kustomize),
            "{:?} {:?}",
            names(&of_helm),
            names(&of_kustomize)
        );
        for (name, object) in of_helm {
            let other = &of_kustomize[&name];
            ensure!(
                object == *other,
                "{name}\nhelm:      {object}\nkustomize: {other}"
            );
        }
    }
    Ok(())
}

/// By its variable, with those of the cluster, or on the path.
fn program(variable: &str, name: &str) -> Option<OsString> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders
        .find(|folder| folder.join(name).is_file())
        .map(|folder| folder.join(name).into())
}

/// What a command prints, by kind and name.
fn objects(mut command: Command) -> Result<BTreeMap<String, Value>> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    let printed = String::from_utf8(output.stdout)?;
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(&printed)?;
    let mut objects = BTreeMap::new();
    for document in documents.into_iter().flatten() {
        let items = match document["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![document],
        };
        for mut object in items {
            let name = format!("{}/{}", object["kind"], object["metadata"]["name"]);
            let annotations = object.pointer_mut("/spec/template/metadata/annotations");
            if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
                annotations.remove(OF_THE_CHART);
            }
            objects.insert(name, object);
        }
    }
    Ok(objects)
}
