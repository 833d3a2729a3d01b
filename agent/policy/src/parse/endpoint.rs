//! How an endpoint is found on its node, and the names of units and cgroups wherever they stand.

use super::{form, reader::Field};
use crate::{model::EndpointSpec, yaml::quote};

/// A name that the host gives, in the words of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostName {
    what: &'static str,
    expected: &'static str,
    holds: fn(&str) -> bool,
}

/// `PATH_MAX` and `NAME_MAX` of Linux, in bytes.
pub(crate) const MAX_PATH: usize = 4096;
pub(crate) const MAX_PART: usize = 255;

type Make = fn(String) -> EndpointSpec;

pub(super) const CGROUP: HostName = HostName {
    what: "cgroup",
    expected: "a path below the cgroup2 root, of at most 4096 bytes and 255 a part, without a leading \
               or final `/` and without `.` and `..`",
    holds: is_cgroup,
};

pub(super) const UNIT: HostName = HostName {
    what: "systemdUnit",
    expected: "the full name of a unit of at most 255 bytes, as in `nginx.service`",
    holds: is_unit,
};

const INTERFACE: HostName = HostName {
    what: "interface",
    expected: "the name of an interface: 1 to 15 bytes without `/`, `:` and white space",
    holds: is_interface,
};

const NETNS: HostName = HostName {
    what: "netns",
    expected: "an absolute path of at most 4096 bytes and 255 a part, without `..`",
    holds: |path| {
        path.starts_with('/') && is_path(path) && path.split('/').all(|part| part != "..")
    },
};

const FORMS: [(&str, (HostName, Make)); 4] = [
    ("interface", (INTERFACE, EndpointSpec::Interface)),
    ("netns", (NETNS, EndpointSpec::Netns)),
    ("cgroup", (CGROUP, EndpointSpec::Cgroup)),
    ("systemdUnit", (UNIT, EndpointSpec::SystemdUnit)),
];

pub(super) fn read(field: &Field<'_>) -> Option<EndpointSpec> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &FORMS);
    object.deny_unknown();
    let read = written
        .iter()
        .map(|((name, make), field)| name.read(field).map(make))
        .collect();
    form::only(field, "endpoint-form", &FORMS, read)
}

// === impl HostName ===

impl HostName {
    pub(super) fn read(self, field: &Field<'_>) -> Option<String> {
        let text = field.string()?;
        if !(self.holds)(text) {
            let message = format!(
                "invalid {} {}: expected {}",
                self.what,
                quote(text),
                self.expected
            );
            field.error("invalid-endpoint", message);
            return None;
        }
        Some(text.to_owned())
    }
}

fn is_interface(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && !name.contains(bad)
}

/// In one spelling, because it is compared with what the host says.
fn is_cgroup(path: &str) -> bool {
    is_path(path) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What the kernel can open. The names here are kept, compared and shown, so none is longer.
fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH && path.split('/').all(|part| part.len() <= MAX_PART)
}

fn is_unit(name: &str) -> bool {
    const KINDS: [&str; 4] = [".service", ".scope", ".slice", ".socket"];
    let kind = KINDS
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()));
    kind && name.len() <= MAX_PART && !name.contains('/') && !name.contains(char::is_whitespace)
}
