//! Ranked policies over the alphabets, and what is above them.

use proptest::{collection::vec, option, prelude::*, sample};

use super::{
    alphabet::{SLOTS, selector, source, terms, wide_selector},
    policies::{block, domain, port_match, workloads_of_any_namespace},
    times::when,
};
use crate::model::{
    Direction, Failsafe, Peer, Peers, PolicyId, PolicyKind, Ports, Subjects, Tier, TierAction,
    TierPolicy, TierRule, When,
};

/// The name of the same policy of both kinds, now and then.
const NAMES: [&str; 4] = ["t0", "t1", "t2", "t3"];
/// Few, so that some are equal.
const PRIORITIES: [u16; 3] = [0, 5, 1000];

/// A policy of any tier. Those of Kubernetes select no nodes, units, cgroups nor hosts' pods, and
/// put nobody in quarantine.
pub fn tier_policy() -> impl Strategy<Value = TierPolicy> {
    prop_oneof![
        3 => ordinary(PolicyKind::ClusterNetworkPolicy, of_kubernetes().boxed()),
        5 => ordinary(PolicyKind::RingfencePolicy, of_ours().boxed()),
        1 => quarantine(),
    ]
}

fn ordinary(
    kind: PolicyKind,
    subjects: BoxedStrategy<Subjects>,
) -> impl Strategy<Value = TierPolicy> {
    (
        sample::select(&NAMES[..]),
        prop_oneof![Just(Tier::Admin), Just(Tier::Baseline)],
        sample::select(&PRIORITIES[..]),
        subjects,
        vec(rule(Direction::Ingress), 0..=4),
        vec(rule(Direction::Egress), 0..=4),
        when(),
        terms(),
    )
        .prop_map(
            move |(name, tier, priority, subjects, ingress, egress, when, terms)| TierPolicy {
                id: PolicyId::cluster_wide(kind, name),
                tier,
                priority,
                subjects,
                ingress,
                egress,
                when,
                terms,
                source: source(),
            },
        )
}

fn quarantine() -> impl Strategy<Value = TierPolicy> {
    let name = sample::select(&NAMES[..]);
    (name, of_ours(), when(), terms()).prop_map(|(name, subjects, when, terms)| {
        let everything = TierRule {
            name: None,
            action: TierAction::Deny,
            peers: Peers::Every,
            ports: Ports::Every,
            when: When::default(),
            source: source(),
        };
        TierPolicy {
            id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, name),
            tier: Tier::Quarantine,
            priority: 0,
            subjects,
            ingress: vec![everything.clone()],
            egress: vec![everything],
            when,
            terms,
            source: source(),
        }
    })
}

fn of_kubernetes() -> impl Strategy<Value = Subjects> {
    (wide_selector(), wide_selector()).prop_map(|(namespaces, workloads)| Subjects::Workloads {
        namespaces,
        workloads,
        host_network: false,
    })
}

fn of_ours() -> impl Strategy<Value = Subjects> {
    prop_oneof![
        3 => sharing(),
        1 => wide_selector().prop_map(Subjects::Nodes),
    ]
}

/// Those whom a policy and a peer over loopback name alike.
fn sharing() -> impl Strategy<Value = Subjects> + Clone {
    let some = |suffix: &'static str| {
        let names: Vec<_> = (0..SLOTS).map(|slot| format!("w{slot}{suffix}")).collect();
        sample::subsequence(names, 4..=12).prop_map(|names| names.into_iter().collect())
    };
    let workloads = (wide_selector(), wide_selector()).prop_map(|(namespaces, workloads)| {
        Subjects::Workloads {
            namespaces,
            workloads,
            host_network: true,
        }
    });
    prop_oneof![
        4 => workloads,
        1 => some(".service").prop_map(Subjects::Units),
        1 => some(".slice").prop_map(Subjects::Cgroups),
    ]
}

fn rule(direction: Direction) -> impl Strategy<Value = TierRule> {
    let name = option::of(Just("named".to_owned()));
    let action = prop_oneof![
        3 => Just(TierAction::Accept),
        3 => Just(TierAction::Deny),
        2 => Just(TierAction::Pass),
    ];
    let peers = prop_oneof![
        2 => Just(Peers::Every),
        8 => vec(peer(), 1..=3).prop_map(Peers::listed),
        // A peer of a kind that nobody knows yet.
        1 => Just(Peers::listed(Vec::new())),
    ];
    // Names of the DNS are for what goes out and is accepted.
    let names = option::weighted(0.3, vec(domain(), 1..=2).prop_map(Peers::listed));
    let ports = prop_oneof![
        1 => Just(Ports::Every),
        1 => vec(port_match(), 1..=3).prop_map(Ports::Listed),
    ];
    (name, action, peers, names, ports, when()).prop_map(
        move |(name, action, peers, names, ports, when)| {
            let may_name = direction == Direction::Egress && action == TierAction::Accept;
            TierRule {
                name,
                action,
                peers: names.filter(|_| may_name).unwrap_or(peers),
                ports,
                when,
                source: source(),
            }
        },
    )
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        4 => workloads_of_any_namespace(),
        3 => block(),
        2 => selector().prop_map(Peer::Nodes),
        1 => Just(Peer::OwnNode),
        2 => sharing().prop_map(Peer::Local),
    ]
}

pub(super) fn failsafe() -> impl Strategy<Value = Failsafe> {
    let name = sample::select(vec!["dhcp", "ssh", "api"]);
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    let peers = prop_oneof![
        1 => Just(Peers::Every),
        2 => vec(block(), 1..=2).prop_map(Peers::listed),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Every),
        6 => vec(super::policies::transport(), 1..=2).prop_map(Ports::Listed),
    ];
    (name, direction, peers, ports).prop_map(|(name, direction, peers, ports)| Failsafe {
        name: name.to_owned(),
        direction,
        peers,
        ports,
        source: source(),
    })
}
