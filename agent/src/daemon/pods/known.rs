//! What is known of one pod, and what a look makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use agent_policy::model::EndpointSpec;
use rustix::time::{ClockId, clock_gettime};

use super::{
    finder::{Depth, Found, Told},
    judge::{Judgement, judge},
    memory::Held,
    tree::{Group, Process},
};
use crate::{
    datapath::{
        helper::Helper,
        link::{Link, Links},
        sandbox::{Namespace, NamespaceId, Sandbox},
    },
    source::kubernetes::placement::{Beside, Placement},
};

/// A process that has just begun may be in its namespace only in a moment: a runtime puts it into the cgroup first.
const SETTLED: Duration = Duration::from_secs(2);

/// Of a pod whose processes are in a namespace that leads nowhere.
const UNCONNECTED: &str = "its network namespace has no interface that leads anywhere: its sockets are judged, at its \
                           cgroup; raw frames and what it forwards are not";

/// Of a pod that is announced without an interface.
pub(super) const NO_HOST_SIDE: &str =
    "its interface has no host side: its sockets are judged, at its cgroup";

/// Of a pod on the node's network, or without a host side, that has no cgroup to attach to.
const ONLY_V1: &str =
    "not confined: it has no interface on the node, and its cgroup is of version 1 alone";

/// What is known of a pod.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) group: Option<Group>,
    leaders: BTreeSet<Process>,
    /// The host side that it is placed at, by its number: as long as it is there, so is the sandbox.
    pub(super) host: Option<u32>,
    /// All host sides of its sandbox, when that was looked at last.
    sides: BTreeSet<u32>,
    /// A process of it had just begun then.
    was_young: bool,
    /// Why it is held nowhere.
    pub(super) unheld: Option<&'static str>,
    pub(super) found: Option<Found>,
    /// Somebody has said where it is, and no process of it was there yet.
    pub(super) is_announced: bool,
    /// What whoever made the host side has said that it has.
    assured: BTreeSet<IpAddr>,
    /// Has no address yet, or no interface.
    pub(super) waiting: Option<Namespace>,
    /// Why a namespace could not be asked; said once.
    amiss: Option<String>,
}

// === impl Known ===

impl Known {
    /// As an earlier agent held it, if what it was held at is still there.
    pub(super) fn of(held: &Held, links: &Links) -> Option<Self> {
        let Held {
            host,
            addresses,
            assured,
            beside,
        } = held;
        let placement = Placement {
            endpoint: EndpointSpec::Interface(links.get(*host)?.name.clone()),
            addresses: addresses.clone(),
            assured: assured.clone(),
            beside: beside.clone(),
        };
        let mut known = Self {
            host: Some(*host),
            assured: assured.clone(),
            ..Self::default()
        };
        known.found = Some(Found {
            placement,
            notes: Vec::new(),
        });
        known.sides = known.held();
        Some(known)
    }

    /// What the next agent is to know of it; `None` of what is at no interface.
    pub(super) fn to_keep(&self) -> Option<Held> {
        let placement = &self.found.as_ref()?.placement;
        Some(Held {
            host: self.host?,
            addresses: placement.addresses.clone(),
            assured: placement.assured.clone(),
            beside: placement.beside.clone(),
        })
    }

