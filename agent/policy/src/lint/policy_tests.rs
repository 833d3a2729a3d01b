//! `selects-nothing` of a `PolicyTest`: a claim about nobody holds, and a connection of nobody can not
//! be asked about.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    findings::Findings,
    inventory::{Found, Inventory},
    labels::LabelSet,
    selects_nothing::{CODE, UNSATISFIABLE},
};
use crate::{
    connection::{ConnectionError, End},
    diagnostic::Severity,
    load::ParsedFile,
    model::NamespaceScope,
    policy_test::{Expectation, PolicyTest},
    verify::{Assertion, Ends, EndsPart},
};

/// Ends that are looked up among all names, for one that is near.
const MAX_SUGGESTIONS: usize = 100;

pub(super) fn run(inventory: &Inventory<'_>, files: &[ParsedFile], findings: &mut Findings<'_>) {
    let mut tests = files.iter().flat_map(ParsedFile::policy_tests).peekable();
    if tests.peek().is_none() {
        return;
    }
    let addresses = addresses(inventory);
    let mut suggestions = MAX_SUGGESTIONS;
    for test in tests {
        for (index, expectation) in test.expectations.iter().enumerate() {
            for (side, end) in [("from", &expectation.from), ("to", &expectation.to)] {
                let Some(wrong) = unknown(inventory, end, &mut suggestions) else {
                    continue;
                };
                let path = format!("spec.expect[{index}].{side}");
                expects(test, expectation, path, &wrong, findings);
            }
        }
        for (index, assertion) in test.assertions.iter().enumerate() {
            asserts(inventory, &addresses, test, (index, assertion), findings);
        }
    }
}

fn expects(
    test: &PolicyTest,
    expectation: &Expectation,
    path: String,
    wrong: &str,
    findings: &mut Findings<'_>,
) {
    let message = format!("`{path}` of PolicyTest `{}`: {wrong}", test.name);
    let found = Findings::at(Severity::Warning, &expectation.source, CODE, message);
    findings.push(found.at_path(path));
}

/// Why an end is nobody, unless its kind is declared elsewhere.
fn unknown(inventory: &Inventory<'_>, end: &str, suggestions: &mut usize) -> Option<String> {
    let world = inventory.world;
    if End::find(world, end).is_some() {
        return None;
    }
    let Some(left) = suggestions.checked_sub(1) else {
        return Some(format!("nobody is called `{end}`"));
    };
    let error = End::parse(world, end).err()?;
    let is_told = match &error {
        ConnectionError::UnknownWorkload { .. } => inventory.has_workloads(),
        ConnectionError::UnknownNode { .. } => inventory.has_nodes(),
        ConnectionError::UnknownService { .. } => !world.services.is_empty(),
        _ => true,
    };
    is_told.then(|| {
        *suggestions = left;
        error.to_string()
    })
}

/// Of everybody in the inventory.
fn addresses(inventory: &Inventory<'_>) -> BTreeSet<IpAddr> {
    let world = inventory.world;
    let workloads = world.workloads.values().map(|one| &one.addresses);
    let nodes = world.nodes.values().map(|one| &one.addresses);
    let services = world.services.values().map(|one| &one.addresses);
    let all = workloads.chain(nodes).chain(services);
    all.flatten().copied().collect()
}

fn asserts(
    inventory: &Inventory<'_>,
    addresses: &BTreeSet<IpAddr>,
    test: &PolicyTest,
    (index, assertion): (usize, &Assertion),
    findings: &mut Findings<'_>,
) {
    let path = format!("spec.assert[{index}]");
    let mut say = |path: String, message: String, hint: &str| {
        let found = Findings::at(Severity::Warning, &assertion.source, CODE, message);
        findings.push(found.at_path(path).with_hint(hint));
    };
    for (side, ends) in [("from", &assertion.from), ("to", &assertion.to)] {
        let Ends::Listed(parts) = ends else { continue };
        for (number, part) in parts.iter().enumerate() {
            if let Some((whom, hint)) = nobody(inventory, part) {
                let path = format!("{path}.{side}[{number}]");
                let message = format!("`{path}` of PolicyTest `{}` matches no {whom}", test.name);
                say(path, message, hint);
            }
        }
    }
    let is_outside = |ends| is_outside(addresses, ends);
    if !addresses.is_empty() && is_outside(&assertion.from) && is_outside(&assertion.to) {
        let message = format!(
            "`{path}` of PolicyTest `{}` is about nobody in the inventory",
            test.name
        );
        say(
            path,
            message,
            "no policy judges what passes between two ends outside",
        );
    }
}

fn nobody(inventory: &Inventory<'_>, part: &EndsPart) -> Option<(&'static str, &'static str)> {
    match part {
        EndsPart::Workloads {
            namespaces,
            workloads,
        } => {
            if LabelSet::of(namespaces).is_empty() || LabelSet::of(workloads).is_empty() {
                return Some(("workload", UNSATISFIABLE));
            }
            let scope = NamespaceScope::Matching(namespaces.clone());
            let nobody =
                inventory.has_workloads() && inventory.peers(&scope, workloads) == Found::Nobody;
            nobody.then_some(("workload", "check the labels, and the namespace"))
        }
        EndsPart::Nodes(selector) => {
            if LabelSet::of(selector).is_empty() {
                return Some(("node", UNSATISFIABLE));
            }
            let nobody = inventory.has_nodes() && inventory.node(selector).is_none();
            nobody.then_some(("node", "check the labels of the nodes"))
        }
        EndsPart::Block { cidr, except } => {
            let excepted = IpNet::aggregate(except);
            let nothing = excepted.iter().any(|hole| hole.contains(cidr));
            nothing.then_some(("address", "its exceptions leave nothing of it"))
        }
        EndsPart::Internet => None,
    }
}

/// Whether these are addresses of nobody, and some.
fn is_outside(addresses: &BTreeSet<IpAddr>, ends: &Ends) -> bool {
    let Ends::Listed(parts) = ends else {
        return false;
    };
    parts.iter().all(|part| match part {
        EndsPart::Workloads { .. } | EndsPart::Nodes(_) => false,
        EndsPart::Internet => true,
        EndsPart::Block { cidr, except } => {
            let mut inside = addresses.range(cidr.network()..=cidr.broadcast());
            let is_left = |address: &IpAddr| !except.iter().any(|hole| hole.contains(address));
            !inside.any(is_left)
        }
    })
}
