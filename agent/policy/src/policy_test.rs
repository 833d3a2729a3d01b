//! Unit tests of policies, written beside them: what is expected of single connections.
//!
//! The parser makes a [`PolicyTest`] of each document of that kind; what it expects is run here, what
//! it asserts is for [`verify`](crate::verify).

mod junit;
mod render;

use serde::Serialize;

use crate::{
    compiled::Everywhere,
    connection::{
        Connection, ConnectionError, End, Judged, Perspective, Port, Side, Verdict, Ways,
    },
    model::{Source, Time, World},
    question::View,
    verify::Assertion,
};

/// `PolicyTest` of `ringfence.io/v1alpha1`. No part of a world: nothing that is enforced hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    pub name: String,
    /// The moment that it is about; that of the run, where it does not say.
    pub at: Option<Time>,
    pub view: Option<View>,
    pub expectations: Vec<Expectation>,
    pub assertions: Vec<Assertion>,
    pub source: Source,
}

/// What becomes of a connection on each of some ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub from: String,
    pub to: String,
    pub ports: Vec<Port>,
    pub verdict: Verdict,
    /// What decides, as in `shop/db ingress[0]`, or the name that its author gave a rule.
    pub rule: Option<String>,
    pub source: Source,
}

/// As JSON, `{"passed", "failed", "errors", "suites": [{"name", "file", "cases": […]}]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    pub errors: usize,
    pub suites: Vec<Suite>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suite {
    pub name: String,
    pub file: String,
    pub cases: Vec<Case>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    pub from: String,
    pub to: String,
    pub port: Port,
    pub expected: Verdict,
    pub line: u32,
    #[serde(flatten)]
    pub ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Ending {
    Pass,
    Fail {
        message: String,
        egress: Box<Side>,
        ingress: Box<Side>,
    },
    /// The question could not be asked.
    Error {
        message: String,
    },
}

impl PolicyTest {
    /// How it looks at the world, where it says so.
    pub fn perspective(&self, otherwise: Perspective) -> Perspective {
        Perspective {
            view: self.view.unwrap_or(otherwise.view),
            at: self.at.unwrap_or(otherwise.at),
        }
    }
}

/// Runs what tests expect.
pub fn run<'t>(
    world: &World,
    tests: impl IntoIterator<Item = &'t PolicyTest>,
    otherwise: Perspective,
) -> Report {
    let mut report = Report::default();
    for test in tests {
        if test.expectations.is_empty() {
            continue;
        }
        let perspective = test.perspective(otherwise);
        let tables = Everywhere::new(world, perspective.at);
        let mut cases = Vec::new();
        for expectation in &test.expectations {
            for port in &expectation.ports {
                let judged = expectation.judge(world, &tables, *port, perspective);
                let ending = match judged {
                    Ok(ways) => expectation.ending(&ways),
                    Err(error) => Ending::Error {
                        message: error.to_string(),
                    },
                };
                match ending {
                    Ending::Pass => report.passed += 1,
                    Ending::Fail { .. } => report.failed += 1,
                    Ending::Error { .. } => report.errors += 1,
                }
                cases.push(Case {
                    from: expectation.from.clone(),
                    to: expectation.to.clone(),
                    port: *port,
                    expected: expectation.verdict,
                    line: expectation.source.line,
                    ending,
                });
            }
        }
        report.suites.push(Suite {
            name: test.name.clone(),
            file: test.source.file.to_string(),
            cases,
        });
    }
    report
}

// === impl Expectation ===

impl Expectation {
    fn judge(
        &self,
        world: &World,
        tables: &Everywhere<'_>,
        port: Port,
        perspective: Perspective,
    ) -> Result<Ways<Judged>, ConnectionError> {
        let (from, to) = (End::parse(world, &self.from)?, End::parse(world, &self.to)?);
        let ways = Ways::new(world, &from, &to, port, perspective)?;
        Ok(ways.judge(world, tables))
    }

    /// Every pair of addresses has to end as expected.
    fn ending(&self, ways: &Ways<Judged>) -> Ending {
        let expected = self.verdict;
        let otherwise = |way: &&Judged| way.outcome.verdict != expected;
        if let Some((way, of)) = failing(ways, otherwise) {
            let seen = way.outcome.verdict;
            return Ending::fail(way, format!("expected {expected}, found {seen}{of}"));
        }
        let Some(rule) = &self.rule else {
            return Ending::Pass;
        };
        let not_by_it = |way: &&Judged| {
            let mut sides = [&way.outcome.egress, &way.outcome.ingress].into_iter();
            !sides.any(|side| side.verdict == expected && is_called(side, rule))
        };
        match failing(ways, not_by_it) {
            Some((way, of)) => Ending::fail(
                way,
                format!("{expected} as expected, but not by `{rule}`{of}"),
            ),
            None => Ending::Pass,
        }
    }
}

/// The first that fails, with words that name it unless all do.
fn failing(ways: &Ways<Judged>, fails: impl Fn(&&Judged) -> bool) -> Option<(&Judged, String)> {
    let count = ways.iter().filter(&fails).count();
    let first = ways.iter().find(&fails)?;
    let Connection { from, to, .. } = &first.connection;
    let all = ways.count();
    let of = if count == all {
        String::new()
    } else {
        format!(" from {from} to {to} ({count} of {all} pairs of addresses)")
    };
    Some((first, of))
}

fn is_called(side: &Side, name: &str) -> bool {
    let (Some(policy), Some(rule)) = (&side.policy, &side.rule) else {
        return false;
    };
    side.rule_name.as_deref() == Some(name) || name == format!("{policy} {rule}")
}

// === impl Ending ===

impl Ending {
    fn fail(way: &Judged, message: String) -> Self {
        let Judged {
            connection: _,
            outcome,
        } = way;
        Self::Fail {
            message,
            egress: Box::new(outcome.egress.clone()),
            ingress: Box::new(outcome.ingress.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
