//! The rules. Each names the invariant of `agent/docs/architecture.md` that it holds up.

use super::{File, Finding};
use crate::lint::code::{Kind, Token, tokens};

type Rule = fn(&[File]) -> Vec<Finding>;

pub(super) const ALL: [Rule; 7] = [
    reference_shares_nothing,
    only_the_datapath_names_the_kernel,
    only_its_source_names_kubernetes,
    the_core_depends_on_no_io,
    the_core_does_no_io,
    unsafe_stays_in_its_places,
    no_machine_is_named,
];

/// What the policy core may depend on: no file, clock, network or thread in any of them. What is
/// optional is for tests, and no binary of ours asks for it.
const CORE_DEPENDENCIES: [&str; 7] = [
    "agent-common",
    "ipnet",
    "jiff",
    "saphyr-parser",
    "serde",
    "serde_json",
    "thiserror",
];

/// The crates that speak to the kernel.
const KERNEL_CRATES: [&str; 7] = [
    "aya",
    "aya_log",
    "aya_obj",
    "netlink_packet_core",
    "netlink_packet_route",
    "netlink_sys",
    "rtnetlink",
];

/// Standard library paths that are IO, a clock or a thread. (`std::net`'s addresses are values.)
const IO_PATHS: [&[&str]; 9] = [
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];

/// Where `unsafe` may be: the kernel side, the declarations of what crosses the boundary and of headers, the one
/// module that speaks to the kernel, its twin for tests, the lab, which asks the kernel apart from that module,
/// and what counts memory for a benchmark.
const UNSAFE_PLACES: [&str; 10] = [
    "agent-ebpf/",
    "agent-common/src/abi",
    "agent-common/src/flow",
    "agent-common/src/parse",
    "agent-common/src/rejection",
    "agent-common/src/shared",
    "agent-common/src/testing",
    "agent/policy/benches/scale/allocator.rs",
    "agent/src/datapath",
    "tests/src/",
];

/// The reference evaluator is the second opinion: it must not share the first one's code.
pub(super) fn reference_shares_nothing(files: &[File]) -> Vec<Finding> {
    let what = |word: &str| format!("the reference evaluator must not use `{word}`");
    each(files, &["agent/policy/src/reference"], |file, found| {
        let tokens = tokens(&file.text);
        for word in words(&tokens).filter(|token| token.text == "agent_common") {
            found.push(file.at(word.line, what(word.text)));
        }
        for (path, line) in paths(&tokens) {
            if let Some(name) = path
                .iter()
                .find(|name| ["compile", "compiled"].contains(name))
            {
                found.push(file.at(line, what(name)));
            }
        }
    })
}

/// All that loads, pins, attaches or configures is behind `datapath`; the rest sees values.
pub(super) fn only_the_datapath_names_the_kernel(files: &[File]) -> Vec<Finding> {
    each(files, &["agent/", "agent-common/"], |file, found| {
        if file.is_below(&["agent/src/datapath", "agent-common/src/abi"]) {
            return;
        }
        for token in tokens(&file.text) {
            let named = match token.kind {
                Kind::Word => KERNEL_CRATES.contains(&token.text).then_some(token.text),
                Kind::Text => token.text.contains("/sys/fs/bpf").then_some("/sys/fs/bpf"),
                Kind::Punctuation => None,
            };
            if let Some(name) = named {
                let what = format!("`{name}` is named outside agent/src/datapath");
                found.push(file.at(token.line, what));
            }
        }
    })
}

/// What the Kubernetes API is to the library is the source's; the rest sees its objects.
pub(super) fn only_its_source_names_kubernetes(files: &[File]) -> Vec<Finding> {
    each(files, &["agent/"], |file, found| {
        if file.is_below(&["agent/src/source/kubernetes"]) {
            return;
        }
        for token in words(&tokens(&file.text)) {
            if ["kube", "k8s_openapi"].contains(&token.text) {
                let what = format!(
                    "`{}` is named outside agent/src/source/kubernetes",
                    token.text
                );
                found.push(file.at(token.line, what));
            }
        }
    })
}

/// The first half of "the policy core does no IO": what it links.
pub(super) fn the_core_depends_on_no_io(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path == "agent/policy/Cargo.toml")
    {
        for (name, line) in dependencies(&file.text) {
            if !CORE_DEPENDENCIES.contains(&name) {
                let what = format!(
                    "the policy core depends on `{name}`; if it does no IO, \
                     list it in CORE_DEPENDENCIES of the layout lint"
                );
                found.push(file.at(line, what));
            }
        }
    }
    for file in files
        .iter()
        .filter(|file| file.path == "agent/policy/src/lib.rs")
    {
        let code: String = tokens(&file.text).iter().map(|token| token.text).collect();
        if !code.contains("#![forbid(unsafe_code)]") {
            found.push(file.at(
                1,
                "the policy core must have #![forbid(unsafe_code)]".to_owned(),
            ));
        }
    }
    found
}

