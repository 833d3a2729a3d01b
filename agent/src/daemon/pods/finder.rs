//! One look after another at the pods of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_policy::model::EndpointSpec;
use rustix::time::{ClockId, clock_gettime};

use super::{
    judge::{Judgement, judge},
    tree::{Group, Process, Tree},
};
use crate::{
    datapath::{
        helper::Helper,
        link::Links,
        sandbox::{Namespace, NamespaceId, Sandbox},
    },
    source::kubernetes::placement::Placement,
};

/// A process that has just begun may be in its namespace only in a moment: a runtime puts it into the cgroup first.
const SETTLED: Duration = Duration::from_secs(2);

/// Until the next look, while there is such a process: entering a namespace is announced to nobody.
const SOON: Duration = Duration::from_millis(20);

/// Of a pod whose processes are in a namespace that leads nowhere.
const UNCONNECTED: &str = "its network namespace has no interface that leads anywhere: its sockets are judged, at its \
                           cgroup; raw frames and what it forwards are not";

/// Of a pod that is announced without an interface.
const NO_HOST_SIDE: &str = "its interface has no host side: its sockets are judged, at its cgroup";

/// Between two searches for kubelets' cgroups: they are made once, wherever kubelet is told to.
const SEARCH: Duration = Duration::from_secs(2);

/// How closely is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// At what has changed: processes, and interfaces of the node.
    Changes,
    /// Into every namespace.
    Everything,
}

/// What is told of each pod whose place has changed.
pub(crate) trait Placed: Send {
    /// The pod is there; or (`None`) there no more. Those that are no more are told of first.
    fn place(&mut self, uid: &str, found: Option<&Found>);

    /// Whether the API has the pod use the network of its node; `None` if it has not told of the pod.
    fn is_on_node(&self, uid: &str) -> Option<bool>;
}

/// A pod of this node, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) placement: Placement,
    /// What is not judged, or less well.
    pub(crate) notes: Vec<String>,
}

/// A pod as a runtime announces it, before a process of it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) uid: String,
    /// The host side of its interface; `None` if it has none.
    pub(crate) interface: Option<String>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

pub(crate) struct Finder {
    tree: Tree,
    helper: Option<Arc<Helper>>,
    known: BTreeMap<String, Known>,
    /// When it was looked for where kubelets have their cgroups.
    searched: Option<Instant>,
}

/// What is known of a pod.
#[derive(Debug, Default)]
struct Known {
    group: Option<Group>,
    leaders: BTreeSet<Process>,
    /// The host side that it is placed at, by its number: as long as it is there, so is the sandbox.
    host: Option<u32>,
    found: Option<Found>,
    /// Somebody has said where it is, and no process of it was there yet.
    is_announced: bool,
    /// What whoever made the host side has said that it has.
    assured: BTreeSet<IpAddr>,
    /// Has no address yet, or no interface.
    waiting: Option<Namespace>,
    /// Why a namespace could not be asked; said once.
    amiss: Option<String>,
}

/// How a look ended.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The interfaces of the node could be listed, without which nobody is found.
    pub(crate) is_whole: bool,
    /// When the next one is due in any case.
    pub(crate) again: Option<Duration>,
}

// === impl Finder ===

impl Finder {
    /// Looks for pods below a folder only, or wherever there are cgroups.
    pub(crate) fn new(below: Option<PathBuf>, helper: Option<Arc<Helper>>) -> Self {
        Self {
            tree: Tree::new(below),
            helper,
            known: BTreeMap::new(),
            searched: None,
        }
    }

    /// The folders in which news of pods are to be expected.
    pub(crate) fn watched(&self) -> BTreeSet<PathBuf> {
        let groups = self.known.iter().filter_map(|(uid, known)| {
            let group = known.group.clone()?;
            Some((uid.clone(), group))
        });
        self.tree.watched(&groups.collect())
    }

    /// Namespaces of which each change is to be looked at.
    pub(crate) fn take_waiting(&mut self) -> Vec<Namespace> {
        let known = self.known.values_mut();
        known.filter_map(|known| known.waiting.take()).collect()
    }

    /// Looks, and tells what has changed.
    pub(crate) fn look(&mut self, depth: Depth, placed: &mut dyn Placed) -> Looked {
        let links = match Links::list() {
            Ok(links) => links,
            Err(error) => {
                tracing::error!(%error, "cannot look for pods");
                return Looked::default();
            }
        };
        let is_due = self.searched.is_none_or(|at| at.elapsed() >= SEARCH);
        if is_due || depth == Depth::Everything || !self.tree.is_found() {
            self.searched = Some(Instant::now());
            self.tree.search();
        }
        let mut groups = self.tree.pods();
        for uid in groups.keys() {
            self.known.entry(uid.clone()).or_default();
        }
        let mut looked = Looked {
            is_whole: true,
            again: None,
        };
        let mut changed = Vec::new();
        for (uid, known) in &mut self.known {
            known.group = groups.remove(uid);
            let on_node = placed.is_on_node(uid);
            let before = known.found.clone();
            let again = known.look(depth, &links, self.helper.as_deref(), on_node);
            if again {
                looked.again = Some(SOON);
            }
            if known.found != before {
                changed.push((uid.clone(), known.found.clone()));
            }
        }
        self.tell(changed, placed);
        self.known
            .retain(|_, known| known.group.is_some() || known.found.is_some());
        looked
    }

    /// One look at everything.
    pub(crate) fn look_once(&mut self, placed: &mut dyn Placed) {
        self.look(Depth::Everything, placed);
    }

