//! `shadowed-rule`, `unreachable-rule`: rules that decide nothing, because others do before them.
//!
//! Never said of a rule that decides something: a rule is shadowed only where, for each of its
//! peers and each of its ports, one rule before it matches at least that, for at least the same
//! subjects, whenever it is in force and wherever it has a say. The contrary is not held: blocks
//! that cover only together, or rules of another tier, are not seen.

mod additive;
mod ranked;

pub(super) use self::ranked::in_order;

use super::{
    budget::Budget,
    findings::Findings,
    peers::{self, PeerSet},
    policy::RuleAt,
    ports::{self, PortSet},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{PolicyId, World},
};

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    ranked::run(world, findings);
    additive::run(world, findings);
}

/// A rule, made to be compared with many.
#[derive(Debug)]
struct Sets<'a> {
    peers: PeerSet<'a>,
    ports: PortSet<'a>,
}

/// What of a rule no other rule was found to cover yet.
struct Rest<'a> {
    peers: Vec<peers::Item<'a>>,
    ports: Vec<ports::Item<'a>>,
    /// For each peer, the ports that are left; empty where nothing is.
    left: Vec<Vec<usize>>,
    /// Peers of which something is left.
    open: usize,
}

/// Peers times ports of one rule that are looked at one by one. A rule with more is compared as a
/// whole only.
const PAIRS: usize = 4096;

/// Says where a lint stopped, so that silence is not taken for praise.
fn say_if_spent(budget: &Budget, stopped: Option<Diagnostic>, findings: &mut Findings<'_>) {
    if let Some(stopped) = stopped.filter(|_| budget.is_spent()) {
        findings.push(stopped.with_hint("name fewer rules for the same subjects, or merge them"));
    }
}

fn stopped(id: &PolicyId, rule: &RuleAt<'_>) -> Diagnostic {
    let message = format!(
        "rules from {} of policy `{id}` on are not compared: there are too many",
        rule.title()
    );
    Findings::at(Severity::Note, rule.source, "too-many-rules", message).at_path(rule.path())
}

/// The first few, and how many more.
fn listed(rules: &[String]) -> String {
    let few: Vec<&str> = rules.iter().take(3).map(String::as_str).collect();
    let few = few.join(", ");
    match rules.len().checked_sub(3) {
        Some(more @ 1..) => format!("{few} and {more} more"),
        Some(0) | None => few,
    }
}

// === impl Sets ===

impl<'a> Sets<'a> {
    fn of(rule: &RuleAt<'a>) -> Self {
        Self {
            peers: PeerSet::of(rule.peers),
            ports: PortSet::of(rule.ports),
        }
    }
}

// === impl Rest ===

impl<'a> Rest<'a> {
    /// `None` of a rule that matches nobody, of which its parser has said so.
    fn of(rule: &RuleAt<'a>) -> Option<Self> {
        let (peers, ports) = (peers::items(rule.peers), ports::items(rule.ports));
        let open = Some(peers.len()).filter(|peers| *peers > 0)?;
        let mut rest = Self {
            open,
            peers,
            ports,
            left: Vec::new(),
        };
        // Of one that is compared as a whole, only whether something is left counts.
        let ports = if rest.is_whole() { 1 } else { rest.ports.len() };
        rest.left = vec![(0..ports).collect(); open];
        Some(rest)
    }

    fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Takes away what a rule covers; whether that was anything.
    fn take(&mut self, sets: &Sets<'_>, budget: &mut Budget) -> bool {
        if !budget.spend(self.ports.len()) {
            return false;
        }
        let uncovered: Vec<usize> = (0..)
            .zip(&self.ports)
            .filter(|(_, port)| !sets.ports.covers(**port))
            .map(|(index, _)| index)
            .collect();
        let nothing = uncovered.len() == self.ports.len();
        if nothing || (self.is_whole() && !uncovered.is_empty()) {
            return false;
        }
        let mut took = false;
        for (peer, left) in self.peers.iter().zip(&mut self.left) {
            if left.is_empty() || !budget.spend(1) || !sets.peers.covers(peer, budget) {
                continue;
            }
            let before = left.len();
            left.retain(|port| uncovered.contains(port));
            took |= left.len() < before;
            if left.is_empty() {
                self.open -= 1;
            }
        }
        took
    }

    /// Whether it is compared as a whole only.
    fn is_whole(&self) -> bool {
        self.peers.len().saturating_mul(self.ports.len()) > PAIRS
    }
}
