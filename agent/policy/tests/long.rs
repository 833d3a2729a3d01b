//! Keys and values of megabytes: said in messages of a line, and never kept more than once.

use std::sync::Arc;

use agent_policy::load::{InputFile, Loaded, load};

const MEGABYTE: usize = 1_000_000;

fn load_text(text: String) -> Loaded {
    load([InputFile {
        name: Arc::from("long"),
        bytes: text.into_bytes(),
    }])
}

/// What is said of a text, each time in words that somebody can read.
fn said(text: String) -> Vec<(&'static str, usize)> {
    let start: String = text.chars().take(100).collect();
    let mut seen: Vec<(&'static str, usize)> = Vec::new();
    for one in load_text(text).diagnostics {
        let long = one.path.len().max(one.message.len());
        assert!(long < 1000, "{start}: {} has {long} bytes", one.code);
        match seen.iter_mut().find(|(code, _)| *code == one.code) {
            Some((_, count)) => *count += 1,
            None => seen.push((one.code, 1)),
        }
    }
    seen
}

fn table(names: &str) -> String {
    format!(
        "{{apiVersion: ringfence.io/v1alpha1, kind: NameTable, metadata: {{name: t}}, spec: \
         {{names: {names}}}}}"
    )
}

fn workload(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {{name: {name}, labels: \
         {{app: a}}}}, spec: {spec}}}\n"
    )
}

#[test]
fn a_long_key_is_not_repeated_for_each_item_below_it() {
    let key = "a".repeat(3 * MEGABYTE);
    let items = "x,".repeat(6000);
    assert_eq!(
        said(table(&format!("{{? {key} : [{items}]}}"))),
        [("invalid-domain", 1), ("invalid-address", 6000)]
    );
}

#[test]
fn a_long_label_key_is_refused_and_not_kept() {
    let key = "a".repeat(MEGABYTE);
    let labels = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: n, labels: {{? {key} : b}}}}}}"
    );
    assert_eq!(said(labels), [("invalid-label", 1)]);
}

#[test]
fn a_long_field_is_unknown_in_a_line() {
    let field = "a".repeat(MEGABYTE);
    assert_eq!(
        said(workload("w", &format!("{{? {field} : b}}"))),
        [("unknown-field", 1)]
    );
}

#[test]
fn aliases_of_much_text_explode_too() {
    let (text, aliases) = ("a".repeat(MEGABYTE), "*a,".repeat(70));
    assert_eq!(
        said(format!("[&a {text}, {aliases}]")),
        [("aliases-explode", 1)]
    );
    // Text in a key, and below other collections.
    assert_eq!(
        said(format!("[&a [{{? {text} : b}}], {aliases}]")),
        [("aliases-explode", 1)]
    );
}

#[test]
fn names_that_the_kernel_could_not_open_are_refused() {
    let part = "p".repeat(256);
    let path = "p/".repeat(2048) + "p";
    for endpoint in [
        format!("cgroup: {part}"),
        format!("cgroup: {path}"),
        format!("netns: /{part}"),
        format!("netns: /{path}"),
        format!("systemdUnit: {part}.service"),
    ] {
        let text = workload("w", &format!("{{endpoint: {{{endpoint}}}}}"));
        assert_eq!(said(text), [("invalid-endpoint", 1)]);
    }
    let longest = format!("{{endpoint: {{cgroup: {}{}}}}}", "p/".repeat(2047), "pp");
    assert_eq!(said(workload("w", &longest)), []);
}

#[test]
fn an_end_that_nothing_can_be_called_is_refused() {
    let end = "e".repeat(MEGABYTE);
    let test = format!(
        "{{apiVersion: ringfence.io/v1alpha1, kind: PolicyTest, metadata: {{name: t}}, spec: {{expect: \
         [{{from: {end}, to: a/b, ports: [TCP/1], verdict: deny}}]}}}}"
    );
    assert_eq!(said(test), [("invalid-text", 1)]);
}

/// A name in a message of two workloads is cut as everywhere else.
#[test]
fn a_long_name_of_two_workloads_is_cut() {
    let spec = format!("{{endpoint: {{cgroup: {}p}}}}", "p/".repeat(2000));
    let both = workload("v", &spec) + "---\n" + &workload("w", &spec);
    assert_eq!(said(both), [("endpoint-used-twice", 1)]);
}
