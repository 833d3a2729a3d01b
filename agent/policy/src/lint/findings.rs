//! What the lints found, and where to point.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    lint::policy::Policy,
    load::ParsedFile,
    model::{PolicyId, Source},
    parse::Declared,
};

#[derive(Debug)]
pub(super) struct Findings<'p> {
    /// Where the names of policies stand, of those that a file declares.
    names: BTreeMap<PolicyId, Position>,
    problems: &'p mut Vec<Diagnostic>,
}

impl<'p> Findings<'p> {
    pub(super) fn new(files: &[ParsedFile], problems: &'p mut Vec<Diagnostic>) -> Self {
        let objects = files.iter().flat_map(|file| &file.objects);
        let names = objects.filter_map(|object| match &object.declared {
            Declared::Policy { policy, uses: _ } => {
                Some((PolicyId::network_policy(&policy.name), object.at))
            }
            Declared::TierPolicy { policy, uses: _ } => Some((policy.id.clone(), object.at)),
            Declared::Namespace { .. }
            | Declared::Workload { .. }
            | Declared::Node { .. }
            | Declared::Service { .. }
            | Declared::NameTable { .. }
            | Declared::Test(_) => None,
        });
        Self {
            names: names.collect(),
            problems,
        }
    }

    /// A finding about the line where a rule, or a policy of an unknown place, begins.
    pub(super) fn at(
        severity: Severity,
        source: &Source,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        let Source { file, line } = source;
        let at = Position {
            line: *line,
            column: 1,
        };
        Diagnostic::new(severity, &Arc::clone(file), at, code, message)
    }

    /// A finding about a policy as a whole, where its name stands.
    pub(super) fn about(
        &self,
        policy: Policy<'_>,
        severity: Severity,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        let mut found = Self::at(severity, policy.source(), code, message);
        if let Some(at) = self.names.get(&policy.id()) {
            (found.line, found.column) = (at.line, at.column);
        }
        found
    }

    pub(super) fn push(&mut self, found: Diagnostic) {
        self.problems.push(found);
    }
}
