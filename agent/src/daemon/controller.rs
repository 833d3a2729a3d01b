//! Owner of the desired state, and the only one who changes what the kernel enforces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_common::table::Endpoint;
use agent_policy::{
    compile::{Scope, compile},
    compiled::{Clock, Compiled},
    model::{EndpointSpec, ObjectName, SubjectName, Time, World},
    plan::Plan,
};
use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    control::status::{EndpointState, EndpointStatus, Hook, TableFill},
    daemon::{
        endpoints::Registry,
        inputs::{Inputs, Reload},
        status::{Enforcement, Shared},
        watch::{Trigger, Triggered},
    },
    datapath::{
        attach::{Target, TcHook},
        engine::{Engine, Reached, Unreached},
        link,
    },
    flow::{
        clock::WallTime,
        enrich::Inventory,
        record::{RuleRef, WorkloadRef},
    },
};

/// Between two looks at the files.
const FILES: Duration = Duration::from_millis(200);

/// Between two looks at everything else, should an announcement have been missed.
const BACKSTOP: Duration = Duration::from_secs(1);

/// Before a change that was refused is tried again.
const RETRY: Duration = Duration::from_secs(30);

pub(crate) struct Controller {
    inputs: Inputs,
    registry: Registry,
    engine: Engine,
    shared: Arc<Shared>,
    /// The name of this node: endpoints of others are none of ours.
    node: String,
    inventory: watch::Sender<Arc<Inventory>>,
    cgroups: watch::Sender<Vec<EndpointSpec>>,
    desired: Desired,
    /// Endpoints that are no more, and whose programs are still to be taken off.
    ended: BTreeSet<u16>,
    /// When the last change was tried that did not come into force.
    refused: Option<Instant>,
}

/// What is to be, of the world that is in force.
#[derive(Debug, Default)]
struct Desired {
    world: Arc<World>,
    compiled: Compiled,
    endpoints: BTreeMap<u16, SubjectName>,
    this_node: BTreeSet<IpAddr>,
}

impl Controller {
    pub(crate) fn new(
        inputs: Inputs,
        registry: Registry,
        engine: Engine,
        shared: Arc<Shared>,
        node: String,
        inventory: watch::Sender<Arc<Inventory>>,
        cgroups: watch::Sender<Vec<EndpointSpec>>,
    ) -> Self {
        let desired = Desired::default();
        Self {
            inputs,
            registry,
            engine,
            shared,
            node,
            inventory,
            cgroups,
            desired,
            ended: BTreeSet::new(),
            refused: None,
        }
    }

