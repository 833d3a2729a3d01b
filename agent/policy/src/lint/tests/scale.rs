//! A large cluster: nothing is left out, and the time is that of the test run's report.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::*;
use crate::{
    load::NAMESPACE_NAME_LABEL,
    model::{
        Labels, NamespaceScope, NetworkPolicy, ObjectName, Peer, PolicyId, PolicyKind, PortMatch,
        PortSpec, Protocol, Requirement, Selector, Source, Subjects, Terms, Tier, TierAction,
        TierPolicy, When, Workload, WorkloadKind,
    },
};

const NAMESPACES: usize = 1_000;
const WORKLOADS: usize = 10_000;
const POLICIES: usize = 2_000;

fn source() -> Source {
    Source {
        file: "scale".into(),
        line: 1,
    }
}

fn select(key: &str, value: String) -> Selector {
    Selector {
        requirements: vec![Requirement::In {
            key: key.to_owned(),
            values: BTreeSet::from([value]),
        }],
    }
}

fn namespace(number: usize) -> String {
    format!("n{}", number % NAMESPACES)
}

fn app(number: usize) -> String {
    format!("a{}", number % 40)
}

fn tcp(port: usize) -> Ports {
    let port = u16::try_from(1 + port % 60_000).unwrap();
    Ports::Listed(vec![PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Range {
            first: port,
            last: port,
        },
    }])
}

fn block(number: usize) -> Peer {
    let number = u32::try_from(number).unwrap();
    let address = Ipv4Addr::from_bits((10 << 24) | (number << 4));
    Peer::Block {
        cidr: IpNet::V4(Ipv4Net::new(address, 28).unwrap()),
        except: Vec::new(),
    }
}

fn inventory() -> World {
    let mut world = World::default();
    for number in 0..NAMESPACES {
        let name = namespace(number);
        let labels = Labels::from([
            (NAMESPACE_NAME_LABEL.to_owned(), name.clone()),
            ("team".to_owned(), format!("t{}", number % 50)),
        ]);
        world.namespaces.insert(name, Arc::new(labels));
    }
    for number in 0..WORKLOADS {
        let name = ObjectName::new(namespace(number), format!("w{number}"));
        let workload = Workload {
            name: name.clone(),
            kind: WorkloadKind::Pod,
            labels: Arc::new(Labels::from([
                ("app".to_owned(), app(number)),
                ("pod".to_owned(), format!("w{number}")),
            ])),
            owner: None,
            addresses: BTreeSet::new(),
            ports: Vec::new(),
            node: None,
            host_network: false,
            ready: true,
            endpoint: None,
            source: source(),
        };
        world.workloads.insert(name, Arc::new(workload));
    }
    world
}

fn tier_policy(number: usize, subjects: Subjects, rules: usize) -> TierPolicy {
    let rule = |index| TierRule {
        name: None,
        action: TierAction::Accept,
        peers: Peers::listed(vec![block(number * rules + index)]),
        ports: tcp(index),
        when: When::default(),
        source: source(),
    };
    TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::ClusterNetworkPolicy, format!("p{number}")),
        tier: Tier::Admin,
        priority: 10,
        subjects,
        ingress: (0..rules).map(rule).collect(),
        egress: Vec::new(),
        when: When::default(),
        terms: Terms::default(),
        source: source(),
    }
}

fn network_policy(number: usize) -> NetworkPolicy {
    let name = ObjectName::new(namespace(number), format!("p{number}"));
    let peer = Peer::Workloads {
        namespaces: NamespaceScope::Matching(select("team", format!("t{}", number % 50))),
        workloads: select("app", app(number)),
    };
    let rule = |index| Rule {
        peers: Peers::listed(vec![peer.clone(), block(index)]),
        ports: tcp(index),
        source: source(),
    };
    NetworkPolicy {
        name,
        subject: Selector::default(),
        ingress: Some((0..8).map(rule).collect()),
        egress: None,
        terms: Terms::default(),
        source: source(),
    }
}

fn add(world: &mut World, policy: TierPolicy) {
    let id = policy.id.clone();
    world.tier_policies.insert(id, Arc::new(policy));
}

#[test]
fn thousands_of_policies_are_compared_in_full() {
    let mut world = inventory();
    for number in 0..POLICIES {
        let policy = network_policy(number);
        world
            .network_policies
            .insert(policy.name.clone(), Arc::new(policy));
        let subjects = Subjects::Workloads {
            namespaces: select("team", format!("t{}", number % 50)),
            workloads: select("app", app(number / 50)),
            host_network: false,
        };
        add(&mut world, tier_policy(number, subjects, 8));
    }
    let found = linted(&world);
    let incomplete = found.iter().find(|found| found.code == "too-many-rules");
    assert_eq!(incomplete, None);
}

#[test]
fn too_many_rules_about_the_same_subjects_are_said_to_be_too_many() {
    let mut world = inventory();
    for number in 0..POLICIES {
        let subjects = Subjects::Workloads {
            namespaces: Selector::default(),
            workloads: Selector::default(),
            host_network: false,
        };
        add(&mut world, tier_policy(number, subjects, 8));
    }
    let found = linted(&world);
    let incomplete = found.iter().filter(|found| found.code == "too-many-rules");
    assert_eq!(incomplete.count(), 1);
}
