//! The strategies are only worth something if they find mistakes: here some are made.

mod network_policies;
mod others;
mod ranked;

use std::collections::BTreeMap;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{super::*, with_each_rule_list, with_each_tier_policy, with_each_tier_rule_list};
use crate::{
    model::{Peer, Peers, PolicyKind, PortMatch, Ports, Tier},
    question::{Action, Why},
    reference::Reference,
};

/// Worlds that are the same in every run.
fn fixed_worlds(count: usize) -> impl Iterator<Item = (World, Time, Vec<Question>)> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| {
        world_and_questions()
            .new_tree(&mut runner)
            .unwrap()
            .current()
    })
}

#[test]
fn every_reason_occurs() {
    let mut seen = BTreeMap::<String, usize>::new();
    for (world, _, questions) in fixed_worlds(80) {
        for question in &questions {
            let answer = Reference(&world).answer(question);
            let reason = match &answer.why {
                Why::UnknownSubject => "unknown subject".to_owned(),
                Why::ItsOwnAddress => "own address".to_owned(),
                Why::OwnNode => "own node".to_owned(),
                Why::NotIsolated => "not isolated".to_owned(),
                Why::DefaultDeny => format!("default deny: {:?}", answer.action),
                Why::Stale => "stale".to_owned(),
                Why::Rule(rule) => match rule.policy.kind {
                    PolicyKind::Failsafe => "failsafe".to_owned(),
                    PolicyKind::NetworkPolicy => "network policy".to_owned(),
                    PolicyKind::ClusterNetworkPolicy | PolicyKind::RingfencePolicy => {
                        let tier = world.tier_policies[&rule.policy].tier;
                        format!("{tier:?}: {:?}", answer.action)
                    }
                },
            };
            *seen.entry(reason).or_default() += 1;
        }
    }
    let denials = [Action::Drop, Action::Reject];
    let all = [Action::Allow, Action::Drop, Action::Reject];
    let reasons = [
        "unknown subject",
        "own address",
        "own node",
        "not isolated",
        "failsafe",
        "network policy",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(denials.map(|action| format!("default deny: {action:?}")))
    .chain(denials.map(|action| format!("{:?}: {action:?}", Tier::Quarantine)))
    .chain(all.map(|action| format!("{:?}: {action:?}", Tier::Admin)))
    .chain(all.map(|action| format!("{:?}: {action:?}", Tier::Baseline)));
    for reason in reasons {
        let times = seen.get(&reason).copied().unwrap_or(0);
        assert!(times > 20, "{reason} occurs too rarely: {seen:#?}");
    }
}

/// A mistake that an evaluator could make, made in the world that it sees.
type Mistake = (&'static str, fn(&World) -> World);

#[test]
fn the_questions_find_an_evaluator_that_errs() {
    let worlds: Vec<_> = fixed_worlds(600).collect();
    let lists: [&[Mistake]; 4] = [
        &network_policies::MISTAKES,
        &ranked::MISTAKES,
        &ranked::OF_SCHEDULES,
        &others::MISTAKES,
    ];
    let mut missed = Vec::new();
    for (what, mistake) in lists.into_iter().flatten() {
        let found = worlds.iter().any(|(world, _, questions)| {
            let wrong = mistake(world);
            wrong != *world
                && check_agreement(&Reference(world), &Reference(&wrong), questions).is_err()
        });
        if !found {
            missed.push(what);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

fn with_each_peer(world: &World, change: fn(&mut Peer)) -> World {
    with_each_list_of_peers(world, |peers| peers.iter_mut().for_each(change))
}

fn with_each_list_of_peers(world: &World, change: impl Fn(&mut Vec<Peer>)) -> World {
    let listed = |peers: &mut Peers| {
        if let Peers::Listed(shared) = peers {
            let mut peers = shared.to_vec();
            change(&mut peers);
            *shared = peers.into();
        }
    };
    let world = with_each_rule_list(world, |rules| {
        for rule in rules {
            listed(&mut rule.peers);
        }
    });
    with_each_tier_rule_list(&world, |rules| {
        for rule in rules {
            listed(&mut rule.peers);
        }
    })
}

fn with_each_port(world: &World, change: fn(&mut PortMatch)) -> World {
    let listed = |ports: &mut Ports| {
        if let Ports::Listed(ports) = ports {
            ports.iter_mut().for_each(change);
        }
    };
    let world = with_each_rule_list(world, |rules| {
        for rule in rules {
            listed(&mut rule.ports);
        }
    });
    with_each_tier_rule_list(&world, |rules| {
        for rule in rules {
            listed(&mut rule.ports);
        }
    })
}
