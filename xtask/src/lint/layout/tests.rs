//! Each rule passes what it should and fails where it should.

use super::{
    File, Finding,
    rules::{
        no_machine_is_named, only_its_source_names_kubernetes, only_the_datapath_names_the_kernel,
        reference_shares_nothing, the_core_depends_on_no_io, the_core_does_no_io,
        unsafe_stays_in_its_places,
    },
};

/// The lines on which a rule finds something in one file.
fn lines(rule: fn(&[File]) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    let file = File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let mut lines: Vec<_> = rule(&[file]).iter().map(|finding| finding.line).collect();
    lines.dedup();
    lines
}

#[test]
fn the_reference_may_use_the_model_and_not_the_compiler() {
    let path = "agent/policy/src/reference.rs";
    let text = "//! Not crate::compile.\nuse crate::model::{Policy, Rule};\nlet compile = 1;\n";
    assert_eq!(lines(reference_shares_nothing, path, text), [0; 0]);

    let text = "use crate::{\n  model,\n  compile::Compiler,\n};\nfn f() { super::compiled::x() }\n\
                use agent_common::decide;\n";
    let mut found = lines(reference_shares_nothing, path, text);
    found.sort_unstable();
    assert_eq!(found, [3, 5, 6]);
    assert_eq!(
        lines(reference_shares_nothing, "agent/policy/src/verify.rs", text),
        [0; 0]
    );
}

#[test]
fn only_the_datapath_may_name_the_kernel() {
    let rule = only_the_datapath_names_the_kernel;
    let text = "// aya does it\nuse aya::Ebpf;\nlet pins = \"/sys/fs/bpf/x\";\nrtnetlink::new();\n";
    assert_eq!(lines(rule, "agent/src/run.rs", text), [2, 3, 4]);
    assert_eq!(lines(rule, "agent/src/datapath/attach.rs", text), [0; 0]);
    assert_eq!(lines(rule, "agent/src/datapath.rs", text), [0; 0]);
    assert_eq!(lines(rule, "agent-ebpf/src/main.rs", text), [0; 0]);
}

#[test]
fn only_its_source_may_name_the_library_of_kubernetes() {
    let rule = only_its_source_names_kubernetes;
    let text = "// kube does it\nuse kube::Client;\nuse k8s_openapi::api;\nlet path = \"kube\";\n";
    assert_eq!(lines(rule, "agent/src/daemon.rs", text), [2, 3]);
    assert_eq!(
        lines(rule, "agent/src/source/kubernetes/client.rs", text),
        [0; 0]
    );
    assert_eq!(lines(rule, "agent/src/source/kubernetes.rs", text), [0; 0]);
}

#[test]
fn the_core_may_depend_on_listed_crates_only() {
    let rule = the_core_depends_on_no_io;
    let path = "agent/policy/Cargo.toml";
    let text = "[package]\nname = \"p\"\n[dependencies]\nserde = { workspace = true }\n\
                tokio.workspace = true\nproptest = { version = \"1\", optional = true }\n[dev-dependencies]\ntempfile = \"3\"\n\
                [target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n[dependencies.notify]\n";
    assert_eq!(lines(rule, path, text), [5, 10, 11]);
    assert_eq!(lines(rule, "agent/Cargo.toml", text), [0; 0]);
}

#[test]
fn the_core_must_forbid_unsafe_code() {
    let path = "agent/policy/src/lib.rs";
    let rule = the_core_depends_on_no_io;
    assert_eq!(
        lines(rule, path, "//! The core.\n#![forbid(unsafe_code)]\n"),
        [0; 0]
    );
    assert_eq!(
        lines(rule, path, "// #![forbid(unsafe_code)]\nmod model;\n"),
        [1]
    );
}

#[test]
fn the_core_may_not_read_a_file_a_clock_or_a_socket() {
    let text = "use std::net::{IpAddr, TcpStream};\nuse std::{\n  fmt,\n  fs,\n};\n\
                let now = std::time::Instant::now();\nlet d = std::time::Duration::ZERO;\n";
    assert_eq!(
        lines(the_core_does_no_io, "agent/policy/src/parse.rs", text),
        [1, 4, 6]
    );
    assert_eq!(lines(the_core_does_no_io, "agent/src/run.rs", text), [0; 0]);
}

#[test]
fn unsafe_is_found_outside_its_places() {
    let text = "#![forbid(unsafe_code)]\n// unsafe\nunsafe { f() }\n";
    for elsewhere in [
        "agent/src/run.rs",
        "agent-common/src/decide.rs",
        "tests/tests/a.rs",
    ] {
        assert_eq!(lines(unsafe_stays_in_its_places, elsewhere, text), [3]);
    }
    for place in [
        "agent-ebpf/src/main.rs",
        "agent-common/src/abi.rs",
        "tests/src/kernel.rs",
        "agent/src/datapath/a.rs",
    ] {
        assert_eq!(
            lines(unsafe_stays_in_its_places, place, text),
            [0; 0],
            "{place}"
        );
    }
}

#[test]
fn a_folder_of_one_machine_and_a_registry_host_are_found() {
    let text = [
        concat!("cd /wo", "rk/x"),
        "https://example.org/work/x",
        concat!("a: '/ro", "ot/.cargo'"),
        "registry+https://github.com/rust-lang/crates.io-index",
        concat!("https://index.", "crates.io/"),
    ];
    assert_eq!(
        lines(no_machine_is_named, "README.md", &text.join("\n")),
        [1, 3, 5]
    );
}
