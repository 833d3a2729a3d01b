//! `duplicate-window`: windows that their schedule has already.

use std::collections::HashMap;

use super::{findings::Findings, policy::Policy};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{When, Window, World},
};

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    for tier in world.tier_policies.values() {
        let policy = Policy::Tier(tier);
        for (path, message) in repeated(&tier.when, "spec") {
            let found = findings.about(policy, Severity::Warning, CODE, message);
            findings.push(ended(found, path));
        }
        for rule in policy.all_rules() {
            let Some(when) = rule.when else { continue };
            for (path, message) in repeated(when, &rule.path()) {
                let found = Findings::at(Severity::Warning, rule.source, CODE, message);
                findings.push(ended(found, path));
            }
        }
    }
}

const CODE: &str = "duplicate-window";

fn ended(found: Diagnostic, path: String) -> Diagnostic {
    found
        .at_path(path)
        .with_hint("remove it, or give it other days or hours")
}

/// The windows that are the same as one before them, each with what to say of it.
fn repeated(when: &When, holder: &str) -> Vec<(String, String)> {
    let mut seen: HashMap<&Window, usize> = HashMap::new();
    let mut found = Vec::new();
    let schedule = when.schedule.iter();
    for (index, window) in schedule.flat_map(|one| &one.windows).enumerate() {
        let first = *seen.entry(window).or_insert(index);
        if first < index {
            let list = format!("{holder}.when.schedule.windows");
            let message = format!("`{list}[{index}]` opens and closes with `{list}[{first}]`");
            found.push((format!("{list}[{index}]"), message));
        }
    }
    found
}