    /// Enforces what the inputs say now.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let this_node = link::addresses()?;
        self.enforce(self.inputs.world(), this_node)?;
        self.shared.loaded(Vec::new());
        self.reach();
        self.engine
            .release_others(&self.desired.endpoints.keys().copied().collect())?;
        Ok(())
    }

    /// Follows changes until told to stop. Whatever fails is shown in `status` and tried again.
    pub(crate) fn run(&mut self, triggers: &Triggered) {
        let mut looked = Instant::now();
        loop {
            let trigger = triggers.wait(FILES);
            if trigger == Some(Trigger::Stop) {
                return;
            }
            let reload = self.inputs.reload();
            let look = trigger.is_some() || looked.elapsed() >= BACKSTOP;
            if let Some(reload) = reload {
                self.reload(reload);
            } else if look {
                self.follow();
            } else {
                continue;
            }
            looked = Instant::now();
            self.reach();
        }
    }

    fn reload(&mut self, reload: Reload) {
        let Reload { world, errors } = reload;
        for error in &errors {
            tracing::error!("{error}");
        }
        self.put_into_force(world, self.desired.this_node.clone(), errors);
    }

    /// Follows the node's addresses, which have a say in what its own endpoints accept, and tries
    /// again what was refused: room may be had now.
    fn follow(&mut self) {
        let this_node = match link::addresses() {
            Ok(this_node) => this_node,
            Err(error) => {
                tracing::error!(%error, "cannot follow the node's addresses");
                return;
            }
        };
        let again = self.refused.is_some_and(|at| at.elapsed() >= RETRY);
        if again || (self.refused.is_none() && this_node != self.desired.this_node) {
            let (world, errors) = (self.inputs.world(), self.inputs.errors().to_vec());
            self.put_into_force(world, this_node, errors);
        }
    }

    /// Enforces, and shows how that went besides what is wrong with the input.
    fn put_into_force(
        &mut self,
        world: Arc<World>,
        this_node: BTreeSet<IpAddr>,
        mut errors: Vec<String>,
    ) {
        self.refused = None;
        if let Err(error) = self.enforce(world, this_node) {
            tracing::error!("{error:#}");
            errors.push(format!("{error:#}"));
            self.refused = Some(Instant::now());
        }
        self.shared.loaded(errors);
    }

    /// Compiles and puts into force.
    ///
    /// # Errors
    ///
    /// What was in force still is.
    fn enforce(&mut self, world: Arc<World>, this_node: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let local = world.workloads.values().filter(|workload| {
            let here = workload.node.as_ref().is_none_or(|node| *node == self.node);
            workload.endpoint.is_some() && here
        });
        let assignment = self.registry.assign(
            local.map(|workload| &workload.name),
            self.engine.capacity().endpoints,
        )?;
        let endpoints: BTreeMap<u16, SubjectName> = assignment
            .endpoints()
            .iter()
            .map(|(id, name)| (*id, name.clone().into()))
            .collect();
        let scope = Scope {
            subjects: endpoints.values().cloned().collect(),
            this_node: this_node.clone(),
        };
        let clock = Clock {
            now: WallTime::now().whole_seconds(),
            boot: Time::default(),
        };
        let compiled = compile(&world, &scope, &self.engine.programmed().port_tables, clock);
        let plan = Plan::new(self.engine.programmed(), &compiled, &endpoints);

        plan.check(self.engine.programmed(), self.engine.capacity())
            .map_err(crate::datapath::sync::ApplyError::Overflow)
            .context("the policy does not fit, and nothing has been changed")?;
        self.registry.keep(assignment)?;
        self.engine.apply(&plan)?;
        // Closed, until whoever is there now has been attached: never open in between.
        self.ended.extend(&plan.remove_words);
        if !plan.is_empty() {
            tracing::info!(
                generation = plan.generation,
                endpoints = plan.words.len(),
                prefixes = plan.prefixes.len(),
                answers = plan.policy.len(),
                "policy is in force"
            );
        }
        self.desired = Desired {
            world,
            compiled,
            endpoints,
            this_node,
        };
        self.inventory
            .send_replace(Arc::new(self.desired.inventory()));
        self.cgroups
            .send_replace(self.desired.specs().cloned().collect());
        Ok(())
    }

    /// Attaches what is not attached and can be.
    fn reach(&mut self) {
        let mut endpoints = BTreeMap::new();
        for (&id, name) in &self.desired.endpoints {
            let Some((spec, flags, policies)) = self.desired.declaration(name) else {
                continue;
            };
            let reached = self.engine.reach(Endpoint { id, flags }, spec);
            if let Ok(Reached::Attached(target)) = &reached {
                tracing::info!(endpoint = %name, at = ?target, "attached");
            }
            endpoints.insert(id, endpoint_status(name, spec, policies, reached));
        }
        self.release_ended();
        self.shared.in_force(Arc::clone(&self.desired.world));
        self.shared.enforces(Enforcement {
            generation: self.engine.programmed().generation,
            policies: self.desired.world.network_policies.len(),
            endpoints,
            tables: self.tables(),
        });
    }

    /// Takes off the programs of endpoints that are no more; tries again at the next look.
    fn release_ended(&mut self) {
        let engine = &mut self.engine;
        self.ended.retain(|id| match engine.release(*id) {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(endpoint = id, error = format!("{error:#}"), "cannot detach");
                true
            }
        });
    }

    fn tables(&self) -> Vec<TableFill> {
        let (held, capacity) = (self.engine.programmed(), self.engine.capacity());
        let v4 = held
            .prefixes
            .keys()
            .filter(|prefix| prefix.addr().is_ipv4())
            .count();
        let ports = held.port_tables.values().map(|table| table.0.len()).sum();
        [
            (
                "endpoints",
                held.words.len(),
                capacity.endpoints.saturating_sub(1),
            ),
            ("ipcache_v4", v4, capacity.prefixes),
            ("ipcache_v6", held.prefixes.len() - v4, capacity.prefixes),
            ("policy", held.policy.len(), capacity.policy),
            ("ports", ports, capacity.ports),
            ("addresses", held.own.len(), capacity.own_addresses),
        ]
        .map(|(name, used, capacity)| TableFill {
            name: name.to_owned(),
            used: u64::try_from(used).unwrap_or(u64::MAX),
            capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
        })
        .into()
    }
}