    /// Pods are about to be there. Gives of each the number of its interface on the node, if it has one; or why it
    /// cannot be placed.
    pub(crate) fn announce(
        &mut self,
        announced: Vec<Announced>,
        placed: &mut dyn Placed,
    ) -> Vec<Result<Option<u32>, String>> {
        let groups = self.tree.pods();
        let links = Links::list().map_err(|error| error.to_string());
        let placements = announced.into_iter().map(|announced| {
            // Some are announced twice: a plugin tries again, or a pod has two networks.
            let group = groups.get(&announced.uid).cloned();
            self.announce_one(announced, group, links.as_ref(), placed)
        });
        placements.collect()
    }

    fn announce_one(
        &mut self,
        announced: Announced,
        group: Option<Group>,
        links: Result<&Links, &String>,
        placed: &mut dyn Placed,
    ) -> Result<Option<u32>, String> {
        let Announced {
            uid,
            interface,
            addresses,
        } = announced;
        let known = self.known.entry(uid.clone()).or_default();
        known.is_announced = true;
        if let Some(interface) = interface {
            let at = EndpointSpec::Interface(interface);
            let links = links.map_err(String::clone)?;
            let link = links.resolve(&at).transpose();
            let link = link.map_err(|error| error.to_string())?;
            known.host = link.map(|link| link.index);
            known.assured.clone_from(&addresses);
            let placement = Placement {
                endpoint: at,
                assured: addresses.clone(),
                addresses,
            };
            known.found = Some(Found {
                placement,
                notes: Vec::new(),
            });
        } else {
            known.group = group;
            let notes = vec![NO_HOST_SIDE.to_owned()];
            known.at_cgroup(&Judgement::Past { addresses, notes });
        }
        let (found, host) = (known.found.clone(), known.host);
        if found.is_none() {
            return Err(format!(
                "pod {uid} has neither an interface on the node nor a cgroup"
            ));
        }
        self.tell(vec![(uid, found)], placed);
        Ok(host)
    }

    /// What is gone first: an address, or an interface, may be another's by now.
    fn tell(&mut self, mut changed: Vec<(String, Option<Found>)>, placed: &mut dyn Placed) {
        let taken: BTreeMap<u32, String> = changed
            .iter()
            .filter(|(_, found)| found.is_some())
            .filter_map(|(uid, _)| Some((self.known.get(uid)?.host?, uid.clone())))
            .collect();
        for (uid, known) in &mut self.known {
            let Some(owner) = known.host.and_then(|host| taken.get(&host)) else {
                continue;
            };
            if owner != uid {
                known.host = None;
                known.found = None;
                changed.retain(|(changed, _)| changed != uid);
                changed.push((uid.clone(), None));
            }
        }
        changed.sort_by_key(|(_, found)| found.is_some());
        for (uid, found) in changed {
            if let Some(Found { placement, .. }) = &found {
                let (at, addresses) = (&placement.endpoint, &placement.addresses);
                tracing::info!(pod = uid, %at, ?addresses, "pod found");
            } else {
                tracing::info!(pod = uid, "pod gone");
            }
            placed.place(&uid, found.as_ref());
        }
    }
}

// === impl Known ===

impl Known {
    /// True if it has to be looked at again soon.
    fn look(
        &mut self,
        depth: Depth,
        links: &Links,
        helper: Option<&Helper>,
        on_node: Option<bool>,
    ) -> bool {
        let leaders = match &self.group {
            Some(group) => group.leaders(&self.leaders),
            None => BTreeSet::new(),
        };
        let host = self.host.and_then(|index| links.get(index));
        let is_settled = match &self.found {
            Some(Found { placement, .. }) => match placement.endpoint {
                EndpointSpec::Interface(_) => host.is_some() && !placement.addresses.is_empty(),
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
            let (seen, has_gone) = self.ask(links, helper);
            again |= has_gone;
            judgement = judge(seen, self.host);
        }
        let is_young = is_young(&self.leaders);
        match judgement {
            Some(Judgement::Interface { way, notes }) => {
                if self.host != Some(way.index) {
                    // Those were of another sandbox.
                    self.assured.clear();
                }
                self.host = Some(way.index);
                let judged = Judgement::Interface {
                    way,
                    notes: notes.clone(),
                };
                let placement = judged.placement(None);
                self.found = placement.map(|mut placement| {
                    placement.assured.clone_from(&self.assured);
                    Found { placement, notes }
                });
            }
            // As long as its host side is there, so is the sandbox, whatever its processes have gone on to.
            _ if host.is_some() => {
                if let (Some(link), Some(found)) = (host, &mut self.found) {
                    found.placement.endpoint = EndpointSpec::Interface(link.name.clone());
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

    fn at_cgroup(&mut self, judgement: &Judgement) {
        let cgroup = self.group.as_ref().and_then(|group| group.name.as_deref());
        self.host = None;
        let notes = match judgement {
            Judgement::Past { notes, .. } => notes.clone(),
            _ => Vec::new(),
        };
        let placement = judgement.placement(cgroup);
        self.found = placement.map(|placement| Found { placement, notes });
    }

    /// What the namespaces of its oldest processes have, and whether one of them has gone meanwhile.
    fn ask(&mut self, links: &Links, helper: Option<&Helper>) -> (Vec<(Process, Sandbox)>, bool) {
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
                if is_waiting(&sandbox) {
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
                    if sandbox.as_ref().is_some_and(is_waiting) {
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

fn is_waiting(sandbox: &Sandbox) -> bool {
    match sandbox {
        Sandbox::Node => false,
        Sandbox::Other { ways, past, .. } => {
            let mut inner = ways.iter().map(|way| &way.inner).chain(past);
            inner.all(|inner| inner.addresses.is_empty())
        }
    }
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
