//! Policies of all kinds, as the lints read them.

use crate::model::{
    Direction, Mode, NetworkPolicy, Peers, PolicyId, Ports, Rule, Source, Subjects, TierAction,
    TierPolicy, TierRule, When, World,
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Policy<'a> {
    Network(&'a NetworkPolicy),
    Tier(&'a TierPolicy),
}

/// A rule with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleAt<'a> {
    pub(super) direction: Direction,
    /// From 0, in its direction.
    pub(super) index: usize,
    pub(super) name: Option<&'a str>,
    pub(super) action: TierAction,
    pub(super) peers: &'a Peers,
    pub(super) ports: &'a Ports,
    pub(super) when: Option<&'a When>,
    pub(super) source: &'a Source,
}

pub(super) fn all(world: &World) -> impl Iterator<Item = Policy<'_>> {
    let network = world.network_policies.values();
    let tiers = world.tier_policies.values();
    network
        .map(|policy| Policy::Network(policy))
        .chain(tiers.map(|policy| Policy::Tier(policy)))
}

// === impl Policy ===

impl<'a> Policy<'a> {
    pub(super) fn id(self) -> PolicyId {
        match self {
            Self::Network(policy) => PolicyId::network_policy(&policy.name),
            Self::Tier(policy) => policy.id.clone(),
        }
    }

    pub(super) fn source(self) -> &'a Source {
        match self {
            Self::Network(policy) => &policy.source,
            Self::Tier(policy) => &policy.source,
        }
    }

    pub(super) fn rules(self, direction: Direction) -> Vec<RuleAt<'a>> {
        match self {
            Self::Network(policy) => {
                let rules = policy.rules(direction).unwrap_or_default();
                let at = |(index, rule)| RuleAt::of_network_policy(direction, index, rule);
                rules.iter().enumerate().map(at).collect()
            }
            Self::Tier(policy) => {
                let rules = policy.rules(direction);
                let at = |(index, rule)| RuleAt::of_tier(direction, index, rule);
                rules.iter().enumerate().map(at).collect()
            }
        }
    }

    /// The rules of both directions.
    pub(super) fn all_rules(self) -> impl Iterator<Item = RuleAt<'a>> {
        Direction::BOTH
            .into_iter()
            .flat_map(move |direction| self.rules(direction))
    }
}

/// Whether one policy has a say in every view in which the other has.
pub(super) fn is_seen_with(one: Mode, other: Mode) -> bool {
    one == Mode::Enforce || one == other
}

/// The field that holds the subjects, for the kinds that have one name for it.
pub(super) fn subject_path(subjects: &Subjects) -> &'static str {
    match subjects {
        Subjects::Workloads { .. } => "spec.subject",
        Subjects::Units(_) => "spec.subject.units",
        Subjects::Cgroups(_) => "spec.subject.cgroups",
        Subjects::Nodes(_) => "spec.subject.nodes",
    }
}

// === impl RuleAt ===

impl<'a> RuleAt<'a> {
    fn of_network_policy(direction: Direction, index: usize, rule: &'a Rule) -> Self {
        let Rule {
            peers,
            ports,
            source,
        } = rule;
        Self {
            direction,
            index,
            name: None,
            action: TierAction::Accept,
            peers,
            ports,
            when: None,
            source,
        }
    }

    fn of_tier(direction: Direction, index: usize, rule: &'a TierRule) -> Self {
        let TierRule {
            name,
            action,
            peers,
            ports,
            when,
            source,
        } = rule;
        Self {
            direction,
            index,
            name: name.as_deref(),
            action: *action,
            peers,
            ports,
            when: Some(when),
            source,
        }
    }

    pub(super) fn path(&self) -> String {
        format!("spec.{}[{}]", self.direction, self.index)
    }

    /// The field with its peers.
    pub(super) fn side(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        }
    }

    /// As messages call it.
    pub(super) fn title(&self) -> String {
        match self.name {
            Some(name) => format!("`{}` (`{name}`)", self.path()),
            None => format!("`{}`", self.path()),
        }
    }
}
