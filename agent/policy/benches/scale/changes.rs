//! Single changes of the kind that a cluster sees all day, and how to take them back.

use std::sync::Arc;

use agent_policy::{
    compile::Scope,
    model::{
        Change, NetworkPolicy, ObjectName, Peers, PolicyId, PolicyKind, Ports, Protocol,
        TierPolicy, Workload,
    },
};

use crate::{
    cluster::{BUSY, Cluster, namespace_name, pod},
    policies::{ALL_OF_BUSY, OF_BUSY, port, rule},
};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The target.
    pub(crate) milliseconds: f64,
    pub(crate) there: Changes,
    pub(crate) back: Changes,
}

pub(crate) struct Changes {
    pub(crate) world: Vec<Change>,
    pub(crate) scope: Option<Scope>,
}

const ONE_POD: f64 = 5.0;
const ONE_POLICY: f64 = 20.0;

impl Cluster {
    pub(crate) fn cases(&self) -> Vec<Case> {
        let Self { size, world, scope } = self;
        // Neither is there yet: one that this node only talks to, and one that it runs.
        let far = pod(*size, size.pods);
        let mut near = Workload {
            node: pod(*size, 0).node,
            ..pod(*size, size.pods + 7)
        };
        "pod-new".clone_into(&mut near.name.name);
        let near_scope = {
            let mut scope = scope.clone();
            scope.subjects.insert(near.name.clone().into());
            scope
        };
        let old = Arc::clone(&world.workloads[&pod(*size, size.pods - 1).name]);
        let mut relabelled = (*old).clone();
        Arc::make_mut(&mut relabelled.labels).insert("app".to_owned(), "app-9".to_owned());
        let ours = Arc::clone(&world.workloads[&pod(*size, 0).name]);
        let mut ours_relabelled = (*ours).clone();
        Arc::make_mut(&mut ours_relabelled.labels).insert("tier".to_owned(), "other".to_owned());
        vec![
            case("add a pod elsewhere", ONE_POD, added(&far), gone(&far)),
            case(
                "relabel a pod elsewhere",
                ONE_POD,
                added(&relabelled),
                added(&old),
            ),
            case("remove a pod elsewhere", ONE_POD, gone(&old), added(&old)),
            Case {
                name: "add an endpoint",
                milliseconds: ONE_POD,
                there: Changes {
                    world: vec![added(&near)],
                    scope: Some(near_scope),
                },
                back: Changes {
                    world: vec![gone(&near)],
                    scope: Some(scope.clone()),
                },
            },
            case(
                "relabel an endpoint",
                ONE_POD,
                added(&ours_relabelled),
                added(&ours),
            ),
            case("remove an endpoint", ONE_POD, gone(&ours), added(&ours)),
        ]
        .into_iter()
        .chain(self.policy_cases())
        .collect()
    }

    /// Policies that select half of the endpoints: 100, where there are 200.
    fn policy_cases(&self) -> Vec<Case> {
        let name = ObjectName::new(namespace_name(BUSY), ALL_OF_BUSY);
        let policy = &self.world.network_policies[&name];
        let with_port = changed(policy, |policy| {
            for rule in policy.ingress.iter_mut().flatten() {
                rule.ports = Ports::Listed(vec![port(Protocol::Tcp, 7000, 7010)]);
            }
        });
        let with_blocks = changed(policy, |policy| {
            let block = "198.51.100.0/24".parse().map(|cidr| {
                let except = Vec::new();
                agent_policy::model::Peer::Block { cidr, except }
            });
            let peers = Peers::Listed(block.into_iter().collect());
            if let Some(rules) = &mut policy.egress {
                rules.push(rule(peers.clone(), Ports::Every));
            }
        });
        let id = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, OF_BUSY);
        let ranked = &self.world.tier_policies[&id];
        let mut other = TierPolicy::clone(ranked);
        for rule in &mut other.ingress {
            rule.ports = Ports::Listed(vec![port(Protocol::Udp, 7000, 7010)]);
        }
        let put = |policy: &Arc<NetworkPolicy>| {
            Change::NetworkPolicy(name.clone(), Some(Arc::clone(policy)))
        };
        let put_ranked =
            |policy: &Arc<TierPolicy>| Change::TierPolicy(id.clone(), Some(Arc::clone(policy)));
        vec![
            case(
                "change ports for half of the endpoints",
                ONE_POLICY,
                put(&with_port),
                put(policy),
            ),
            case(
                "add a block for half of the endpoints",
                ONE_POLICY,
                put(&with_blocks),
                put(policy),
            ),
            case(
                "remove a policy of half of the endpoints",
                ONE_POLICY,
                Change::NetworkPolicy(name.clone(), None),
                put(policy),
            ),
            case(
                "change a ranked policy of half of them",
                ONE_POLICY,
                put_ranked(&Arc::new(other)),
                put_ranked(ranked),
            ),
        ]
    }
}

fn case(name: &'static str, milliseconds: f64, there: Change, back: Change) -> Case {
    let alone = |change| Changes {
        world: vec![change],
        scope: None,
    };
    Case {
        name,
        milliseconds,
        there: alone(there),
        back: alone(back),
    }
}

fn added(workload: &Workload) -> Change {
    Change::Workload(workload.name.clone(), Some(Arc::new(workload.clone())))
}

fn gone(workload: &Workload) -> Change {
    Change::Workload(workload.name.clone(), None)
}

fn changed(policy: &NetworkPolicy, change: impl Fn(&mut NetworkPolicy)) -> Arc<NetworkPolicy> {
    let mut policy = policy.clone();
    change(&mut policy);
    Arc::new(policy)
}
