//! Mistakes about ranked policies: order, actions, subjects, peers, and time.

use std::sync::Arc;

use super::{
    Mistake, with_each_list_of_peers, with_each_peer, with_each_tier_policy,
    with_each_tier_rule_list,
};
use crate::model::{
    Peer, Schedule, Selector, Subjects, Tier, TierAction, TierPolicy, When, Window, World,
};

pub(super) const MISTAKES: [Mistake; 21] = [
    ("Pass is taken for Accept", |world| {
        with_each_action(world, |action| match action {
            TierAction::Pass => TierAction::Accept,
            other => other,
        })
    }),
    ("Pass is taken for nothing", |world| {
        with_each_tier_rule_list(world, |rules| {
            rules.retain(|rule| rule.action != TierAction::Pass);
        })
    }),
    ("Deny is taken for Pass", |world| {
        with_each_action(world, |action| match action {
            TierAction::Deny => TierAction::Pass,
            other => other,
        })
    }),
    ("the priority is ignored", |world| {
        with_each_tier_policy(world, |policy| policy.priority = 0)
    }),
    ("the last rule decides", |world| {
        with_each_tier_rule_list(world, |rules| rules.reverse())
    }),
    ("Baseline is taken for Admin", |world| {
        with_each_tier_policy(world, |policy| {
            if policy.tier == Tier::Baseline {
                policy.tier = Tier::Admin;
            }
        })
    }),
    ("Admin is taken for Baseline", |world| {
        with_each_tier_policy(world, |policy| {
            if policy.tier == Tier::Admin {
                policy.tier = Tier::Baseline;
            }
        })
    }),
    ("quarantine is forgotten", |world| {
        without(world, |policy| policy.tier == Tier::Quarantine)
    }),
    ("quarantine ranks as Admin", |world| {
        with_each_tier_policy(world, |policy| {
            if policy.tier == Tier::Quarantine {
                policy.tier = Tier::Admin;
            }
        })
    }),
    ("nodes are no subjects", |world| {
        without(world, |policy| {
            matches!(policy.subjects, Subjects::Nodes(_))
        })
    }),
    ("units and cgroups are no subjects", |world| {
        without(world, |policy| {
            matches!(policy.subjects, Subjects::Units(_) | Subjects::Cgroups(_))
        })
    }),
    (
        "pods of the host's network are subjects of everybody",
        |world| {
            with_each_tier_policy(world, |policy| {
                if let Subjects::Workloads { host_network, .. } = &mut policy.subjects {
                    *host_network = true;
                }
            })
        },
    ),
    ("nodes are no peers", |world| {
        with_each_list_of_peers(world, |peers| {
            peers.retain(|peer| !matches!(peer, Peer::Nodes(_)));
        })
    }),
    ("the own node is no peer", |world| {
        with_each_list_of_peers(world, |peers| peers.retain(|peer| *peer != Peer::OwnNode))
    }),
    ("sockets are no peers", |world| {
        with_each_list_of_peers(world, |peers| {
            peers.retain(|peer| !matches!(peer, Peer::Local(_)));
        })
    }),
    ("whose socket it is does not matter", |world| {
        with_each_peer(world, |peer| {
            if let Peer::Local(who) = peer {
                *who = Subjects::Workloads {
                    namespaces: Selector::default(),
                    workloads: Selector::default(),
                    host_network: true,
                };
            }
        })
    }),
    ("a star stands for no label too", |world| {
        with_each_list_of_peers(world, |peers| {
            let apex = |peer: &Peer| match peer {
                Peer::Domain(pattern) => Some(Peer::Domain(pattern.strip_prefix("*.")?.to_owned())),
                _ => None,
            };
            let more: Vec<_> = peers.iter().filter_map(apex).collect();
            peers.extend(more);
        })
    }),
    ("a star stands for nothing", |world| {
        with_each_peer(world, |peer| {
            if let Peer::Domain(pattern) = peer {
                *pattern = pattern.trim_start_matches("*.").to_owned();
            }
        })
    }),
    ("what has expired is still there", |world| {
        with_each_when(world, |when| when.expires = None)
    }),
    ("what is not yet there is there", |world| {
        with_each_when(world, |when| when.not_before = None)
    }),
    ("schedules are ignored", |world| {
        with_each_when(world, |when| when.schedule = None)
    }),
];

pub(super) const OF_SCHEDULES: [Mistake; 3] = [
    ("every clock shows UTC", |world| {
        with_each_schedule(world, |schedule| "UTC".clone_into(&mut schedule.zone))
    }),
    ("windows end with the day", |world| {
        with_each_window(world, |window| {
            if window.to <= window.from {
                window.to = 1440;
            }
        })
    }),
    ("the minute of the end is inside", |world| {
        with_each_window(world, |window| {
            if window.from < window.to {
                window.to = (window.to + 1).min(1440);
            }
        })
    }),
];

fn with_each_action(world: &World, change: fn(TierAction) -> TierAction) -> World {
    with_each_tier_rule_list(world, |rules| {
        for rule in rules {
            rule.action = change(rule.action);
        }
    })
}

fn with_each_when(world: &World, change: impl Fn(&mut When)) -> World {
    with_each_tier_policy(world, |policy| {
        change(&mut policy.when);
        let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
        rules.for_each(|rule| change(&mut rule.when));
    })
}

fn with_each_schedule(world: &World, change: impl Fn(&mut Schedule)) -> World {
    with_each_when(world, |when| when.schedule.iter_mut().for_each(&change))
}

fn with_each_window(world: &World, change: fn(&mut Window)) -> World {
    with_each_schedule(world, |schedule| {
        schedule.windows.iter_mut().for_each(change);
    })
}

fn without(world: &World, is_gone: fn(&TierPolicy) -> bool) -> World {
    let mut world = world.clone();
    world
        .tier_policies
        .retain(|_, policy| !is_gone(Arc::as_ref(policy)));
    world
}
