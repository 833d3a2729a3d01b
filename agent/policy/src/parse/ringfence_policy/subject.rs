//! Who the policy is about, and the selectors of workloads that peers write alike.

use std::collections::BTreeSet;

use crate::{
    model::{Selector, Subjects},
    parse::{
        endpoint::{CGROUP, HostName, UNIT},
        form,
        reader::Field,
        selector,
    },
};

type Read = fn(&Field<'_>) -> Option<Subjects>;

const FORMS: [(&str, Read); 4] = [WORKLOADS, UNITS, CGROUPS, NODES];

/// Whom sockets may belong to.
const LOCAL_FORMS: [(&str, Read); 3] = [WORKLOADS, UNITS, CGROUPS];

const WORKLOADS: (&str, Read) = ("workloads", |field| {
    let (namespaces, workloads) = workloads(field)?;
    Some(Subjects::Workloads {
        namespaces,
        workloads,
        host_network: true,
    })
});
const UNITS: (&str, Read) = ("units", |field| set(field, UNIT).map(Subjects::Units));
const CGROUPS: (&str, Read) = ("cgroups", |field| set(field, CGROUP).map(Subjects::Cgroups));
const NODES: (&str, Read) = ("nodes", |field| selector::read(field).map(Subjects::Nodes));

pub(super) fn read(field: &Field<'_>) -> Option<Subjects> {
    exactly_one(field, "subject-form", &FORMS)
}

/// Those who share their node's addresses, as a peer over its loopback.
pub(super) fn local(field: &Field<'_>) -> Option<Subjects> {
    exactly_one(field, "peer-form", &LOCAL_FORMS)
}

fn exactly_one(
    field: &Field<'_>,
    code: &'static str,
    forms: &[(&'static str, Read)],
) -> Option<Subjects> {
    let mut object = field.object()?;
    let written = form::written(&mut object, forms);
    object.deny_unknown();
    let read = written.iter().map(|(read, field)| read(field)).collect();
    form::only(field, code, forms, read)
}

/// The selectors of namespaces and of workloads in them; one that is missing selects all.
pub(in crate::parse) fn workloads(field: &Field<'_>) -> Option<(Selector, Selector)> {
    let mut object = field.object()?;
    let namespaces = object.get("namespaceSelector");
    let workloads = object.get("selector");
    object.deny_unknown();
    let namespaces = form::optional(namespaces, selector::read);
    let workloads = form::optional(workloads, selector::read);
    Some((
        namespaces.ok()?.unwrap_or_default(),
        workloads.ok()?.unwrap_or_default(),
    ))
}

fn set(field: &Field<'_>, name: HostName) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut broken = false;
    for item in form::items(field, None)? {
        let Some(name) = name.read(&item) else {
            broken = true;
            continue;
        };
        if !names.insert(name) {
            let message = format!("{} is listed twice", item.name());
            item.error("duplicate-subject", message);
        }
    }
    (!broken).then_some(names)
}
