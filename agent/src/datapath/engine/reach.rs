//! Where an endpoint's programs have to hang, and how they come there.

use std::os::fd::{AsFd as _, OwnedFd};

use agent_common::table::Endpoint;
use agent_policy::model::EndpointSpec;

use super::{
    Engine, Place, Reached, Unreached,
    arrival::{Arrival, Hold, Scout, observed, renew},
    lock,
};
use crate::datapath::{
    attach::{self, Attached, Calls, Holder, Target},
    bpffs::BpfDir,
    cgroup::{Cgroup, CgroupError, CgroupName, Hierarchy},
    link,
    object::CgroupPrograms,
    tamper::{Kind, Tampering},
};

/// The programs of an endpoint in a cgroup.
pub(super) struct Confining {
    sends: OwnedFd,
    receives: OwnedFd,
    calls: Option<Calls>,
}

/// How an endpoint's programs are found.
enum Found {
    AsPut,
    /// Not where they have to be: the endpoint is new, or has moved.
    Elsewhere,
    Tampered(Kind),
}

impl Engine {
    /// Sees to it that the endpoint's programs hang where they have to.
    pub(crate) fn reach(
        &mut self,
        endpoint: Endpoint,
        place: Place<'_>,
    ) -> Result<Reached, Unreached> {
        // Those that were reached before this one wait for it.
        renew(&self.observation, self.arrivals.values());
        let spec = match place {
            Place::Declared(spec) => spec,
            Place::Node => return self.reach_node(endpoint),
        };
        match CgroupName::of(spec) {
            Some(Ok(name)) => {
                let cgroup = Hierarchy::find().and_then(|hierarchy| hierarchy.open(&name));
                self.reach_cgroup(endpoint, cgroup)
            }
            Some(Err(error)) => Err(Unreached::failed(&error)),
            None => self.reach_interface(endpoint, spec),
        }
    }

    fn reach_node(&mut self, endpoint: Endpoint) -> Result<Reached, Unreached> {
        let cgroup = Hierarchy::find().and_then(|hierarchy| hierarchy.open_root());
        let is_part = cgroup.as_ref().is_ok_and(|cgroup| !cgroup.is_root());
        let reached = self.reach_cgroup(endpoint, cgroup)?;
        if is_part {
            // Better than nothing, and not what was asked for.
            return Err(Unreached::failed(
                &"only a part of the cgroup hierarchy can be seen from here: processes outside of \
                  it are not confined; run the agent in the cgroup namespace of the host",
            ));
        }
        Ok(reached)
    }

