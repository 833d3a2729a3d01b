//! Facts that hold for any right evaluator, asked of the reference.

mod mistakes;

use std::sync::Arc;

use ipnet::IpNet;

use super::*;
use crate::{
    model::{
        Denied, Direction, Mode, NetworkPolicy, ObjectName, Peer, Peers, PolicyKind, Rule, Terms,
        Tier, TierPolicy, TierRule, Workload,
    },
    question::{Answer, Origin, View, Why},
    reference::{Considered, Effect, Reference, behind_frontend, considered, isolating},
};

/// Only what passes; the reason may well change with the order of things.
fn passes(world: &World, questions: &[Question]) -> Vec<bool> {
    questions
        .iter()
        .map(|question| Reference(world).answer(question).allows())
        .collect()
}

fn with_each_policy(world: &World, change: impl Fn(&mut NetworkPolicy)) -> World {
    let mut world = world.clone();
    world
        .network_policies
        .values_mut()
        .map(Arc::make_mut)
        .for_each(change);
    world
}

fn with_each_rule_list(world: &World, change: impl Fn(&mut Vec<Rule>)) -> World {
    with_each_policy(world, |policy| {
        [&mut policy.ingress, &mut policy.egress]
            .into_iter()
            .flatten()
            .for_each(&change);
    })
}

fn one_peer_per_rule(rules: &mut Vec<Rule>) {
    let split = |rule: &Rule| match &rule.peers {
        Peers::Every => vec![rule.clone()],
        Peers::Listed(peers) => {
            let alone = |peer: &Peer| Rule {
                peers: Peers::listed(vec![peer.clone()]),
                ..rule.clone()
            };
            peers.iter().map(alone).collect()
        }
    };
    *rules = rules.iter().flat_map(split).collect();
}

fn blocks_in_halves(rules: &mut Vec<Rule>) {
    for rule in rules {
        let Peers::Listed(peers) = &mut rule.peers else {
            continue;
        };
        let halves = |peer: &Peer| match peer {
            Peer::Block { cidr, except } if cidr.prefix_len() < cidr.max_prefix_len() => {
                let halves = cidr.subnets(cidr.prefix_len() + 1).unwrap();
                let half = |cidr: IpNet| Peer::Block {
                    cidr,
                    except: except.clone(),
                };
                halves.map(half).collect()
            }
            whole => vec![whole.clone()],
        };
        *peers = peers.iter().flat_map(halves).collect();
    }
}

fn with_each_tier_policy(world: &World, change: impl Fn(&mut TierPolicy)) -> World {
    let mut world = world.clone();
    world
        .tier_policies
        .values_mut()
        .map(Arc::make_mut)
        .for_each(change);
    world
}

fn with_each_tier_rule_list(world: &World, change: impl Fn(&mut Vec<TierRule>)) -> World {
    with_each_tier_policy(world, |policy| {
        [&mut policy.ingress, &mut policy.egress]
            .into_iter()
            .for_each(&change);
    })
}

/// Pass would say the same twice, and so do the others.
fn each_tier_rule_twice(rules: &mut Vec<TierRule>) {
    *rules = rules
        .iter()
        .flat_map(|rule| [rule.clone(), rule.clone()])
        .collect();
}

fn one_peer_per_tier_rule(rules: &mut Vec<TierRule>) {
    let split = |rule: &TierRule| match &rule.peers {
        Peers::Every => vec![rule.clone()],
        Peers::Listed(peers) => {
            let alone = |peer: &Peer| TierRule {
                peers: Peers::listed(vec![peer.clone()]),
                ..rule.clone()
            };
            peers.iter().map(alone).collect()
        }
    };
    *rules = rules.iter().flat_map(split).collect();
}

fn workload<'w>(world: &'w World, question: &Question) -> Option<&'w Workload> {
    let name = question.subject.workload()?;
    Some(world.workloads.get(name)?)
}

/// The answer to a question about one address, read off the list of what was considered.
fn by_list(world: &World, question: &Question) -> Answer {
    let policies = considered(world, question);
    let mut left = None;
    for policy in policies.iter().filter(|policy| policy.tier.is_some()) {
        assert!(policy.priority.is_some() && policy.terms.is_some());
    }
    for (index, policy) in policies.iter().enumerate() {
        if policy.tier.is_some() && policy.tier == left {
            continue;
        }
        let fitting = policy.rules.iter().find(|rule| rule.fit.permits());
        let denied = policy
            .terms
            .map_or_else(Default::default, |terms| terms.denied);
        match fitting.map(|rule| (rule.effect, Why::Rule(rule.id.clone()))) {
            Some((Effect::Allow, why)) => return Answer::allow(why),
            Some((Effect::Deny, why)) => return Answer::deny(why, denied),
            Some((Effect::Pass, _)) => left = policy.tier,
            None => {}
        }
        let isolates = |policy: &Considered<'_>| policy.policy.kind == PolicyKind::NetworkPolicy;
        let is_last = isolates(policy) && !policies.get(index + 1).is_some_and(isolates);
        if is_last {
            let mut all = policies.iter().filter(|policy| isolates(policy));
            let reject = all.all(|policy| policy.terms.unwrap().denied == Denied::Reject);
            let denied = if reject { Denied::Reject } else { Denied::Drop };
            return Answer::deny(Why::DefaultDeny, denied);
        }
    }
    Answer::allow(Why::NotIsolated)
}

