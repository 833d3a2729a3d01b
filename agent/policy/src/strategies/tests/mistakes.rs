//! The strategies are only worth something if they find mistakes: here some are made.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{super::*, with_each_rule_list};
use crate::{
    model::{NamespaceScope, Peer, Peers, PortMatch, PortSpec, Ports, Protocol, Rule, Selector},
    question::Why,
    reference::Reference,
};

/// Worlds that are the same in every run.
fn fixed_worlds(count: usize) -> impl Iterator<Item = (World, Vec<Question>)> {
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
    let mut seen = BTreeMap::<&str, usize>::new();
    for (world, questions) in fixed_worlds(30) {
        for question in &questions {
            let reason = match Reference(&world).answer(question).why {
                Why::UnknownSubject => "unknown subject",
                Why::ItsOwnAddress => "own address",
                Why::OwnNode => "own node",
                Why::NotIsolated => "not isolated",
                Why::Rule { .. } => "rule",
                Why::DefaultDeny => "default deny",
                Why::Stale => "stale",
            };
            *seen.entry(reason).or_default() += 1;
        }
    }
    for reason in [
        "own address",
        "own node",
        "not isolated",
        "rule",
        "default deny",
    ] {
        let times = seen.get(reason).copied().unwrap_or(0);
        assert!(times > 20, "{reason} occurs too rarely: {seen:?}");
    }
}

/// A mistake that an evaluator could make, made in the world that it sees.
type Mistake = fn(&World) -> World;

#[test]
fn the_questions_find_an_evaluator_that_errs() {
    let mistakes: [(&str, Mistake); 7] = [
        ("exceptions are forgotten", |world| {
            with_each_rule_list(world, |rules| {
                for_each_peer(rules, |peer| {
                    if let Peer::Block { except, .. } = peer {
                        except.clear();
                    }
                });
            })
        }),
        ("an exception holds beyond its block", |world| {
            with_each_rule_list(world, |rules| {
                for rule in rules {
                    let Peers::Listed(peers) = &mut rule.peers else {
                        continue;
                    };
                    let holes: Vec<_> = peers
                        .iter()
                        .filter_map(|peer| match peer {
                            Peer::Block { except, .. } => Some(except.clone()),
                            _ => None,
                        })
                        .flatten()
                        .collect();
                    for peer in peers {
                        if let Peer::Block { except, .. } = peer {
                            except.clone_from(&holes);
                        }
                    }
                }
            })
        }),
        ("ranges end one too early", |world| {
            with_each_rule_list(world, |rules| {
                for_each_port(rules, |port| {
                    if let PortMatch::Transport {
                        port: PortSpec::Range { first, last },
                        ..
                    } = port
                        && first < last
                    {
                        *last -= 1;
                    }
                });
            })
        }),
        ("UDP is taken for SCTP", |world| {
            with_each_rule_list(world, |rules| {
                for_each_port(rules, |port| {
                    if let PortMatch::Transport { protocol, .. } = port
                        && *protocol == Protocol::Udp
                    {
                        *protocol = Protocol::Sctp;
                    }
                });
            })
        }),
        ("named ports are forgotten", |world| {
            let mut world = world.clone();
            world
                .workloads
                .values_mut()
                .for_each(|workload| Arc::make_mut(workload).ports.clear());
            world
        }),
        ("a selector of namespaces means all of them", |world| {
            with_each_rule_list(world, |rules| {
                for_each_peer(rules, |peer| {
                    if let Peer::Workloads { namespaces, .. } = peer {
                        *namespaces = NamespaceScope::Matching(Selector::default());
                    }
                });
            })
        }),
        ("a pod on the host network is a subject", |world| {
            let mut world = world.clone();
            world
                .workloads
                .values_mut()
                .for_each(|workload| Arc::make_mut(workload).host_network = false);
            world
        }),
    ];
    let worlds: Vec<_> = fixed_worlds(60).collect();
    for (what, mistake) in mistakes {
        let found = worlds.iter().any(|(world, questions)| {
            let wrong = mistake(world);
            check_agreement(&Reference(world), &Reference(&wrong), questions).is_err()
        });
        assert!(found, "not found: {what}");
    }
}

fn for_each_peer(rules: &mut [Rule], change: impl Fn(&mut Peer)) {
    for rule in rules {
        if let Peers::Listed(peers) = &mut rule.peers {
            peers.iter_mut().for_each(&change);
        }
    }
}

fn for_each_port(rules: &mut [Rule], change: impl Fn(&mut PortMatch)) {
    for rule in rules {
        if let Ports::Listed(ports) = &mut rule.ports {
            ports.iter_mut().for_each(&change);
        }
    }
}