/// The second half: what it calls.
pub(super) fn the_core_does_no_io(files: &[File]) -> Vec<Finding> {
    each(files, &["agent/policy/src/"], |file, found| {
        if file.path.ends_with("/tests.rs") || file.path.contains("/tests/") {
            return;
        }
        for (path, line) in paths(&tokens(&file.text)) {
            if let Some(io) = IO_PATHS.iter().find(|io| path.starts_with(io)) {
                found.push(file.at(line, format!("the policy core uses `{}`", io.join("::"))));
            }
        }
    })
}

/// `unsafe` is where the kernel's interface demands it, and there only.
pub(super) fn unsafe_stays_in_its_places(files: &[File]) -> Vec<Finding> {
    each(files, &[""], |file, found| {
        if file.is_below(&UNSAFE_PLACES) {
            return;
        }
        for word in words(&tokens(&file.text)).filter(|token| token.text == "unsafe") {
            let places = UNSAFE_PLACES.join(", ");
            found.push(file.at(word.line, format!("`unsafe` outside {places}")));
        }
    })
}

/// The repository builds anywhere, so it names no folder of one machine and no mirror.
pub(super) fn no_machine_is_named(files: &[File]) -> Vec<Finding> {
    // In halves, or this file would be its own first finding.
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let hosts = [
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("static.", "rust-lang.org"),
        concat!("deb.", "debian.org"),
        concat!("security.", "debian.org"),
        concat!("snapshot.", "debian.org"),
        concat!("proxy.", "golang.org"),
    ];
    let mut found = Vec::new();
    for file in files {
        for (line, text) in (1..).zip(file.text.lines()) {
            let starts_here = |at: usize| {
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/".contains(c))
            };
            for folder in folders {
                if text.match_indices(folder).any(|(at, _)| starts_here(at)) {
                    found.push(file.at(line, format!("`{folder}` is a folder of one machine")));
                }
            }
            for host in hosts.into_iter().filter(|host| text.contains(host)) {
                found.push(file.at(line, format!("`{host}` is a registry's host")));
            }
        }
    }
    found
}

impl File {
    fn at(&self, line: usize, what: String) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what,
        }
    }

    fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

/// Applies a check to each Rust file below one of the places.
fn each(files: &[File], places: &[&str], check: impl Fn(&File, &mut Vec<Finding>)) -> Vec<Finding> {
    let mut found = Vec::new();
    let rust = |file: &&File| file.path.strip_suffix(".rs").is_some() && file.is_below(places);
    for file in files.iter().filter(rust) {
        check(file, &mut found);
    }
    found
}

fn words<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    tokens.iter().filter(|token| token.kind == Kind::Word)
}

/// Every path of two names or more, `use` trees written out: `use a::{b, c::d}` is `a::b` and
/// `a::c::d`. The line is that of the path's last name.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<(Vec<&'a str>, usize)> {
    let mut found = Vec::new();
    // The names so far in this path, and for each open brace how many of them precede it.
    let (mut path, mut braces): (Vec<&str>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut after_colons = false;
    for (at, token) in tokens.iter().enumerate() {
        let prefix = braces.last().copied().unwrap_or(0);
        match (token.kind, token.text) {
            (Kind::Punctuation, ":") => {
                after_colons = at > 0 && tokens[at - 1].text == ":";
                continue;
            }
            (Kind::Punctuation, "{") => braces.push(if after_colons { path.len() } else { 0 }),
            (Kind::Punctuation, "}") => {
                braces.pop();
                path.clear();
            }
            (Kind::Word, name) => {
                if !after_colons {
                    path.truncate(prefix);
                }
                path.push(name);
                if path.len() > 1 {
                    found.push((path.clone(), token.line));
                }
                after_colons = false;
                continue;
            }
            (Kind::Punctuation, ",") => path.truncate(prefix),
            (Kind::Punctuation | Kind::Text, _) => {}
        }
        after_colons = false;
    }
    found
}

/// The names below `[dependencies]` of a manifest in any of its spellings, with their lines;
/// build dependencies too, development dependencies and those that are optional not.
fn dependencies(manifest: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(manifest.lines().map(str::trim)) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let table = section.rsplit_once("dependencies");
            let ours = |before: &str| !before.ends_with("dev-");
            inside = table.is_some_and(|(before, after)| ours(before) && after.is_empty());
            if let Some((before, after)) = table
                && let Some(name) = after.strip_prefix('.')
                && ours(before)
            {
                found.push((name.trim_matches('"'), number));
            }
        } else if inside
            && !line.starts_with('#')
            && line.contains('=')
            && !line.contains("optional = true")
        {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push((name.trim_matches('"'), number));
        }
    }
    found
}
