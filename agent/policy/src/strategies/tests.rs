//! Facts that hold for any right evaluator, asked of the reference.

mod mistakes;

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::*;
use crate::{
    model::{Direction, NetworkPolicy, ObjectName, Peer, Peers, Rule, Workload},
    question::{Origin, RuleId, Why},
    reference::{Reference, isolating, matching},
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
                peers: Peers::Listed(vec![peer.clone()]),
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

fn subject<'w>(world: &'w World, question: &Question) -> &'w Workload {
    &world.workloads[question.subject.workload().unwrap()]
}

/// Renames the policies so that their order is reversed.
fn policies_reversed(world: &World) -> World {
    let mut world = world.clone();
    let policies: Vec<_> = std::mem::take(&mut world.network_policies)
        .into_values()
        .collect();
    let renamed = policies
        .into_iter()
        .rev()
        .enumerate()
        .map(|(index, mut policy)| {
            let namespace = policy.name.namespace.clone();
            Arc::make_mut(&mut policy).name = ObjectName::new(namespace, format!("r{index}"));
            (policy.name.clone(), policy)
        });
    world.network_policies = renamed.collect::<BTreeMap<_, _>>();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_evaluator_agrees_with_itself((world, questions) in world_and_questions()) {
        check_agreement(&Reference(&world), &Reference(&world.clone()), &questions)?;
    }

    #[test]
    fn a_verdict_is_what_its_reason_says((world, questions) in world_and_questions()) {
        for question in &questions {
            let answer = Reference(&world).answer(question);
            if let Why::Rule(RuleId { policy, direction, index }) = answer.why {
                let subject = subject(&world, question);
                let name = ObjectName::new(policy.namespace.unwrap(), policy.name);
                let rule = &world.network_policies[&name].rules(direction).unwrap()[index as usize];
                prop_assert!(matching::fit(&world, subject, question, rule).permits());
            }
        }
    }

    #[test]
    fn one_more_policy_changes_nothing_for_those_it_does_not_select(
        (world, questions) in world_and_questions(),
        mut added in policy(4),
    ) {
        added.name.name = "zz".to_owned();
        let mut more = world.clone();
        more.network_policies.insert(added.name.clone(), Arc::new(added.clone()));
        for question in &questions {
            let (before, after) = (Reference(&world).answer(question), Reference(&more).answer(question));
            let subject = subject(&world, question);
            let selected = isolating(&more, subject, question.direction)
                .any(|(policy, _)| policy.name == added.name);
            if !selected {
                prop_assert_eq!(before, after);
            } else if before.why != Why::NotIsolated {
                prop_assert!(after.allows() || !before.allows(), "policies only add: {:?}", question);
            }
        }
    }

    #[test]
    fn the_order_of_policies_rules_and_peers_does_not_matter((world, questions) in world_and_questions()) {
        let expected = passes(&world, &questions);
        let rules = with_each_rule_list(&world, |rules| rules.reverse());
        prop_assert_eq!(&expected, &passes(&rules, &questions), "rules");
        prop_assert_eq!(&expected, &passes(&policies_reversed(&world), &questions), "policies");
        let peers = with_each_rule_list(&world, |rules| for rule in rules {
            if let Peers::Listed(peers) = &mut rule.peers { peers.reverse() }
        });
        prop_assert_eq!(&expected, &passes(&peers, &questions), "peers");
    }

    #[test]
    fn what_is_cut_in_pieces_says_the_same((world, questions) in world_and_questions()) {
        let expected = passes(&world, &questions);
        let peers = with_each_rule_list(&world, one_peer_per_rule);
        prop_assert_eq!(&expected, &passes(&peers, &questions), "one peer a rule");
        let halves = with_each_rule_list(&world, blocks_in_halves);
        prop_assert_eq!(&expected, &passes(&halves, &questions), "blocks in halves");
    }

    #[test]
    fn nothing_isolates_a_workload_from_itself_nor_from_its_node((world, questions) in world_and_questions()) {
        for mut question in questions {
            let subject = subject(&world, &question);
            if !subject.owns_its_addresses() { continue }
            if let Some(own) = subject.addresses.first() {
                question.peer = *own;
                prop_assert!(Reference(&world).answer(&question).allows());
            }
            if let Some(node) = subject.node.as_ref().map(|name| &world.nodes[name]) {
                question.peer = *node.addresses.first().unwrap();
                question.origin = Origin::ThisNode;
                question.direction = Direction::Ingress;
                prop_assert_eq!(Reference(&world).answer(&question).why, Why::OwnNode);
            }
        }
    }
}
