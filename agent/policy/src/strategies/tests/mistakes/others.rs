//! Mistakes about modes and denials, Services, and those who are nobody's subjects.

use std::sync::Arc;

use super::{super::with_each_policy, Mistake, with_each_tier_policy};
use crate::model::{Denied, Mode, PortName, Service, Terms, Workload, World};

pub(super) const MISTAKES: [Mistake; 17] = [
    ("what is in audit is enforced", |world| {
        with_each_terms(world, |terms| {
            if terms.mode == Mode::Audit {
                terms.mode = Mode::Enforce;
            }
        })
    }),
    ("what is staged is enforced", |world| {
        with_each_terms(world, |terms| {
            if terms.mode == Mode::Staged {
                terms.mode = Mode::Enforce;
            }
        })
    }),
    ("audit is taken for staged", |world| {
        with_each_terms(world, |terms| {
            if terms.mode == Mode::Audit {
                terms.mode = Mode::Staged;
            }
        })
    }),
    ("what is not enforced is forgotten", |world| {
        let mut world = world.clone();
        let network_policies = &mut world.network_policies;
        network_policies.retain(|_, policy| policy.terms.mode == Mode::Enforce);
        let tier_policies = &mut world.tier_policies;
        tier_policies.retain(|_, policy| policy.terms.mode == Mode::Enforce);
        world
    }),
    ("nobody is refused", |world| {
        with_each_terms(world, |terms| terms.denied = Denied::Drop)
    }),
    ("everybody is refused", |world| {
        with_each_terms(world, |terms| terms.denied = Denied::Reject)
    }),
    ("failsafe is forgotten", |world| {
        let mut world = world.clone();
        world.failsafe = Arc::default();
        world
    }),
    ("frontends are judged like other addresses", |world| {
        let mut world = world.clone();
        world.services.clear();
        world
    }),
    ("ports of nodes are no frontends", |world| {
        with_each_service(world, |service| {
            service
                .ports
                .iter_mut()
                .for_each(|port| port.node_port = None);
        })
    }),
    ("addresses of Services are no frontends", |world| {
        with_each_service(world, |service| service.addresses.clear())
    }),
    ("who is not ready serves", |world| {
        with_each_workload(world, |workload| workload.ready = true)
    }),
    ("who is not ready never serves", |world| {
        with_each_service(world, |service| service.publish_not_ready = false)
    }),
    ("what served last is forgotten", |world| {
        with_each_service(world, |service| service.last.clear())
    }),
    ("backends made by hand are none", |world| {
        with_each_service(world, |service| service.by_hand.clear())
    }),
    ("ports of backends have no names", |world| {
        with_each_service(world, |service| {
            let named = |port: &crate::model::ServicePort| matches!(port.target, PortName::Name(_));
            service.ports.retain(|port| !named(port));
        })
    }),
    ("the port of the frontend is that of the backend", |world| {
        with_each_service(world, |service| {
            for port in &mut service.ports {
                port.target = PortName::Number(port.port);
            }
        })
    }),
    ("a pod on the host network is a subject", |world| {
        with_each_workload(world, |workload| workload.host_network = false)
    }),
];

fn with_each_terms(world: &World, change: fn(&mut Terms)) -> World {
    let world = with_each_policy(world, |policy| change(&mut policy.terms));
    with_each_tier_policy(&world, |policy| change(&mut policy.terms))
}

fn with_each_service(world: &World, change: fn(&mut Service)) -> World {
    let mut world = world.clone();
    world
        .services
        .values_mut()
        .for_each(|service| change(Arc::make_mut(service)));
    world
}

fn with_each_workload(world: &World, change: fn(&mut Workload)) -> World {
    let mut world = world.clone();
    world
        .workloads
        .values_mut()
        .for_each(|workload| change(Arc::make_mut(workload)));
    world
}
