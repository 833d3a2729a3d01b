//! Every message of the parsers, word for word: `bad/NAME.yaml` beside `bad/NAME.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p agent-policy --test golden` rewrites the expected texts; the
//! diff is what a reviewer reads.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::{
    diagnostic::Severity,
    load::{InputFile, Loaded, assemble_with, load, parse_file},
    model::{Direction, Failsafe, Peer, Peers, PortMatch, PortSpec, Ports, Protocol, Source},
};

fn samples(folder: &str) -> Vec<PathBuf> {
    inputs(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(folder),
    )
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "json"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn load_file(path: &Path) -> Loaded {
    let name = path.file_name().unwrap().to_str().unwrap();
    load([InputFile {
        name: Arc::from(name),
        bytes: fs::read(path).unwrap(),
    }])
}

/// With SSH from a network of managers, and DHCP.
fn load_with_failsafe(path: &Path) -> Loaded {
    let name = path.file_name().unwrap().to_str().unwrap();
    let file = parse_file(Arc::from(name), &fs::read(path).unwrap());
    let entry = |name: &str, peers, protocol, port| Failsafe {
        name: name.to_owned(),
        direction: Direction::Ingress,
        peers,
        ports: Ports::Listed(vec![PortMatch::Transport {
            protocol,
            port: PortSpec::Range {
                first: port,
                last: port,
            },
        }]),
        source: Source {
            file: "ringfence.toml".into(),
            line: 1,
        },
    };
    let managers = Peers::listed(vec![Peer::Block {
        cidr: "192.0.2.0/24".parse().unwrap(),
        except: Vec::new(),
    }]);
    let failsafe = vec![
        entry("ssh", managers, Protocol::Tcp, 22),
        entry("dhcp", Peers::Every, Protocol::Udp, 68),
    ];
    let (world, mut diagnostics) = assemble_with(std::slice::from_ref(&file), failsafe);
    diagnostics.extend(file.diagnostics);
    Loaded { world, diagnostics }
}

fn render(loaded: &Loaded) -> String {
    let mut text = String::new();
    for diagnostic in &loaded.diagnostics {
        diagnostic.render(&mut text).unwrap();
    }
    text
}

#[test]
fn bad_inputs_say_what_is_wrong() {
    compare(&samples("bad"), load_file);
}

#[test]
fn what_a_failsafe_holds_open_is_not_denied_in_silence() {
    compare(&samples("bad-with-failsafe"), load_with_failsafe);
}

fn compare(paths: &[PathBuf], load: fn(&Path) -> Loaded) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for path in paths {
        let seen = render(&load(path));
        assert!(!seen.is_empty(), "{} has no diagnostic", path.display());
        let golden = path.with_extension("txt");
        if update {
            fs::write(&golden, &seen).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if seen != expected {
            differing.push(format!(
                "{}\n--- expected\n{expected}+++ seen\n{seen}",
                path.display()
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn good_inputs_have_no_diagnostic() {
    for path in samples("good") {
        let loaded = load_file(&path);
        assert_eq!(render(&loaded), "", "{}", path.display());
        assert!(!loaded.world.namespaces.is_empty(), "{}", path.display());
    }
}

/// What `ringfence policy check --strict` holds against everything in `policies/`: each sample by
/// itself, the demo as a whole, because its files speak about one another. A default deny is noted.
#[test]
fn samples_and_demo_have_notes_at_most() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    for path in inputs(&policies.join("samples")) {
        let mut loaded = load_file(&path);
        loaded
            .diagnostics
            .retain(|one| one.severity < Severity::Note);
        assert_eq!(render(&loaded), "", "{}", path.display());
        let policies = loaded.world.network_policies.len() + loaded.world.tier_policies.len();
        let is_test = path.to_string_lossy().ends_with("-tests.yaml");
        assert!(policies > 0 || is_test, "{}", path.display());
    }
    let demo = inputs(&policies.join("demo"));
    let mut loaded = load(demo.iter().map(|path| InputFile {
        name: path.to_string_lossy().into(),
        bytes: fs::read(path).unwrap(),
    }));
    loaded
        .diagnostics
        .retain(|one| one.severity < Severity::Note);
    assert_eq!(render(&loaded), "");
    let homeless: Vec<_> = loaded
        .world
        .workloads
        .values()
        .filter(|workload| {
            workload
                .node
                .as_ref()
                .is_none_or(|node| !loaded.world.nodes.contains_key(node))
        })
        .map(|workload| workload.name.to_string())
        .collect();
    assert!(homeless.is_empty(), "no node is declared for {homeless:?}");
}
