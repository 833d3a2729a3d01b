//! What hangs where it has to, and what `status` says of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agent_common::table::Endpoint;
use agent_policy::model::SubjectName;

use super::{Controller, Declared};
use crate::{
    control::status::{EndpointState, EndpointStatus, Hook, ProcessStatus, RejectionSums},
    daemon::{status::Enforcement, watch::LinkNews},
    datapath::{
        attach::{Target, TcHook},
        engine::{Place, Reached, Settled, Unreached},
        link::Link,
    },
    flow::clock::BootTime,
};

impl Controller {
    /// Deals with interfaces that have appeared, each for itself: how long that takes has nothing to do with
    /// how many others there are.
    ///
    /// What is attached now began `since`. A look at everything follows, and shows in `status` how it went.
    pub(super) fn greet(&mut self, since: u64) {
        let LinkNews { appeared, vanished } = self.news.take();
        for index in vanished {
            self.engine.vanished(index);
        }
        for link in appeared.into_values() {
            self.engine.appeared(link.clone());
            match self.owner(&link) {
                Some(id) => {
                    if matches!(self.reach_one(id), Some(Ok(Reached::Attached(_)))) {
                        self.settle(since, &mut BTreeMap::new());
                    }
                }
                None => {
                    if let Err(error) = self.engine.hold_new(link.index) {
                        let error = error.message;
                        tracing::debug!(interface = link.name, error, "cannot be held yet");
                    }
                }
            }
        }
    }

    /// The endpoint that an interface is declared for. One that is known by its namespace is asked for only
    /// if it is not where it was: each question takes its time.
    fn owner(&self, link: &Link) -> Option<u16> {
        if let Some(id) = self.desired.interfaces.get(&link.name) {
            return Some(*id);
        }
        let namespaces = self.desired.namespaces.iter();
        let mut missing = namespaces.filter(|id| !self.engine.is_placed(**id));
        missing
            .find(|id| self.engine.is_behind(link, self.desired.spec(**id)))
            .copied()
    }

    fn reach_one(&mut self, id: u16) -> Option<Result<Reached, Unreached>> {
        let Declared { name, flags, .. } = self.desired.endpoints.get(&id)?;
        let place = self.desired.place(name)?;
        let outcome = self.engine.reach(Endpoint { id, flags: *flags }, place);
        if let Ok(Reached::Attached(target)) = &outcome {
            tracing::info!(endpoint = %name, at = ?target, "attached");
        }
        Some(outcome)
    }

    /// Attaches what is not attached and can be.
    pub(super) fn reach(&mut self) {
        let since = BootTime::now().0;
        if let Err(error) = self.engine.look() {
            // Those of the last look, and what was announced since, are better than none.
            tracing::error!(%error, "cannot look for interfaces");
        }
        let mut reached = BTreeMap::new();
        let endpoints: Vec<u16> = self.desired.endpoints.keys().copied().collect();
        for id in endpoints {
            self.greet(since);
            if let Some(outcome) = self.reach_one(id) {
                reached.insert(id, outcome);
            }
        }
        self.settle(since, &mut reached);
        self.greet(since);
        self.release_ended();
        self.engine.set_sandboxes(self.inputs.sandboxes().clone());
        self.shared.holds(&self.engine.hold_unknown());
        self.greet(since);
        let unwatched = self.engine.guard();
        self.greet(since);
        let mut endpoints = BTreeMap::new();
        for (id, outcome) in reached {
            let Some(Declared { name, policies, .. }) = self.desired.endpoints.get(&id) else {
                continue;
            };
            let Some(place) = self.desired.place(name) else {
                continue;
            };
            let mut status = endpoint_status(name, place, *policies, outcome);
            if status.state == EndpointState::Attached {
                status.message = self.engine.unseeded(id).map(str::to_owned);
            }
            if status.hook == Some(Hook::Cgroup) {
                status.unjudged = unjudged(place, self.engine.unsecured(id), &unwatched);
            } else if status.hook.is_some() {
                status.unjudged = taken_before(self.engine.ahead(id)).into_iter().collect();
            }
            endpoints.insert(id, status);
        }
        self.shared.in_force(Arc::clone(&self.desired.world));
        self.shared.enforces(Enforcement {
            generation: self.engine.programmed().generation,
            policies: self.desired.policies(),
            next_change: self.desired.next_change,
            failsafe: Arc::clone(&self.desired.world.failsafe),
            endpoints,
            unconfined: self.unconfined_node(),
            processes: ProcessStatus {
                noted: self.engine.processes().are_noted(),
                messages: self.engine.processes().amiss(),
                lost: 0,
            },
            tables: self.tables(),
        });
        if self.refused.is_none() {
            let generation = self.engine.programmed().generation;
            self.inputs.in_force(generation, self.shared.is_enforcing());
        }
    }

    /// Enforces what has been attached for the first time, and ends what policy does not permit of it.
    fn settle(&mut self, since: u64, reached: &mut BTreeMap<u16, Result<Reached, Unreached>>) {
        let mut enforced = BTreeSet::new();
        for (id, outcome) in self.engine.settle(since) {
            match outcome {
                Ok(Settled { flows }) => {
                    if flows > 0 {
                        tracing::info!(endpoint = id, flows, "live connections are taken up");
                    }
                    enforced.insert(id);
                }
                Err(unreached) => {
                    reached.insert(id, Err(unreached));
                }
            }
        }
        self.cut(enforced.iter());
    }
}

/// Of what processes in a cgroup send, what its hooks do not see, nor anybody else.
fn unjudged(place: Place<'_>, unsecured: Option<&str>, unwatched: &[String]) -> Vec<String> {
    match place {
        Place::Node => vec!["frames of packet sockets (these need CAP_NET_RAW)".to_owned()],
        Place::Declared(_) => {
            let earlier = "frames of packet sockets with PACKET_QDISC_BYPASS, and of XDP sockets, where the socket was \
                           made ready for it before it was refused, or made outside of the cgroup and handed in (these \
                           need CAP_NET_RAW)";
            let of_others = unsecured.map(|where_and_why| format!("the same {where_and_why}"));
            let unwatched = unwatched.iter();
            let unwatched = unwatched.map(|what| format!("frames of packet sockets {what}"));
            std::iter::once(earlier.to_owned())
                .chain(of_others)
                .chain(unwatched)
                .collect()
        }
    }
}

/// What programs of others may keep from an endpoint's own.
fn taken_before(ahead: u32) -> Option<String> {
    (ahead > 0).then(|| {
        format!(
            "what programs of others take out of the interface's chain before ({ahead} in one direction)"
        )
    })
}

pub(super) fn endpoint_status(
    name: &SubjectName,
    place: Place<'_>,
    policies: usize,
    reached: Result<Reached, Unreached>,
) -> EndpointStatus {
    let mut status = EndpointStatus {
        name: name.to_string(),
        spec: place.to_string(),
        state: EndpointState::Attached,
        hook: None,
        ifindex: None,
        cgroup_id: None,
        policies,
        drops: BTreeMap::new(),
        unremembered: 0,
        unjudged: Vec::new(),
        rejections: RejectionSums::default(),
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