    /// True if it has to be looked at again soon.
    pub(super) fn look(
        &mut self,
        depth: Depth,
        links: &Links,
        sides: &BTreeMap<i32, BTreeSet<u32>>,
        helper: Option<&Helper>,
        told: Option<&Told>,
    ) -> bool {
        let on_node = told.map(|told| told.is_on_node);
        let none = BTreeSet::new();
        let given = told.map_or(&none, |told| &told.addresses);
        let leaders = match &self.group {
            Some(group) => group.leaders(&self.leaders),
            None => BTreeSet::new(),
        };
        let host = self.host.and_then(|index| links.get(index));
        let is_settled = match &self.found {
            Some(Found { placement, .. }) => match placement.endpoint {
                EndpointSpec::Interface(_) => host.is_some_and(|host| {
                    let number = host.leads_to_netns;
                    let sides = number.and_then(|number| sides.get(&number));
                    let beside = &mut placement.beside.values();
                    has_families(&placement.addresses, given)
                        && beside.all(|beside| !beside.addresses.is_empty())
                        && sides.is_none_or(|sides| *sides == self.sides)
                        // Once more when it has been there for a while.
                        && (!self.was_young || is_young(&leaders))
                }),
                _ => on_node == Some(true) || !is_young(&leaders),
            },
            None => false,
        };
        let ask = depth == Depth::Everything || !is_settled || leaders != self.leaders;
        self.is_announced &= leaders.is_empty();
        self.leaders = leaders;
        self.waiting = None;
        if on_node == Some(true) && self.host.is_none() {
            // Known before a process is there.
            self.at_cgroup(&Judgement::Node);
            return false;
        }
        let (mut again, mut judgement) = (false, None);
        if ask && !self.leaders.is_empty() {
            let (seen, has_gone) = self.ask(links, helper, given);
            self.was_young = is_young(&self.leaders);
            again |= has_gone;
            judgement = judge(seen, self.host);
        }
        let is_young = is_young(&self.leaders);
        match judgement {
            Some(Judgement::Interface { way, beside, notes }) => {
                if self.host != Some(way.index) {
                    // Those were of another sandbox.
                    self.assured.clear();
                }
                let held = self.held();
                self.host = Some(way.index);
                let own = way.index;
                let others = beside.iter().map(|way| way.index);
                self.sides = others.chain([way.index]).collect();
                let judged = Judgement::Interface {
                    way,
                    beside,
                    notes: notes.clone(),
                };
                let placement = judged.placement(None);
                self.found = placement.map(|mut placement| {
                    placement.assured.clone_from(&self.assured);
                    keep(&mut placement, held, own, links);
                    Found { placement, notes }
                });
            }
            // As long as its host side is there, so is the sandbox, whatever its processes have gone on to.
            _ if host.is_some() => {
                if let (Some(link), Some(found)) = (host, &mut self.found) {
                    found.placement.endpoint = EndpointSpec::Interface(link.name.clone());
                    found.placement.beside.retain(|index, beside| {
                        let link = links.get(*index);
                        if let Some(link) = link {
                            beside.interface.clone_from(&link.name);
                        }
                        link.is_some()
                    });
                    hold_unasked(&mut found.placement, link, links, sides);
                }
            }
            Some(judged @ Judgement::Past { .. }) => self.at_cgroup(&judged),
            // It is on its way to a namespace of its own.
            Some(Judgement::Node) if is_young && on_node == Some(false) => again = true,
            Some(judged @ Judgement::Node) => {
                self.at_cgroup(&judged);
                again |= is_young && on_node.is_none();
            }
            Some(Judgement::Unconnected) if is_young => {
                self.host = None;
                self.found = None;
                again = true;
            }
            // It may have hidden what it has.
            Some(Judgement::Unconnected) => self.at_cgroup(&Judgement::Past {
                addresses: BTreeSet::new(),
                notes: vec![UNCONNECTED.to_owned()],
            }),
            None => self.unseen(),
        }
        again
    }

    /// The numbers of the interfaces that it is held at.
    fn held(&self) -> BTreeSet<u32> {
        let found = self.found.as_ref();
        let beside = found.map(|found| found.placement.beside.keys());
        beside
            .into_iter()
            .flatten()
            .copied()
            .chain(self.host)
            .collect()
    }

    /// Nothing was asked, or nobody could be.
    fn unseen(&mut self) {
        if self.is_announced && self.group.is_some() && self.host.is_none() {
            return;
        }
        self.host = None;
        self.assured.clear();
        let is_at_cgroup = self
            .found
            .as_ref()
            .is_some_and(|found| matches!(found.placement.endpoint, EndpointSpec::Cgroup(_)));
        if self.group.is_none() || !is_at_cgroup {
            self.found = None;
        }
        if let (Some(why), None, false) = (&self.amiss, &self.found, self.leaders.is_empty()) {
            let why = format!(
                "its network namespace is not found, and its sockets are judged at its cgroup: {why}"
            );
            self.at_cgroup(&Judgement::Past {
                addresses: BTreeSet::new(),
                notes: vec![why],
            });
        } else if let (Some(found), true) = (&mut self.found, self.leaders.is_empty()) {
            // Whose they are by now, nobody knows.
            found.placement.addresses.clear();
        }
    }

    pub(super) fn at_cgroup(&mut self, judgement: &Judgement) {
        let cgroup = self.group.as_ref().and_then(|group| group.name.as_deref());
        self.host = None;
        let notes = match judgement {
            Judgement::Past { notes, .. } => notes.clone(),
            _ => Vec::new(),
        };
        let placement = judgement.placement(cgroup);
        let is_nowhere = placement.is_none() && self.group.is_some();
        self.unheld = is_nowhere.then_some(ONLY_V1);
        self.found = placement.map(|placement| Found { placement, notes });
    }

    /// Whether an interface is a further one of the sandbox that the pod is held at.
    pub(super) fn is_beside(&self, link: &Link, links: &Links) -> bool {
        let host = self.host.and_then(|index| links.get(index));
        host.is_some_and(|host| {
            host.index != link.index
                && link.leads_to_netns.is_some()
                && host.leads_to_netns == link.leads_to_netns
        })
    }

    /// As whoever made its interface has said.
    pub(super) fn hold(
        &mut self,
        at: Option<u32>,
        endpoint: EndpointSpec,
        addresses: BTreeSet<IpAddr>,
    ) {
        self.host = at;
        self.sides = at.into_iter().collect();
        self.assured.clone_from(&addresses);
        let placement = Placement {
            endpoint,
            assured: addresses.clone(),
            addresses,
            beside: BTreeMap::new(),
        };
        self.found = Some(Found {
            placement,
            notes: Vec::new(),
        });
    }

