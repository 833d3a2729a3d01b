//! Hosts full of units that meet over loopback. In generated worlds, they are few.

use std::collections::BTreeSet;

use proptest::{bits, collection::vec, option, prelude::*, sample};

use crate::{
    example,
    model::{
        Change, Direction, EndpointSpec, ObjectName, Peer, Peers, PolicyId, PolicyKind, PortMatch,
        PortSpec, Ports, Protocol, Subjects, Terms, Tier, TierAction, TierPolicy, TierRule, When,
        WorkloadKind, World,
    },
};

/// Who becomes a unit, and what policies say of their sockets.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    /// For each workload: the place of its node, if it becomes one.
    nodes: Vec<Option<bool>>,
    said: Vec<Said>,
}

#[derive(Clone, Debug)]
struct Said {
    /// Bits of the units that are meant.
    subjects: u16,
    peers: u16,
    direction: Direction,
    action: TierAction,
    tcp_only: bool,
}

pub(crate) fn crowd() -> impl Strategy<Value = Crowd> {
    let node = prop_oneof![1 => Just(None), 3 => Just(Some(true)), 1 => Just(Some(false))];
    let nodes = option::weighted(0.7, vec(node, 10));
    (nodes, vec(said(), 0..=3)).prop_map(|(nodes, said)| Crowd {
        nodes: nodes.unwrap_or_default(),
        said,
    })
}

fn said() -> impl Strategy<Value = Said> {
    let direction = sample::select(vec![Direction::Ingress, Direction::Egress]);
    let action = sample::select(vec![TierAction::Accept, TierAction::Deny]);
    let units = || bits::u16::masked(0x03ff);
    (units(), units(), direction, action, any::<bool>()).prop_map(
        |(subjects, peers, direction, action, tcp_only)| Said {
            subjects,
            peers,
            direction,
            action,
            tcp_only,
        },
    )
}

// === impl Crowd ===

impl Crowd {
    pub(crate) fn settle(&self, world: &mut World) {
        let names: Vec<ObjectName> = world.workloads.keys().cloned().collect();
        let places: Vec<String> = world.nodes.keys().cloned().collect();
        for (name, node) in names.iter().zip(&self.nodes) {
            let Some(is_first) = node else { continue };
            let mut workload = world.workloads[name].as_ref().clone();
            workload.kind = WorkloadKind::Workload;
            workload.host_network = false;
            workload.addresses.clear();
            workload.node = places.get(usize::from(!is_first)).cloned();
            workload.endpoint = Some(EndpointSpec::SystemdUnit(unit(name)));
            world.apply(&Change::Workload(name.clone(), Some(workload.into())));
        }
        for (number, said) in self.said.iter().enumerate() {
            let policy = said.policy(number, &names);
            world.tier_policies.insert(policy.id.clone(), policy.into());
        }
    }
}

fn unit(name: &ObjectName) -> String {
    format!("{}-{}.service", name.namespace, name.name)
}

// === impl Said ===

impl Said {
    fn policy(&self, number: usize, names: &[ObjectName]) -> TierPolicy {
        let units = |bits: u16| -> Subjects {
            let names = names.iter().enumerate();
            let meant = names.filter(|(place, _)| bits & (1 << place) != 0);
            let units: BTreeSet<String> = meant.map(|(_, name)| unit(name)).collect();
            Subjects::Units(units)
        };
        let tcp = PortMatch::Transport {
            protocol: Protocol::Tcp,
            port: PortSpec::Range {
                first: 80,
                last: 8080,
            },
        };
        let rule = TierRule {
            name: None,
            action: self.action,
            peers: Peers::listed(vec![Peer::Local(units(self.peers))]),
            ports: if self.tcp_only {
                Ports::Listed(vec![tcp])
            } else {
                Ports::Every
            },
            when: When::default(),
            source: example::source(number.try_into().unwrap()),
        };
        let of = |direction| {
            let mine = self.direction == direction;
            mine.then(|| rule.clone()).into_iter().collect()
        };
        TierPolicy {
            id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, format!("crowd-{number}")),
            tier: Tier::Admin,
            priority: 1,
            subjects: units(self.subjects),
            ingress: of(Direction::Ingress),
            egress: of(Direction::Egress),
            when: When::default(),
            terms: Terms::default(),
            source: example::source(1),
        }
    }
}