impl Desired {
    fn specs(&self) -> impl Iterator<Item = &EndpointSpec> {
        self.world
            .workloads
            .values()
            .filter_map(|workload| workload.endpoint.as_ref())
    }

    /// How an endpoint is found, its flags, and how many policies select it.
    fn declaration(&self, name: &SubjectName) -> Option<(&EndpointSpec, u16, usize)> {
        let spec = self
            .world
            .workloads
            .get(name.workload()?)?
            .endpoint
            .as_ref()?;
        let subject = self.compiled.subjects.get(name)?;
        Some((spec, subject.flags, subject.policies.len()))
    }

    /// Who is who, for records.
    fn inventory(&self) -> Inventory {
        let named: BTreeMap<&ObjectName, Arc<WorkloadRef>> = self
            .world
            .workloads
            .values()
            .map(|workload| {
                let reference = WorkloadRef {
                    namespace: workload.name.namespace.clone(),
                    name: workload.name.name.clone(),
                    kind: match workload.kind {
                        agent_policy::model::WorkloadKind::Pod => "Pod".into(),
                        agent_policy::model::WorkloadKind::Workload => "Workload".into(),
                    },
                    labels: workload.labels.clone(),
                };
                (&workload.name, Arc::new(reference))
            })
            .collect();
        let reference = |name: &ObjectName| named.get(name).map(Arc::clone);
        Inventory {
            by_address: self
                .world
                .addresses
                .iter()
                .filter_map(|(address, name)| Some((*address, reference(name)?)))
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .filter_map(|(id, name)| Some((*id, reference(name.workload()?)?)))
                .collect(),
            rules: self
                .compiled
                .rules
                .iter()
                .map(|(&rule_id, origin)| {
                    let rule = RuleRef {
                        kind: origin.id.policy.kind.name().into(),
                        namespace: origin.id.policy.namespace.clone(),
                        name: origin.id.policy.name.clone(),
                        rule: format!("{}[{}]", origin.id.direction, origin.id.index),
                        rule_id,
                    };
                    (rule_id, Arc::new(rule))
                })
                .collect(),
        }
    }
}

fn endpoint_status(
    name: &SubjectName,
    spec: &EndpointSpec,
    policies: usize,
    reached: Result<Reached, Unreached>,
) -> EndpointStatus {
    let mut status = EndpointStatus {
        name: name.to_string(),
        spec: spec.to_string(),
        state: EndpointState::Attached,
        hook: None,
        ifindex: None,
        cgroup_id: None,
        policies,
        message: None,
    };
    match reached {
        Ok(Reached::Standing(target) | Reached::Attached(target)) => match target {
            Target::Interface { index, hook } => {
                status.ifindex = Some(index);
                status.hook = Some(match hook {
                    TcHook::Tcx => Hook::Tcx,
                    TcHook::Clsact => Hook::Clsact,
                });
            }
            Target::Cgroup { id } => {
                status.cgroup_id = Some(id);
                status.hook = Some(Hook::Cgroup);
            }
        },
        Err(Unreached { waiting, message }) => {
            status.state = if waiting {
                EndpointState::Waiting
            } else {
                EndpointState::Failed
            };
            status.message = Some(message);
        }
    }
    status
}