    pub(super) fn hold_beside(
        &mut self,
        index: u32,
        interface: String,
        addresses: BTreeSet<IpAddr>,
    ) {
        self.sides.insert(index);
        let beside = Beside {
            interface,
            addresses,
        };
        if let Some(found) = &mut self.found {
            found.placement.beside.insert(index, beside);
        }
    }

    /// What the namespaces of its oldest processes have, and whether one of them has gone meanwhile.
    fn ask(
        &mut self,
        links: &Links,
        helper: Option<&Helper>,
        given: &BTreeSet<IpAddr>,
    ) -> (Vec<(Process, Sandbox)>, bool) {
        let Some(group) = &self.group else {
            return (Vec::new(), false);
        };
        let (mut seen, mut has_gone, mut amiss) = (Vec::new(), false, None);
        // Most containers of a pod are in one, and it is asked once, of the oldest process.
        let mut ids = BTreeSet::new();
        for process in &self.leaders {
            if NamespaceId::of_process(process.pid).is_some_and(|id| ids.contains(&id)) {
                has_gone |= !group.has(*process);
                continue;
            }
            let asked = Namespace::of(process.pid, helper).and_then(|mut namespace| {
                let id = namespace.id()?;
                if ids.contains(&id) {
                    return Ok((namespace, id, None));
                }
                let mut sandbox = namespace.look(links)?;
                if is_waiting(&sandbox, given) {
                    // What comes from here on is announced; what came meanwhile is seen now.
                    namespace.listen()?;
                    sandbox = namespace.look(links)?;
                }
                Ok((namespace, id, Some(sandbox)))
            });
            // Another process may have its number by now.
            if !group.has(*process) {
                has_gone = true;
                continue;
            }
            match asked {
                Ok((namespace, id, sandbox)) => {
                    ids.insert(id);
                    let waits = |sandbox: &Sandbox| is_waiting(sandbox, given);
                    if sandbox.as_ref().is_some_and(waits) {
                        self.waiting = Some(namespace);
                    }
                    seen.extend(sandbox.map(|sandbox| (*process, sandbox)));
                }
                Err(error) => amiss = Some(format!("{error:#}")),
            }
        }
        if let (Some(why), true) = (&amiss, amiss != self.amiss) {
            tracing::warn!(group = %group.folder.display(), "the network of a pod is not found: {why}");
        }
        self.amiss = amiss;
        (seen, has_gone)
    }
}

/// What led to the sandbox stays its own until it is gone: a process of the pod can move the inner end to a namespace
/// that it has made. Whose its addresses are then, nobody knows.
fn keep(placement: &mut Placement, held: BTreeSet<u32>, own: u32, links: &Links) {
    for index in held {
        if let Some(link) = links.get(index).filter(|_| index != own) {
            let beside = || Beside {
                interface: link.name.clone(),
                addresses: BTreeSet::new(),
            };
            placement.beside.entry(index).or_insert_with(beside);
        }
    }
}

/// Whose a further host side is, the node knows; what it has is seen when a process is there to be asked.
fn hold_unasked(
    placement: &mut Placement,
    host: &Link,
    links: &Links,
    sides: &BTreeMap<i32, BTreeSet<u32>>,
) {
    let number = host.leads_to_netns;
    let sides = number.and_then(|number| sides.get(&number));
    let others = sides.into_iter().flatten();
    let others = others.filter_map(|index| links.get(*index));
    for other in others.filter(|other| other.index != host.index) {
        let beside = &mut placement.beside;
        beside.entry(other.index).or_insert_with(|| Beside {
            interface: other.name.clone(),
            addresses: BTreeSet::new(),
        });
    }
}

/// Whether addresses are still to come.
fn is_waiting(sandbox: &Sandbox, given: &BTreeSet<IpAddr>) -> bool {
    match sandbox {
        Sandbox::Node => false,
        Sandbox::Other { ways, past, .. } => {
            let inner = ways.iter().map(|way| &way.inner).chain(past);
            let has = inner.flat_map(|inner| inner.addresses.iter().copied());
            !has_families(&has.collect(), given)
                || ways.iter().any(|way| way.inner.addresses.is_empty())
        }
    }
}

/// Whether there is an address of each family of which the API has given one, and at least one in any case.
fn has_families(has: &BTreeSet<IpAddr>, given: &BTreeSet<IpAddr>) -> bool {
    let of = |is_v4: bool| move |address: &IpAddr| address.is_ipv4() == is_v4;
    let families = [true, false].into_iter();
    !has.is_empty()
        && families
            .filter(|is_v4| given.iter().any(of(*is_v4)))
            .all(|is_v4| has.iter().any(of(is_v4)))
}

/// Whether one of these has just begun.
fn is_young(processes: &BTreeSet<Process>) -> bool {
    let now = clock_gettime(ClockId::Boottime);
    let ticks = now.tv_sec * 100 + now.tv_nsec / 10_000_000;
    let since = |process: &Process| {
        u64::try_from(ticks)
            .unwrap_or(0)
            .saturating_sub(process.began)
    };
    let settled = u64::try_from(SETTLED.as_millis() / 10).unwrap_or(u64::MAX);
    processes.iter().any(|process| since(process) < settled)
}
