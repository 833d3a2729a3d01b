//! `opens-to-the-world`: rules that allow more peers than their author can name.
//!
//! What is told, and how gravely, so that the ordinary does not drown the rest:
//!
//! | rule | |
//! |---|---|
//! | ingress from every peer, `0.0.0.0/0` or `::/0`, on every port, or all of TCP or UDP | warning |
//! | ingress from `0.0.0.0/0` or `::/0`, on listed ports: a public service, written on purpose | note |
//! | ingress from every peer on listed ports: the idiom of every Service | nothing |
//! | egress to every peer, `0.0.0.0/0` or `::/0`, on every port | warning |
//! | egress there on listed ports (DNS, HTTPS), or on all of one protocol | nothing |
//! | a block with exceptions: somebody thought about who is out | nothing |
//! | Deny and Pass | nothing |
//!
//! An ingress rule of a `NetworkPolicy` with every peer and every port is `open-to-all` or
//! `empty-list`, which say where; it is not told twice.

use super::{
    findings::Findings,
    peers::is_world,
    policy::{self, Policy, RuleAt},
    ports::are_wide,
};
use crate::{
    diagnostic::Severity,
    model::{Direction, Peers, Ports, TierAction, World},
};

/// Who may come, or be called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    EveryPeer,
    TheWorld,
}

pub(super) fn run(world: &World, findings: &mut Findings<'_>) {
    for policy in policy::all(world) {
        for rule in policy.all_rules() {
            if let Some((severity, who)) = judge(policy, &rule) {
                report(policy, &rule, severity, who, findings);
            }
        }
    }
}

fn judge(policy: Policy<'_>, rule: &RuleAt<'_>) -> Option<(Severity, Who)> {
    if rule.action != TierAction::Accept {
        return None;
    }
    let who = match rule.peers {
        Peers::Every => Who::EveryPeer,
        Peers::Listed(peers) => peers.iter().any(is_world).then_some(Who::TheWorld)?,
    };
    let every_port = *rule.ports == Ports::Every;
    let told = matches!(policy, Policy::Network(_)) && who == Who::EveryPeer && every_port;
    let severity = match rule.direction {
        Direction::Ingress if told => return None,
        Direction::Ingress if every_port || are_wide(rule.ports) => Severity::Warning,
        Direction::Ingress if who == Who::TheWorld => Severity::Note,
        Direction::Egress if every_port => Severity::Warning,
        Direction::Ingress | Direction::Egress => return None,
    };
    Some((severity, who))
}

fn report(
    policy: Policy<'_>,
    rule: &RuleAt<'_>,
    severity: Severity,
    who: Who,
    findings: &mut Findings<'_>,
) {
    let ports = match severity {
        Severity::Error | Severity::Warning if *rule.ports == Ports::Every => "every port",
        Severity::Error | Severity::Warning => "every port of a protocol",
        Severity::Note => "some ports",
    };
    let (ends, side) = match (rule.direction, who) {
        (Direction::Ingress, Who::EveryPeer) => ("from everybody", "from"),
        (Direction::Ingress, Who::TheWorld) => ("from every address", "from"),
        (Direction::Egress, Who::EveryPeer) => ("to everybody", "to"),
        (Direction::Egress, Who::TheWorld) => ("to every address", "to"),
    };
    let message = format!(
        "{} of `{}` allows {ports} {ends}",
        rule.title(),
        policy.id()
    );
    let hint = match severity {
        Severity::Note => format!("fine for a public service; else name the peers in `{side}`"),
        Severity::Error | Severity::Warning => {
            format!("name the peers in `{side}`, or the ports in `ports`")
        }
    };
    findings.push(
        Findings::at(severity, rule.source, "opens-to-the-world", message)
            .at_path(rule.path())
            .with_hint(hint),
    );
}
