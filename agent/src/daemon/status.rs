//! What `ringfence status` shows, gathered from everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use agent_common::{
    event::Loss,
    table::Endpoint,
    verdict::{Action, Reason},
};
use agent_policy::model::{
    EndpointSpec, Failsafe, ObjectName, PolicyKind, Time, WorkloadKind, World,
};

use crate::{
    config::Config,
    control::{
        server::StatusSource,
        status::{
            EndpointState, EndpointStatus, EventCounts, FailsafeStatus, Feature, HelperStatus,
            Hook, Load, PrivilegeStatus, ProcessStatus, RecordCounts, RejectionSums, Status,
            TableFill, UnknownLink, UnknownLinks, UnknownState,
        },
    },
    datapath::{
        attach::TcHook,
        engine::{Holding, UnknownInterface, UnknownMode},
        features,
        helper::{Helper, Seen},
        maps::{self, FlowMaps},
    },
    flow::{
        clock::WallTime, names::NameCounts, sink::SinkCounts, stage::Stage, views::OpinionCounts,
    },
    hubble::HubbleCounts,
    metrics::{FlowCounts, Latencies},
    source::kubernetes::store::Store,
};

/// Shared between the controller, the traffic tasks and the control socket.
pub(crate) struct Shared {
    node: String,
    started: Instant,
    features: Vec<Feature>,
    events_seen: Arc<AtomicU64>,
    /// What was learned from resolvers.
    pub(crate) names: Arc<NameCounts>,
    /// `None` without its API.
    pub(crate) hubble: Option<Arc<HubbleCounts>>,
    /// What becomes of interfaces of which nobody knows whose they are; `None` if none is taken for a
    /// workload's.
    unknown: Option<UnknownMode>,
    /// Objects of the Kubernetes API.
    kubernetes: Option<Arc<Store>>,
    pub(crate) flows: Arc<FlowCounts>,
    pub(crate) latencies: Latencies,
    told: Mutex<Told>,
}

/// What others have told.
#[derive(Default)]
struct Told {
    /// Policy has come into force, be it that there is nobody here to enforce it on.
    has_begun: bool,
    enforcement: Enforcement,
    unknown: Vec<UnknownLink>,
    world: Arc<World>,
    load: Option<Load>,
    flows: [u64; 3],
    /// As the tables were made, whatever the settings say now.
    flow_capacities: [u64; 3],
    maps: Option<FlowMaps>,
    stage: Option<Arc<Stage>>,
    sinks: Vec<(String, SinkCounts)>,
    opinions: Arc<OpinionCounts>,
    tampered: BTreeMap<String, u64>,
    /// Endpoint number → how often idle ends were asked to speak.
    prompted: BTreeMap<u16, u64>,
    privileges: PrivilegeStatus,
    helper: Option<Arc<Helper>>,
    /// Of pods, by their UIDs: what is not judged at where they are held.
    pods: BTreeMap<String, Vec<String>>,
}

