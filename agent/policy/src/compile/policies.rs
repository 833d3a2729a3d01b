//! Policies as the compiler uses them: rules with numbers, peer lists interned, times worked out.

use std::{collections::HashMap, sync::Arc};

use crate::{
    compile::timing::Timing,
    compiled::{Rank, RuleOrigin},
    model::{
        Denied, Direction, Failsafe, Mode, NetworkPolicy, Peer, Peers, PolicyId, PolicyKind, Ports,
        Source, Terms, Tier, TierAction, TierPolicy, Time, When, World,
    },
    question::RuleId,
};

/// A policy of any kind that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lowered {
    pub(super) order: Order,
    pub(super) denied: Denied,
    pub(super) ingress: Side,
    pub(super) egress: Side,
}

/// What comes before what, within all policies of a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    pub(super) rank: Rank,
    priority: u16,
    namespace: Option<String>,
    name: String,
    kind: PolicyKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// What no rule permits is denied.
    pub(super) isolates: bool,
    pub(super) rules: Vec<LoweredRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoweredRule {
    pub(super) origin: RuleOrigin,
    pub(super) action: TierAction,
    /// `None`: everybody.
    pub(super) peers: Option<Arc<[Peer]>>,
    pub(super) ports: Ports,
    pub(super) timing: Option<Arc<Timing>>,
}

/// What a kind says of itself, before its rules.
struct Heading<'p> {
    id: &'p PolicyId,
    rank: Rank,
    terms: &'p Terms,
}

/// A rule of any kind, in parts.
struct Parts<'p> {
    name: Option<&'p String>,
    action: TierAction,
    peers: &'p Peers,
    ports: &'p Ports,
    timing: Option<Arc<Timing>>,
    source: &'p Source,
}

/// What there is by this name; `None` if nothing is.
pub(super) fn mode(world: &World, id: &PolicyId) -> Option<Mode> {
    if let Some(name) = network_policy(id) {
        return Some(world.network_policies.get(&name)?.terms.mode);
    }
    Some(world.tier_policies.get(id)?.terms.mode)
}

pub(super) fn network_policy(id: &PolicyId) -> Option<crate::model::ObjectName> {
    let PolicyId {
        kind,
        namespace,
        name,
    } = id;
    (*kind == PolicyKind::NetworkPolicy)
        .then_some(namespace.as_ref())
        .flatten()
        .map(|namespace| crate::model::ObjectName::new(namespace, name))
}

pub(super) fn lower(world: &World, id: &PolicyId, now: Time) -> Option<Lowered> {
    if let Some(name) = network_policy(id) {
        return Some(of_namespace(id, world.network_policies.get(&name)?));
    }
    Some(of_tier(world.tier_policies.get(id)?, now))
}

pub(super) fn lower_failsafe(failsafe: &[Failsafe], direction: Direction) -> Vec<LoweredRule> {
    failsafe
        .iter()
        .filter(|entry| entry.direction == direction)
        .map(|entry| {
            let Failsafe {
                name,
                direction,
                peers,
                ports,
                source,
            } = entry;
            let heading = Heading {
                id: &PolicyId::cluster_wide(PolicyKind::Failsafe, name),
                rank: Rank::Failsafe,
                terms: &Terms::default(),
            };
            let parts = Parts {
                name: None,
                action: TierAction::Accept,
                peers,
                ports,
                timing: None,
                source,
            };
            heading.rule(*direction, 0, parts)
        })
        .collect()
}

fn of_namespace(id: &PolicyId, policy: &NetworkPolicy) -> Lowered {
    let heading = Heading {
        id,
        rank: Rank::NetworkPolicy,
        terms: &policy.terms,
    };
    let side = |direction| {
        let rules = policy.rules(direction);
        let lowered = (0..).zip(rules.unwrap_or_default()).map(|(index, rule)| {
            let parts = Parts {
                name: None,
                action: TierAction::Accept,
                peers: &rule.peers,
                ports: &rule.ports,
                timing: None,
                source: &rule.source,
            };
            heading.rule(direction, index, parts)
        });
        Side {
            isolates: rules.is_some(),
            rules: lowered.collect(),
        }
    };
    Lowered {
        order: heading.order(0),
        denied: policy.terms.denied,
        ingress: side(Direction::Ingress),
        egress: side(Direction::Egress),
    }
}

fn of_tier(policy: &TierPolicy, now: Time) -> Lowered {
    let heading = Heading {
        id: &policy.id,
        rank: match policy.tier {
            Tier::Quarantine => Rank::Quarantine,
            Tier::Admin => Rank::Admin,
            Tier::Baseline => Rank::Baseline,
        },
        terms: &policy.terms,
    };
    // Rules have few schedules among them, and each takes its time.
    let mut timings: HashMap<&When, Option<Arc<Timing>>> = HashMap::new();
    let mut side = |direction| {
        let rules = (0..).zip(policy.rules(direction)).map(|(index, rule)| {
            let parts = Parts {
                name: rule.name.as_ref(),
                action: rule.action,
                peers: &rule.peers,
                ports: &rule.ports,
                timing: timings
                    .entry(&rule.when)
                    .or_insert_with(|| Timing::new(&[&policy.when, &rule.when], now))
                    .clone(),
                source: &rule.source,
            };
            heading.rule(direction, index, parts)
        });
        Side {
            isolates: false,
            rules: rules.collect(),
        }
    };
    Lowered {
        order: heading.order(policy.priority),
        denied: policy.terms.denied,
        ingress: side(Direction::Ingress),
        egress: side(Direction::Egress),
    }
}

impl Heading<'_> {
    fn order(&self, priority: u16) -> Order {
        let PolicyId {
            kind,
            namespace,
            name,
        } = self.id;
        Order {
            rank: self.rank,
            priority,
            namespace: namespace.clone(),
            name: name.clone(),
            kind: *kind,
        }
    }

    fn rule(&self, direction: Direction, index: u32, parts: Parts<'_>) -> LoweredRule {
        let Parts {
            name,
            action,
            peers,
            ports,
            timing,
            source,
        } = parts;
        LoweredRule {
            origin: RuleOrigin {
                id: RuleId {
                    policy: self.id.clone(),
                    direction,
                    index,
                },
                rank: self.rank,
                name: name.cloned(),
                terms: self.terms.clone(),
                source: source.clone(),
            },
            action,
            peers: match peers {
                Peers::Every => None,
                Peers::Listed(peers) => Some(Arc::clone(peers)),
            },
            ports: ports.clone(),
            timing,
        }
    }
}

impl Lowered {
    pub(super) fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &LoweredRule> {
        self.ingress.rules.iter().chain(&self.egress.rules)
    }
}