/// Renames the policies so that their order is reversed.
fn policies_reversed(world: &World) -> World {
    let mut world = world.clone();
    let policies: Vec<_> = world.network_policies.values().cloned().collect();
    let renamed = policies
        .into_iter()
        .rev()
        .enumerate()
        .map(|(index, mut policy)| {
            let namespace = policy.name.namespace.clone();
            Arc::make_mut(&mut policy).name = ObjectName::new(namespace, format!("r{index}"));
            (policy.name.clone(), policy)
        });
    world.network_policies = renamed.collect();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_evaluator_agrees_with_itself((world, _, questions) in world_and_questions()) {
        check_agreement(&Reference(&world), &Reference(&world.clone()), &questions)?;
    }

    #[test]
    fn later_questions_are_not_earlier_ones((_, now, questions) in later_questions()) {
        prop_assert!(questions.iter().all(|question| question.at >= now));
    }

    #[test]
    fn what_was_considered_explains_the_answer((world, _, questions) in world_and_questions()) {
        for question in &questions {
            let answer = Reference(&world).answer(question);
            match answer.why {
                Why::UnknownSubject => prop_assert!(considered(&world, question).is_empty()),
                Why::ItsOwnAddress | Why::OwnNode => {}
                _ => {
                    let backends = behind_frontend(&world, question);
                    let answers: Vec<_> = backends.iter().map(|one| by_list(&world, one)).collect();
                    let denied = answers.iter().find(|answer| !answer.allows());
                    let expected = denied.or(answers.first()).cloned();
                    let expected = expected.unwrap_or_else(|| by_list(&world, question));
                    prop_assert_eq!(answer, expected, "about {:?}", question);
                }
            }
        }
    }

    #[test]
    fn one_more_policy_changes_nothing_for_those_it_does_not_select(
        (mut world, _, questions) in world_and_questions(),
        mut added in policy(4),
    ) {
        world.services.clear();
        added.name.name = "zz".to_owned();
        added.terms = Terms::default();
        let mut more = world.clone();
        more.network_policies.insert(added.name.clone(), Arc::new(added.clone()));
        for question in &questions {
            let (before, after) = (Reference(&world).answer(question), Reference(&more).answer(question));
            let selected = workload(&world, question).is_some_and(|subject| {
                isolating(&more, subject, question.direction).any(|(policy, _)| policy.name == added.name)
            });
            let is_isolated = considered(&world, question)
                .iter()
                .any(|policy| policy.policy.kind == PolicyKind::NetworkPolicy);
            if !selected {
                prop_assert_eq!(before, after);
            } else if is_isolated {
                prop_assert!(after.allows() || !before.allows(), "policies only add: {:?}", question);
            }
        }
    }

    #[test]
    fn the_order_of_policies_rules_and_peers_does_not_matter((world, _, questions) in world_and_questions()) {
        let expected = passes(&world, &questions);
        let rules = with_each_rule_list(&world, |rules| rules.reverse());
        prop_assert_eq!(&expected, &passes(&rules, &questions), "rules");
        prop_assert_eq!(&expected, &passes(&policies_reversed(&world), &questions), "policies");
        let peers = with_each_rule_list(&world, |rules| for rule in rules {
            if let Peers::Listed(peers) = &mut rule.peers { Arc::make_mut(peers).reverse() }
        });
        prop_assert_eq!(&expected, &passes(&peers, &questions), "peers");
    }

    #[test]
    fn what_is_cut_in_pieces_says_the_same((world, _, questions) in world_and_questions()) {
        let expected = passes(&world, &questions);
        let peers = with_each_rule_list(&world, one_peer_per_rule);
        prop_assert_eq!(&expected, &passes(&peers, &questions), "one peer a rule");
        let halves = with_each_rule_list(&world, blocks_in_halves);
        prop_assert_eq!(&expected, &passes(&halves, &questions), "blocks in halves");
        let peers = with_each_tier_rule_list(&world, one_peer_per_tier_rule);
        prop_assert_eq!(&expected, &passes(&peers, &questions), "one peer a ranked rule");
        let twice = with_each_tier_rule_list(&world, each_tier_rule_twice);
        prop_assert_eq!(&expected, &passes(&twice, &questions), "each ranked rule twice");
    }

    #[test]
    fn what_is_not_enforced_changes_nothing_that_happens((world, _, questions) in world_and_questions()) {
        let mut enforced = world.clone();
        enforced.network_policies.retain(|_, policy| policy.terms.mode == Mode::Enforce);
        enforced.tier_policies.retain(|_, policy| policy.terms.mode == Mode::Enforce);
        let live: Vec<_> = questions.into_iter().filter(|one| one.view == View::Live).collect();
        check_agreement(&Reference(&world), &Reference(&enforced), &live)?;
    }

    #[test]
    fn nothing_but_quarantine_isolates_a_workload_from_its_node((world, _, questions) in world_and_questions()) {
        for mut question in questions {
            let Some(subject) = workload(&world, &question) else { continue };
            if !subject.owns_its_addresses() { continue }
            if let Some(own) = subject.addresses.first() {
                question.peer = *own;
                prop_assert_eq!(Reference(&world).answer(&question).why, Why::ItsOwnAddress);
            }
            if let Some(node) = subject.node.as_ref().map(|name| &world.nodes[name]) {
                question.peer = *node.addresses.first().unwrap();
                question.origin = Origin::ThisNode;
                question.direction = Direction::Ingress;
                let is_shut = considered(&world, &question)
                    .iter()
                    .any(|policy| policy.tier == Some(Tier::Quarantine) && policy.time);
                let answer = Reference(&world).answer(&question);
                prop_assert_eq!(answer.allows(), !is_shut);
                prop_assert_eq!(answer.why == Why::OwnNode, !is_shut);
            }
        }
    }
}