/// What the controller has brought about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Enforcement {
    pub(crate) generation: u32,
    /// Of the world that is in force.
    pub(crate) policies: BTreeMap<PolicyKind, usize>,
    pub(crate) next_change: Option<Time>,
    pub(crate) failsafe: Arc<Vec<Failsafe>>,
    /// Endpoint number → its state.
    pub(crate) endpoints: BTreeMap<u16, EndpointStatus>,
    /// What should perhaps be an endpoint and is none.
    pub(crate) unconfined: Option<EndpointStatus>,
    pub(crate) tables: Vec<TableFill>,
    pub(crate) processes: ProcessStatus,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        features: &[features::Feature],
        kubernetes: Option<Arc<Store>>,
    ) -> Self {
        let features = features
            .iter()
            .map(|feature| Feature {
                name: format!("{} (Linux {})", feature.name, feature.since),
                available: feature.available,
                note: Some(feature.note.to_owned()),
            })
            .collect();
        Self {
            node: config.node.clone(),
            started: Instant::now(),
            features,
            events_seen: Arc::default(),
            names: Arc::default(),
            hubble: config.hubble.as_ref().map(|_| Arc::default()),
            unknown: config.workload_interfaces.mode(config.kubernetes.is_some()),
            kubernetes,
            flows: Arc::default(),
            latencies: Latencies::default(),
            told: Mutex::default(),
        }
    }

    /// Says what was kept of the privileges, and who does the rest.
    pub(crate) fn show_privileges(&self, privileges: PrivilegeStatus, helper: Option<Arc<Helper>>) {
        let mut told = self.lock();
        told.privileges = privileges;
        told.helper = helper;
    }

    pub(crate) fn show_records(
        &self,
        stage: Arc<Stage>,
        sinks: Vec<(String, SinkCounts)>,
        opinions: Arc<OpinionCounts>,
    ) {
        let mut told = self.lock();
        told.opinions = opinions;
        told.stage = Some(stage);
        told.sinks = sinks;
    }

    /// Gives the counter of events that have been read.
    pub(crate) fn show_traffic(&self, folder: &Path) -> anyhow::Result<Arc<AtomicU64>> {
        let mut capacities = [0; 3];
        for (capacity, name) in capacities
            .iter_mut()
            .zip(["FLOWS_V4", "FLOWS_V6", "DENIALS"])
        {
            *capacity = u64::try_from(maps::capacity(folder, name)?)?;
        }
        let mut told = self.lock();
        told.maps = Some(FlowMaps::open(folder)?);
        told.flow_capacities = capacities;
        drop(told);
        Ok(Arc::clone(&self.events_seen))
    }

    pub(crate) fn count_flows(&self, v4: usize, v6: usize, denials: usize) {
        self.lock().flows = [v4, v6, denials].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(crate) fn tampered(&self, how: &str, count: u64) {
        *self.lock().tampered.entry(how.to_owned()).or_default() += count;
    }

    pub(crate) fn loaded(&self, errors: Vec<String>) {
        let load = Load {
            at: WallTime::now(),
            ok: errors.is_empty(),
            errors,
        };
        self.lock().load = Some(load);
    }

    /// What hangs at interfaces of which nobody knows whose they are.
    pub(crate) fn holds(&self, unknown: &[UnknownInterface]) {
        let unknown = unknown.iter().map(|interface| self.shown(interface));
        let unknown = unknown.collect();
        self.lock().unknown = unknown;
    }

    fn shown(&self, interface: &UnknownInterface) -> UnknownLink {
        let UnknownInterface { name, index, hold } = interface;
        let (state, hook, message) = match hold {
            Holding::Held(hook) => {
                let state = match self.unknown {
                    Some(UnknownMode::Compatible) => UnknownState::Observed,
                    Some(UnknownMode::Strict) | None => UnknownState::Denied,
                };
                let hook = match hook {
                    TcHook::Tcx => Hook::Tcx,
                    TcHook::Clsact => Hook::Clsact,
                };
                (state, Some(hook), None)
            }
            Holding::LeftAlone(why) => (UnknownState::LeftAlone, None, Some(why.clone())),
            Holding::Failed(why) => (UnknownState::Failed, None, Some(why.clone())),
        };
        UnknownLink {
            name: name.clone(),
            ifindex: *index,
            state,
            hook,
            message,
        }
    }

    pub(crate) fn enforces(&self, enforcement: Enforcement) {
        let mut told = self.lock();
        told.has_begun = true;
        told.enforcement = enforcement;
    }

    /// An idle end of an endpoint's was asked to speak.
    pub(crate) fn prompted(&self, endpoint: u16) {
        *self.lock().prompted.entry(endpoint).or_default() += 1;
    }

    /// What questions about the running agent are answered from.
    pub(crate) fn in_force(&self, world: Arc<World>) {
        self.lock().world = world;
    }

    /// Pods of this node, as the API has them, of which nothing is held: nobody has found them.
    fn unfound(
        &self,
        world: &World,
        notes: &BTreeMap<String, &Vec<String>>,
    ) -> Vec<EndpointStatus> {
        let Some(store) = &self.kubernetes else {
            return Vec::new();
        };
        let here = world.workloads.values().filter(|workload| {
            workload.kind == WorkloadKind::Pod
                && workload.endpoint.is_none()
                && workload.node.as_deref() == Some(&*self.node)
                && store.pod_named(&workload.name).is_some()
        });
        let why = |name: &ObjectName| match notes.get(&name.to_string()) {
            Some(notes) => notes.join("; "),
            None => "no network of it is found on this node yet".to_owned(),
        };
        here.map(|workload| EndpointStatus {
            name: workload.name.to_string(),
            spec: "pod".to_owned(),
            state: EndpointState::Waiting,
            hook: None,
            ifindex: None,
            cgroup_id: None,
            policies: 0,
            drops: BTreeMap::new(),
            unremembered: 0,
            unjudged: Vec::new(),
            rejections: RejectionSums::default(),
            message: Some(why(&workload.name)),
        })
        .collect()
    }

    /// What of a pod is not judged.
    pub(crate) fn pod_notes(&self, uid: &str, notes: Vec<String>) {
        let mut told = self.lock();
        if notes.is_empty() {
            told.pods.remove(uid);
        } else {
            told.pods.insert(uid.to_owned(), notes);
        }
    }

    /// Where the kernel enforces for a workload with these addresses, if it does; at an interface, the one of this
    /// number: another one of its name may have been there before.
    pub(crate) fn held_at(
        &self,
        name: &ObjectName,
        index: Option<u32>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<EndpointSpec> {
        let told = self.lock();
        let workload = told.world.workloads.get(name)?;
        if !addresses.is_subset(&workload.addresses) {
            return None;
        }
        let spec = workload.endpoint.clone()?;
        let (name, at) = (name.to_string(), spec.to_string());
        let mut endpoints = told.enforcement.endpoints.values();
        let is_held = endpoints.any(|endpoint| {
            endpoint.name == name
                && endpoint.spec == at
                && index.is_none_or(|index| endpoint.ifindex == Some(index))
                && endpoint.state == EndpointState::Attached
        });
        is_held.then_some(spec)
    }

    pub(crate) fn is_enforcing(&self) -> bool {
        self.lock().is_enforcing()
    }

    /// One line for whoever started the agent.
    pub(crate) fn summary(&self) -> String {
        let told = self.lock();
        let Enforcement {
            generation,
            policies,
            endpoints,
            tables: _,
            next_change: _,
            failsafe: _,
            unconfined: _,
            processes: _,
        } = &told.enforcement;
        let policies: usize = policies.values().sum();
        let attached = endpoints
            .values()
            .filter(|endpoint| endpoint.state == EndpointState::Attached)
            .count();
        let missing = endpoints.len() - attached;
        let waiting = if missing == 0 {
            String::new()
        } else {
            format!(", {missing} not there")
        };
        format!(
            "ringfence is enforcing: {policies} policies, {attached} endpoints{waiting}, \
             generation {generation}"
        )
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Each change is one assignment: nothing is left half done by a panic.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn is_enforcing(&self) -> bool {
        let Enforcement {
            endpoints,
            unconfined,
            ..
        } = &self.enforcement;
        self.has_begun
            && endpoints
                .values()
                .chain(unconfined)
                .all(|endpoint| endpoint.state != EndpointState::Failed)
            && all_are_held(&self.unknown)
    }

    /// All tables, of which the controller knows nothing of those of flows.
    fn with_flows(&self, tables: &[TableFill]) -> Vec<TableFill> {
        let mut tables = tables.to_vec();
        let names = ["flows_v4", "flows_v6", "denials"];
        for ((name, used), capacity) in names.iter().zip(self.flows).zip(self.flow_capacities) {
            tables.push(TableFill {
                name: (*name).to_owned(),
                used,
                capacity,
            });
        }
        tables
    }

    fn records(&self) -> RecordCounts {
        let counted = |stage: &Arc<Stage>| stage.counts();
        let sinks = self.sinks.iter();
        RecordCounts {
            stream: self.stage.as_ref().map(counted).unwrap_or_default(),
            sinks: sinks
                .map(|(target, counts)| (target.clone(), counts.get()))
                .collect(),
        }
    }

    fn privileges(&self) -> PrivilegeStatus {
        let status = |helper: &Arc<Helper>| {
            let Seen {
                pid,
                restarts,
                has_ended,
            } = helper.seen();
            HelperStatus {
                pid,
                restarts,
                ended: has_ended,
            }
        };
        PrivilegeStatus {
            helper: self.helper.as_ref().map(status),
            ..self.privileges.clone()
        }
    }
}

impl StatusSource for Shared {
    fn world(&self) -> Arc<World> {
        Arc::clone(&self.lock().world)
    }

    fn status(&self) -> Status {
        let told = self.lock();
        let Enforcement {
            generation,
            endpoints,
            tables,
            policies,
            next_change,
            failsafe,
            unconfined,
            processes,
        } = &told.enforcement;
        let tables = told.with_flows(tables);
        let counted = |endpoint| {
            let maps = told.maps.as_ref();
            maps.map(|maps| packets(maps, endpoint)).unwrap_or_default()
        };
        let answered = |endpoint: u16| {
            let maps = told.maps.as_ref();
            let prompted = told.prompted.get(&endpoint).copied().unwrap_or(0);
            RejectionSums {
                prompted,
                ..maps.map(|maps| answers(maps, endpoint)).unwrap_or_default()
            }
        };
        let of_pods: BTreeMap<String, &Vec<String>> = told
            .pods
            .iter()
            .filter_map(|(uid, notes)| {
                let pod = self.kubernetes.as_ref()?.pod(uid)?;
                Some((pod.name.to_string(), notes))
            })
            .collect();
        let mut sums = counted(Endpoint::NOBODY.id);
        let unknown_interfaces = self.unknown.map(|mode| unknown(mode, &told.unknown, &sums));
        let mut rejections = RejectionSums::default();
        let mut shown = Vec::new();
        for (id, endpoint) in endpoints {
            let packets = counted(*id);
            for (reason, count) in &packets {
                *sums.entry(*reason).or_default() += count;
            }
            let answered = answered(*id);
            let notes = of_pods.get(&endpoint.name).map(|notes| notes.as_slice());
            rejections.sent += answered.sent;
            rejections.suppressed += answered.suppressed;
            rejections.prompted += answered.prompted;
            shown.push(EndpointStatus {
                rejections: answered,
                drops: drops(&packets),
                unremembered: unremembered(&packets),
                unjudged: [&endpoint.unjudged[..], notes.unwrap_or_default()].concat(),
                ..endpoint.clone()
            });
        }
        shown.extend(unconfined.clone());
        shown.extend(self.unfound(&told.world, &of_pods));
        let lost = |loss| {
            let maps = told.maps.as_ref();
            maps.map_or(0, |maps| maps.lost(loss).unwrap_or(0))
        };
        Status {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            node: self.node.clone(),
            generation: *generation,
            enforcing: told.is_enforcing(),
            last_load: told.load.clone(),
            kubernetes: self.kubernetes.as_ref().map(|store| store.status()),
            policies: policies
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), *count))
                .collect(),
            next_change: next_change.map(|at| at.to_string()),
            failsafe: failsafe.iter().map(FailsafeStatus::of).collect(),
            endpoints: shown,
            unknown_interfaces,
            tables,
            events: EventCounts {
                seen: self.events_seen.load(Relaxed),
                lost: lost(Loss::Event),
            },
            names: self.names.status(lost(Loss::Name)),
            hubble: self.hubble.as_ref().map(|counts| counts.status()),
            processes: ProcessStatus {
                lost: lost(Loss::Process),
                ..processes.clone()
            },
            drops: drops(&sums),
            unremembered: unremembered(&sums),
            rejections,
            would_be: told.opinions.get(),
            tampered: told.tampered.clone(),
            records: told.records(),
            privileges: told.privileges(),
            features: self.features.clone(),
        }
    }
}