    fn reach_interface(
        &mut self,
        endpoint: Endpoint,
        spec: &EndpointSpec,
    ) -> Result<Reached, Unreached> {
        let endpoint = endpoint.with(self.flags);
        let found = match self.links.resolve(spec) {
            // A list that is made while others come and go may lack one that is there, and to take that for gone
            // would close it: before it is believed, it is asked for by itself.
            Some(Err(error)) if error.may_pass() && self.attached.contains_key(&endpoint.id) => {
                let found = link::resolve(spec);
                if let Some(Ok(link)) = &found {
                    self.links.insert(link.clone());
                }
                found
            }
            found => found,
        };
        let link = match found {
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                if error.may_pass() {
                    self.forget_interfaces(endpoint.id, None);
                    self.arrivals.remove(&endpoint.id);
                }
                return Err(Unreached {
                    waiting: error.may_pass(),
                    message: error.to_string(),
                });
            }
            None => return Err(Unreached::failed(&"not an interface")),
        };
        let target = Target::Interface {
            index: link.index,
            hook: self.hook_at(link.index),
        };
        match self.found(endpoint.id, target) {
            Found::AsPut => return Ok(Reached::Standing(target)),
            Found::Elsewhere => {}
            Found::Tampered(kind) => {
                let restored = self.attach_again(endpoint, link.index);
                let restored = restored.map(drop);
                return self.tampered(endpoint.id, kind, spec.to_string(), target, restored);
            }
        }
        let holder = self.interfaces.get(link.index);
        let was_unknown = self.is_held_for_nobody(link.index);
        // What was open until now has flows that nothing has judged yet; what was closed may have them of
        // before that.
        let is_first = was_unknown || self.is_first(endpoint, target, holder);
        let scout = self.scout(endpoint, is_first, |engine| {
            engine.scout_behind(endpoint, spec)
        });
        let is_observed = scout.as_ref().is_some_and(Scout::has_flows);
        // What is closed stays so until its flows are taken up: nothing can begin unseen meanwhile.
        let stays_closed = is_observed && was_unknown && self.unknown.is_strict();
        let shown = if is_observed {
            endpoint.observed()
        } else {
            endpoint
        };
        // Before the programs, which drop what comes from an interface that they do not know; and
        // before an earlier interface is forgotten, which may be this one.
        if !stays_closed {
            if is_observed {
                self.begin_observation(endpoint, holder);
            }
            self.interfaces
                .insert(link.index, shown)
                .map_err(|error| Unreached::failed(&error))?;
        }
        self.forget_interfaces(endpoint.id, Some(link.index));
        let from = match holder {
            _ if was_unknown => Some(Holder::Unknown(link.index)),
            Some(holder) if holder.id != endpoint.id => Some(Holder::Endpoint(holder.id)),
            Some(_) | None => None,
        };
        if let Some(from) = from {
            // The same interface under another number: its programs stay where they are. They
            // could not be attached a second time, and must not be taken off in between.
            let to = Holder::Endpoint(endpoint.id);
            attach::hand_over(&self.dir, from, to, link.index).map_err(Unreached::of_attach)?;
            if let Holder::Endpoint(holder) = from {
                self.attached.remove(&holder);
            }
        }
        let target = match self.attach_interface(endpoint.id, link.index) {
            Ok(target) => target,
            Err(error) => {
                // One direction may hang there: it is not to stay open.
                self.interfaces
                    .insert(link.index, endpoint)
                    .map_err(|error| Unreached::failed(&error))?;
                return Err(error);
            }
        };
        if was_unknown && let Err(error) = self.pass_on(link.index) {
            // It is let go with the next look. What follows here must not wait for that: nobody else does it.
            let error = error.message;
            tracing::warn!(interface = link.name, error, "cannot be passed on for now");
        }
        if let Some(scout) = scout {
            let hold = if is_observed {
                Hold::Interface { index: link.index }
            } else {
                Hold::Enforced
            };
            self.arrivals.insert(endpoint.id, Arrival::new(scout, hold));
        }
        Ok(Reached::Attached(target))
    }

    fn attach_again(&mut self, endpoint: Endpoint, index: u32) -> Result<Target, Unreached> {
        self.pin_again(endpoint.id)?;
        self.attach_interface(endpoint.id, index)
    }

    fn attach_interface(&mut self, endpoint: u16, index: u32) -> Result<Target, Unreached> {
        let attached = self.hang(index, |hook, programs| {
            attach::attach_interface(&self.dir, endpoint, index, hook, programs)
        })?;
        let target = attached.target();
        self.attached.insert(endpoint, attached);
        // It may have been a cgroup before.
        self.confining.remove(&endpoint);
        Ok(target)
    }

    fn reach_cgroup(
        &mut self,
        endpoint: Endpoint,
        cgroup: Result<Cgroup, CgroupError>,
    ) -> Result<Reached, Unreached> {
        let cgroup = cgroup.map_err(|error| Unreached {
            waiting: error.may_pass(),
            message: error.to_string(),
        })?;
        let target = Target::Cgroup { id: cgroup.id() };
        match self.found(endpoint.id, target) {
            Found::AsPut => return Ok(Reached::Standing(target)),
            Found::Elsewhere => {}
            Found::Tampered(kind) => {
                let restored = self
                    .pin_again(endpoint.id)
                    .and_then(|()| self.confine(endpoint.id, &cgroup));
                let what = format!("cgroup {}", cgroup.path().display());
                return self.tampered(endpoint.id, kind, what, target, restored);
            }
        }
        let programs = self.load_for_cgroup(endpoint)?;
        self.confining.insert(endpoint.id, programs);
        // After what takes time: what begins from here on may be missed.
        let holder = self.cgroups.get(cgroup.id());
        let is_first = self.is_first(endpoint, target, holder);
        let scout = self.scout(endpoint, is_first, |engine| {
            engine.scout_here(endpoint, &cgroup)
        });
        let observing = if scout.as_ref().is_some_and(Scout::has_flows) {
            Some(self.load_for_cgroup(endpoint.observed())?)
        } else {
            None
        };
        let shown = if observing.is_some() {
            self.begin_observation(endpoint, holder);
            endpoint.observed()
        } else {
            endpoint
        };
        self.cgroups
            .insert(cgroup.id(), shown)
            .map_err(|error| Unreached::failed(&error))?;
        self.forget_cgroups(endpoint.id, Some(cgroup.id()));
        self.leave(endpoint.id, None);
        let observed = observing
            .as_ref()
            .and_then(|programs| programs.hang(&self.dir, endpoint.id, &cgroup).ok());
        match observed {
            Some(attached) => self.hangs(endpoint.id, attached),
            // Nor is a direction to stay open that could be observed, if the other could not.
            None => self.confine(endpoint.id, &cgroup)?,
        }
        if let Some(scout) = scout {
            let hold = if observing.is_some() {
                Hold::Cgroup(cgroup)
            } else {
                Hold::Enforced
            };
            self.arrivals.insert(endpoint.id, Arrival::new(scout, hold));
        }
        Ok(Reached::Attached(target))
    }

    fn load_for_cgroup(&self, endpoint: Endpoint) -> Result<Confining, Unreached> {
        let notes = lock(&self.programs).notes();
        // Those that were reached before this one wait for it.
        let waiting = observed(self.arrivals.values());
        self.observation
            .throughout(&waiting, || {
                CgroupPrograms::load(&self.folder(), &self.sizes, endpoint, notes)
            })
            .and_then(|programs| {
                let [sends, receives] = programs.fds()?;
                Ok(Confining {
                    sends: sends.try_clone_to_owned()?,
                    receives: receives.try_clone_to_owned()?,
                    calls: programs.calls()?,
                })
            })
            .map_err(|error| Unreached::failed(&format!("{error:#}")))
    }

    /// Attaches the programs that are loaded for the endpoint's cgroup.
    pub(super) fn confine(&mut self, endpoint: u16, cgroup: &Cgroup) -> Result<(), Unreached> {
        let programs = self.confining.get(&endpoint);
        let programs = programs.ok_or_else(|| Unreached::failed(&"its programs are not loaded"))?;
        let attached = programs.hang(&self.dir, endpoint, cgroup)?;
        self.hangs(endpoint, attached);
        Ok(())
    }

    fn hangs(&mut self, endpoint: u16, attached: Attached) {
        self.forget_interfaces(endpoint, None);
        self.attached.insert(endpoint, attached);
    }

    /// Links that are still held get their names back: a second link of one program is refused.
    fn pin_again(&self, endpoint: u16) -> Result<(), Unreached> {
        match self.attached.get(&endpoint) {
            Some(attached) => attached.pin_again().map_err(Unreached::of_attach),
            None => Ok(()),
        }
    }

    /// Remembers what was done to an endpoint's programs; of what cannot be put right, once.
    fn tampered(
        &mut self,
        endpoint: u16,
        kind: Kind,
        what: String,
        target: Target,
        restored: Result<(), Unreached>,
    ) -> Result<Reached, Unreached> {
        let is_known = match &restored {
            Ok(()) => {
                self.unrestored.remove(&endpoint);
                false
            }
            // The interface or cgroup goes, and takes with it what hung there.
            Err(error) if error.waiting => true,
            Err(_) => !self.unrestored.insert(endpoint),
        };
        if !is_known {
            self.noticed.push(Tampering {
                kind,
                what,
                count: 1,
                restored: restored.is_ok(),
            });
        }
        restored.map(|()| Reached::Standing(target))
    }

    fn found(&self, endpoint: u16, target: Target) -> Found {
        let attached = self.attached.get(&endpoint);
        let Some(attached) = attached.filter(|attached| attached.target() == target) else {
            return Found::Elsewhere;
        };
        match attached.interference(&self.dir) {
            Ok(None) => Found::AsPut,
            Ok(Some(kind)) => Found::Tampered(kind),
            // To attach once more is right, whatever cannot be read.
            Err(error) => {
                tracing::warn!(endpoint, %error, "cannot tell what is attached");
                Found::Elsewhere
            }
        }
    }
}

impl Confining {
    fn hang(&self, dir: &BpfDir, endpoint: u16, cgroup: &Cgroup) -> Result<Attached, Unreached> {
        let Self {
            sends,
            receives,
            calls,
        } = self;
        let fds = attach::Programs {
            sends: sends.as_fd(),
            receives: receives.as_fd(),
            calls: calls.as_ref(),
        };
        attach::attach_cgroup(dir, endpoint, cgroup, fds).map_err(Unreached::of_attach)
    }
}
