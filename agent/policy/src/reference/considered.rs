//! Every policy that has a say about a question, and how far each of its rules fits.
//!
//! Not how an answer is found, but what people are shown beside it.

use crate::{
    model::{
        Failsafe, NetworkPolicy, PolicyId, PolicyKind, Rule, Source, Terms, Tier, TierAction,
        TierPolicy, TierRule, World,
    },
    question::{Question, RuleId},
    reference::{
        has_a_say, isolating,
        matching::{self, Condition, Fit},
        ranked,
        subject::Subject,
        time,
    },
};

/// A policy that selects the subject in the view of a question, and speaks about its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered<'w> {
    pub policy: PolicyId,
    /// `None` for failsafe, which is above the tiers, and for `NetworkPolicy`, which is between
    /// Admin and Baseline.
    pub tier: Option<Tier>,
    /// Of a ranked policy.
    pub priority: Option<u16>,
    /// Failsafe has none.
    pub terms: Option<&'w Terms>,
    /// Whether the policy exists at the moment of the question.
    pub time: bool,
    pub rules: Vec<ConsideredRule<'w>>,
    pub source: &'w Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsideredRule<'w> {
    pub id: RuleId,
    /// What its author calls it.
    pub name: Option<&'w str>,
    pub effect: Effect,
    /// Its time is that of the rule and of the policy.
    pub fit: Fit,
    pub source: &'w Source,
}

/// What a rule does where it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Allow,
    Deny,
    Pass,
}

/// The policies in the order in which they decide (§4.6), those outside their time too.
///
/// Nothing here looks behind frontends: ask about each question of
/// [`behind_frontend`](super::behind_frontend) instead, if there are any.
pub fn considered<'w>(world: &'w World, question: &Question) -> Vec<Considered<'w>> {
    let Some(subject) = Subject::find(world, &question.subject) else {
        return Vec::new();
    };
    let list = List {
        world,
        subject,
        question,
    };
    let mut all = list.failsafe();
    all.extend(list.tier(Tier::Quarantine));
    all.extend(list.tier(Tier::Admin));
    all.extend(list.network_policies());
    all.extend(list.tier(Tier::Baseline));
    all
}

struct List<'w, 'q> {
    world: &'w World,
    subject: Subject<'w>,
    question: &'q Question,
}

// === impl List ===

impl<'w> List<'w, '_> {
    fn failsafe(&self) -> Vec<Considered<'w>> {
        if self.subject.owner_of_addresses().is_some() {
            return Vec::new();
        }
        let entry = |failsafe: &'w Failsafe| {
            let policy = PolicyId::cluster_wide(PolicyKind::Failsafe, &failsafe.name);
            let source = &failsafe.source;
            let rule = self.rule(&policy, 0, failsafe, Effect::Allow, source);
            Considered {
                policy,
                tier: None,
                priority: None,
                terms: None,
                time: true,
                rules: vec![rule],
                source,
            }
        };
        let entries = self.world.failsafe.iter();
        entries
            .filter(|failsafe| failsafe.direction == self.question.direction)
            .map(entry)
            .collect()
    }

    fn tier(&self, tier: Tier) -> Vec<Considered<'w>> {
        let direction = self.question.direction;
        ranked(self.world, self.subject, self.question.view, tier)
            .into_iter()
            .filter(|policy| !policy.rules(direction).is_empty())
            .map(|policy| self.ranked(policy))
            .collect()
    }

    fn ranked(&self, policy: &'w TierPolicy) -> Considered<'w> {
        let time = time::holds(&policy.when, self.question.at);
        let judged = |(index, one): (u32, &'w TierRule)| {
            let effect = one.action.into();
            let mut rule = self.rule(&policy.id, index, one, effect, &one.source);
            rule.name = one.name.as_deref();
            rule.fit.time &= time;
            rule
        };
        Considered {
            policy: policy.id.clone(),
            tier: Some(policy.tier),
            priority: Some(policy.priority),
            terms: Some(&policy.terms),
            time,
            rules: (0..)
                .zip(policy.rules(self.question.direction))
                .map(judged)
                .collect(),
            source: &policy.source,
        }
    }

    fn network_policies(&self) -> Vec<Considered<'w>> {
        let Some(workload) = self.subject.workload() else {
            return Vec::new();
        };
        isolating(self.world, workload, self.question.direction)
            .filter(|(policy, _)| has_a_say(self.question.view, policy.terms.mode))
            .map(|(policy, rules)| self.network_policy(policy, rules))
            .collect()
    }

    fn network_policy(&self, policy: &'w NetworkPolicy, rules: &'w [Rule]) -> Considered<'w> {
        let id = PolicyId::network_policy(&policy.name);
        Considered {
            tier: None,
            priority: None,
            terms: Some(&policy.terms),
            time: true,
            rules: (0..)
                .zip(rules)
                .map(|(index, one)| self.rule(&id, index, one, Effect::Allow, &one.source))
                .collect(),
            source: &policy.source,
            policy: id,
        }
    }

    fn rule(
        &self,
        policy: &PolicyId,
        index: u32,
        condition: impl Into<Condition<'w>>,
        effect: Effect,
        source: &'w Source,
    ) -> ConsideredRule<'w> {
        ConsideredRule {
            id: RuleId {
                policy: policy.clone(),
                direction: self.question.direction,
                index,
            },
            name: None,
            effect,
            fit: matching::fit(self.world, self.subject, self.question, condition),
            source,
        }
    }
}

// === impl Effect ===

impl From<TierAction> for Effect {
    fn from(action: TierAction) -> Self {
        match action {
            TierAction::Accept => Self::Allow,
            TierAction::Deny => Self::Deny,
            TierAction::Pass => Self::Pass,
        }
    }
}