/// An endpoint's packets by reason.
fn packets(maps: &FlowMaps, endpoint: u16) -> BTreeMap<Reason, u64> {
    let counters = maps.counters_of(endpoint).unwrap_or_else(|error| {
        let error = format!("{error:#}");
        tracing::warn!(endpoint, error, "cannot read counters");
        BTreeMap::new()
    });
    let packets = counters.into_iter();
    packets
        .map(|(reason, counter)| (reason, counter.packets))
        .collect()
}

/// By the packets of nobody.
fn unknown(
    mode: UnknownMode,
    interfaces: &[UnknownLink],
    packets: &BTreeMap<Reason, u64>,
) -> UnknownLinks {
    UnknownLinks {
        mode: mode.name().to_owned(),
        interfaces: interfaces.to_vec(),
        drops: drops(packets),
        observed: packets.get(&Reason::Observed).copied().unwrap_or(0),
    }
}

fn all_are_held(interfaces: &[UnknownLink]) -> bool {
    let mut interfaces = interfaces.iter();
    interfaces.all(|link| link.state != UnknownState::Failed)
}

/// Answers to an endpoint's denied packets.
fn answers(maps: &FlowMaps, endpoint: u16) -> RejectionSums {
    let [sent, suppressed] = maps.rejections_of(endpoint).unwrap_or_else(|error| {
        let error = format!("{error:#}");
        tracing::warn!(endpoint, error, "cannot read how often senders were told");
        [0; 2]
    });
    RejectionSums {
        sent,
        suppressed,
        prompted: 0,
    }
}

fn drops(packets: &BTreeMap<Reason, u64>) -> BTreeMap<String, u64> {
    let drops = packets.iter();
    drops
        .filter(|(reason, _)| reason.action() == Action::Deny)
        .map(|(reason, packets)| (reason.name().to_owned(), *packets))
        .collect()
}

fn unremembered(packets: &BTreeMap<Reason, u64>) -> u64 {
    packets.get(&Reason::FlowTableFull).copied().unwrap_or(0)
}
