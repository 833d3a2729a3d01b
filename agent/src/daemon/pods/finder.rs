//! One look after another at the pods of this node.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_policy::model::EndpointSpec;

use super::{
    judge::Judgement,
    known::{Known, NO_HOST_SIDE},
    memory::Memory,
    tree::{Group, Tree},
};
use crate::{
    datapath::{helper::Helper, link::Links, sandbox::Namespace},
    source::kubernetes::placement::Placement,
};

/// Until the next look, while there is such a process: entering a namespace is announced to nobody.
const SOON: Duration = Duration::from_millis(20);

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

    /// What a pod is held nowhere for, though it is there; `None` if that is over.
    fn unheld(&mut self, uid: &str, why: Option<&str>);

    /// What the API says of the pod; `None` if it has not told of it.
    fn told(&self, uid: &str) -> Option<Told>;
}

/// A pod of this node, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) placement: Placement,
    /// What is not judged, or less well.
    pub(crate) notes: Vec<String>,
}

/// What the API says of where a pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// It uses the network of its node.
    pub(crate) is_on_node: bool,
    pub(crate) addresses: BTreeSet<IpAddr>,
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
    /// Where they are held, for the next agent; `None` for one that only looks.
    memory: Option<Memory>,
    /// What an earlier agent held is among the known.
    is_taken_up: bool,
    /// When it was looked for where kubelets have their cgroups.
    searched: Option<Instant>,
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
    pub(crate) fn new(
        below: Option<PathBuf>,
        helper: Option<Arc<Helper>>,
        memory: Option<Memory>,
    ) -> Self {
        Self {
            tree: Tree::new(below),
            helper,
            known: BTreeMap::new(),
            is_taken_up: memory.is_none(),
            memory,
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
        let taken_up = self.take_up(&links);
        for uid in groups.keys() {
            self.known.entry(uid.clone()).or_default();
        }
        let mut looked = Looked {
            is_whole: true,
            again: None,
        };
        let mut changed = Vec::new();
        let mut unheld = Vec::new();
        let sides = links.host_sides();
        for (uid, known) in &mut self.known {
            known.group = groups.remove(uid);
            let told = placed.told(uid);
            let (before, was_unheld) = (known.found.clone(), known.unheld.take());
            let again = known.look(depth, &links, &sides, self.helper.as_deref(), told.as_ref());
            if again {
                looked.again = Some(SOON);
            }
            if known.found != before || taken_up.contains(uid) {
                changed.push((uid.clone(), known.found.clone()));
            }
            // What is placed says its own notes.
            if known.unheld != was_unheld && known.found.is_none() {
                unheld.push((uid.clone(), known.unheld));
            }
        }
        self.tell(changed, placed);
        for (uid, why) in unheld {
            placed.unheld(&uid, why);
        }
        self.known
            .retain(|_, known| known.group.is_some() || known.found.is_some());
        looked
    }

    /// Goes on where an earlier agent was, the first time. Gives whose places nobody has been told of yet.
    fn take_up(&mut self, links: &Links) -> BTreeSet<String> {
        if std::mem::replace(&mut self.is_taken_up, true) {
            return BTreeSet::new();
        }
        let held = self.memory.iter().flat_map(Memory::pods);
        for (uid, held) in held {
            // One that has been announced since is where that says.
            if let (Entry::Vacant(entry), Some(known)) =
                (self.known.entry(uid.clone()), Known::of(held, links))
            {
                entry.insert(known);
            }
        }
        self.known.keys().cloned().collect()
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
        let mut at = None;
        if let Some(interface) = interface {
            let links = links.map_err(String::clone)?;
            let spec = EndpointSpec::Interface(interface.clone());
            let link = links.resolve(&spec).transpose();
            let link = link.map_err(|error| error.to_string())?;
            at = link.as_ref().map(|link| link.index);
            if let Some(link) = &link
                && known.is_beside(link, links)
            {
                known.hold_beside(link.index, interface, addresses);
            } else {
                known.hold(at, spec, addresses);
            }
        } else {
            known.group = group;
            let notes = vec![NO_HOST_SIDE.to_owned()];
            known.at_cgroup(&Judgement::Past { addresses, notes });
        }
        let found = known.found.clone();
        if found.is_none() {
            return Err(format!(
                "pod {uid} has neither an interface on the node nor a cgroup"
            ));
        }
        self.tell(vec![(uid, found)], placed);
        Ok(at)
    }

    /// What is gone first: an address, or an interface, may be another's by now.
    fn tell(&mut self, mut changed: Vec<(String, Option<Found>)>, placed: &mut dyn Placed) {
        let found = changed.iter().filter(|(_, found)| found.is_some());
        let mut hosts: Vec<(bool, u32, String)> = found
            .filter_map(|(uid, _)| {
                let known = self.known.get(uid)?;
                Some((known.group.is_some(), known.host?, uid.clone()))
            })
            .collect();
        // Of several the last one counts: one that is there before one of which only the interface is.
        hosts.sort();
        let taken: BTreeMap<u32, String> = hosts
            .into_iter()
            .map(|(_, host, uid)| (host, uid))
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
        // Not before what an earlier agent has kept is among them.
        if let Some(memory) = self.memory.as_mut().filter(|_| self.is_taken_up) {
            let known = self.known.iter();
            let held = known.filter_map(|(uid, known)| Some((uid.clone(), known.to_keep()?)));
            memory.keep(held.collect());
        }
    }
}
