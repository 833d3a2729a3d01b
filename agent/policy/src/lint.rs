//! Policies that are valid and probably not what their author means.
//!
//! One file for each kind of doubt. They share how policies are read (`policy`), what selectors,
//! peers, ports and times take in (`labels`, `peers`, `ports`, `spans`, `subjects`), and who is there
//! (`inventory`): with neither evaluator, so that a lint is not wrong together with them.
//!
//! Every code is described in `agent/docs/diagnostics.md`.

mod budget;
mod default_namespace;
mod effect;
mod equal_priority;
mod failsafe;
mod findings;
mod inventory;
mod labels;
mod open;
mod peers;
mod policy;
mod policy_tests;
mod port_names;
mod ports;
mod selects_nothing;
mod shadow;
mod shared;
mod spans;
mod subjects;
mod windows;

#[cfg(test)]
mod tests;

use self::{findings::Findings, inventory::Inventory};
use crate::{diagnostic::Diagnostic, load::ParsedFile, model::World};

pub(crate) fn run(world: &World, files: &[ParsedFile], problems: &mut Vec<Diagnostic>) {
    let mut findings = Findings::new(files, problems);
    let inventory = Inventory::of(world);
    selects_nothing::run(&inventory, &mut findings);
    port_names::run(world, files, &mut findings);
    shadow::run(world, &mut findings);
    equal_priority::run(&inventory, &mut findings);
    open::run(world, &mut findings);
    effect::run(world, &mut findings);
    failsafe::run(&inventory, &mut findings);
    policy_tests::run(&inventory, files, &mut findings);
    shared::run(files, &mut findings);
    default_namespace::run(world, files, &mut findings);
    windows::run(world, &mut findings);
}
