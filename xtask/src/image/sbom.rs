//! What the binary is made of, as `CycloneDX` has it: the crates of both sides by cargo's own account, and what they are
//! linked with.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{build::FEATURES, shell};

/// The agent, and the programs for the kernel that it carries.
const ROOTS: [&str; 2] = [AGENT, "agent-ebpf"];
const AGENT: &str = "agent";

/// The document, without a time and without a number of its own, so that it is the same each time.
pub(super) fn of_agent(target: &str) -> Result<Vec<u8>> {
    let mut cargo = shell::command("cargo");
    cargo.args(["metadata", "--format-version=1", "--locked"]);
    cargo.args(["--filter-platform", target]).args(FEATURES);
    let metadata = serde_json::from_str(&shell::output(&mut cargo)?)?;
    let compiler = shell::output(shell::command("rustc").arg("--version"))?;
    let document = document(&metadata, &built(target)?, &linked(&compiler))?;
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}

/// The crates that are built for the binary. Metadata is of the whole workspace, with what its tests turn on.
fn built(target: &str) -> Result<BTreeSet<String>> {
    let mut built = BTreeSet::new();
    for root in ROOTS {
        let mut tree = shell::command("cargo");
        tree.args(["tree", "--locked", "--package", root, "--target", target]);
        tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        if root == AGENT {
            tree.args(FEATURES);
        }
        let said = shell::output(&mut tree)?;
        built.extend(said.lines().filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            let version = rest.split_whitespace().next()?;
            Some(format!("pkg:cargo/{name}@{version}"))
        }));
    }
    Ok(built)
}

/// What is in the binary beside crates: the standard library, and the C library where dpkg knows it.
fn linked(compiler: &str) -> Vec<Value> {
    let release = compiler.split_whitespace().nth(1).unwrap_or_default();
    let mut linked = vec![json!({
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": release,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    })];
    let mut query = shell::command("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "libc6-dev"]);
    if let Ok(version) = shell::output(&mut query) {
        linked.push(json!({
            "type": "library",
            "bom-ref": "libc6-dev",
            "name": "glibc",
            "version": version,
            "purl": format!("pkg:deb/debian/libc6-dev@{version}"),
            "licenses": [{"expression": "LGPL-2.1-or-later"}],
        }));
    }
    linked
}

fn document(metadata: &Value, built: &BTreeSet<String>, linked: &[Value]) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .filter(|package| built.contains(&reference(package)))
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let needs: BTreeMap<&str, BTreeSet<&str>> = list(&metadata["resolve"]["nodes"])
        .filter_map(|node| {
            Some((
                node["id"].as_str()?,
                list(&node["deps"]).filter_map(needed).collect(),
            ))
        })
        .collect();
    let roots = packages.iter().filter(|(_, package)| {
        package["source"].is_null() && ROOTS.iter().any(|root| package["name"] == *root)
    });
    let mut ahead: Vec<&str> = roots.map(|(id, _)| *id).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if seen.insert(id) {
            let below = needs.get(id).into_iter().flatten();
            ahead.extend(below.filter(|id| packages.contains_key(*id)));
        }
    }

    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &seen {
        let package = packages
            .get(id)
            .with_context(|| format!("cargo does not describe {id}"))?;
        components.push(component(package));
        let below = needs.get(id).into_iter().flatten();
        let below: BTreeSet<_> = below
            .filter_map(|id| Some(reference(packages.get(id)?)))
            .collect();
        dependencies.push(json!({"ref": reference(package), "dependsOn": below}));
    }
    components.extend(linked.iter().cloned());
    let by =
        |key: &'static str| move |value: &Value| value[key].as_str().unwrap_or_default().to_owned();
    components.sort_by_key(by("bom-ref"));
    dependencies.sort_by_key(by("ref"));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": "ringfence",
            "name": "ringfence",
            "version": env!("CARGO_PKG_VERSION"),
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The package of a dependency that ends in the binary: neither a test's nor a build script's.
fn needed(dependency: &Value) -> Option<&str> {
    let normal = list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    dependency["pkg"].as_str().filter(|_| normal)
}

fn component(package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
    });
    if package["source"].is_string() {
        component["purl"] = reference(package).into();
    }
    if let Some(licence) = package["license"].as_str() {
        // Some still write it as it was before SPDX had an operator.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    component
}

fn reference(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_and_build_scripts_need_is_left_out() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/Apache-2.0"});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let registry = json!("registry");
        let metadata = json!({
            "packages": [
                package("agent", Value::Null),
                package("a", registry.clone()),
                package("b", registry.clone()),
                package("built", registry.clone()),
                package("tested", registry.clone()),
                package("other", registry),
            ],
            "resolve": {"nodes": [
                {"id": "agent", "deps": [needs("a", Value::Null), needs("built", json!("build")), needs("tested", json!("dev"))]},
                {"id": "a", "deps": [needs("b", Value::Null)]},
                {"id": "b", "deps": []},
            ]},
        });
        let built = ["agent", "a", "b"].map(|name| format!("pkg:cargo/{name}@1.0.0"));
        let linked = linked("rustc 1.95.0 (abc)");
        let document = document(&metadata, &built.into(), &linked).unwrap();
        let names: Vec<_> = list(&document["components"])
            .filter_map(|component| component["purl"].as_str())
            .filter(|purl| purl.starts_with("pkg:cargo/"))
            .collect();
        assert_eq!(names, ["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"]);
        let components = &document["components"];
        let std = list(components)
            .find(|component| component["name"] == "rust-std")
            .unwrap();
        assert_eq!(std["version"], "1.95.0");
        let a = list(components)
            .find(|component| component["name"] == "a")
            .unwrap();
        assert_eq!(a["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }

    #[test]
    fn the_agent_is_made_of_what_cargo_says() {
        let text = of_agent(&super::super::target().unwrap()).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        let has =
            |name: &str| list(&document["components"]).any(|component| component["name"] == name);
        for name in [
            "agent-policy",
            "agent-common",
            "agent-ebpf",
            "aya",
            "aya-ebpf",
            "kube",
        ] {
            assert!(has(name), "{name}");
        }
        assert!(!has("proptest") && !has("xtask"));
    }
}
