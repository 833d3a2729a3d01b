//! Interfaces that are a workload's, while nobody knows which one's.
//!
//! What hangs there are the programs of endpoints. Where the table of interfaces has no entry they drop
//! everything; where it leads to nobody who is observed, everything passes and is counted.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::table::Endpoint;

use crate::datapath::{
    attach::{self, Attached, Holder, Target, TcHook, unknown},
    engine::{Engine, Unreached},
    link::{self, Link, NamePattern},
    tamper::Tampering,
};

/// Kinds of interfaces that workloads are behind. All others are the node's own, whatever they are called:
/// bridges, bonds, VLANs, tunnels, and physical ones, which have no kind.
const KINDS: [&str; 3] = ["veth", "netkit", "tun"];

/// What becomes of the traffic of an interface of which nobody knows whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownMode {
    /// It is dropped.
    #[default]
    Strict,
    /// It passes, and is counted as observed.
    Compatible,
}

/// Which interfaces are workloads', and what holds there until it is known whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkloadInterfaces {
    /// None by default.
    pub(crate) names: BTreeSet<NamePattern>,
    pub(crate) mode: UnknownMode,
}

/// An interface that should be held, and how that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownInterface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) hold: Holding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    Held(TcHook),
    /// It is the node's, for this reason.
    LeftAlone(String),
    Failed(String),
}

/// What the engine remembers of such interfaces.
#[derive(Debug)]
pub(super) struct Unknown {
    settings: WorkloadInterfaces,
    /// By their names, those that lead to a pod's sandbox.
    sandboxes: BTreeSet<String>,
    held: BTreeMap<u32, Attached>,
    /// Where the node's own traffic leaves, as of the last look; `None` before it could be read.
    uplinks: Option<BTreeSet<u32>>,
    /// Interfaces that are left alone, of which the log has told.
    told: BTreeSet<u32>,
    /// Interfaces of which something was noticed that could not be put right.
    unrestored: BTreeSet<u32>,
}

impl UnknownMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Compatible => "compatible",
        }
    }
}

impl WorkloadInterfaces {
    fn name(&self, link: &Link) -> bool {
        self.names.iter().any(|pattern| pattern.matches(&link.name))
    }
}

impl Unknown {
    pub(super) fn new(settings: WorkloadInterfaces) -> Self {
        Self {
            settings,
            sandboxes: BTreeSet::new(),
            held: BTreeMap::new(),
            uplinks: None,
            told: BTreeSet::new(),
            unrestored: BTreeSet::new(),
        }
    }

    /// Whether everything is dropped there.
    pub(super) fn is_strict(&self) -> bool {
        self.settings.mode == UnknownMode::Strict
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Attached> {
        self.held.values()
    }

    /// An interface with this number is gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.held.remove(&index);
        self.told.remove(&index);
        self.unrestored.remove(&index);
        if let Some(uplinks) = &mut self.uplinks {
            uplinks.remove(&index);
        }
    }

    /// Where the node's own traffic leaves, now and before: a route that goes for a moment must not close the
    /// way by which it would come again.
    fn add_uplinks(&mut self, uplinks: BTreeSet<u32>) {
        self.uplinks.get_or_insert_default().extend(uplinks);
    }

    pub(super) fn keep(&mut self, index: u32, attached: Attached) {
        self.held.insert(index, attached);
    }

    /// Why an interface with a workload's name is none of a workload.
    ///
    /// Who may have mistaken the pattern is not to lose the node by it: a default route is what connects
    /// an operator, and nothing that a workload's interface would have.
    fn left_alone(&self, link: &Link) -> Option<String> {
        if !link.is_ethernet() {
            return Some(format!("not Ethernet (hardware type {})", link.hardware));
        }
        let kind = link.kind.as_deref();
        if !kind.is_some_and(|kind| KINDS.contains(&kind)) {
            let kind = kind.unwrap_or("physical");
            return Some(format!(
                "of kind {kind}: workloads are behind {}",
                KINDS.join(", ")
            ));
        }
        match &self.uplinks {
            None => Some("it is not known where default routes lead".to_owned()),
            Some(uplinks) if uplinks.contains(&link.index) => {
                Some("a default route of the node leads there".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Whether it is a workload's, by its name.
    fn names(&self, link: &Link) -> bool {
        self.settings.name(link) || self.sandboxes.contains(&link.name)
    }

    fn wants(&self, link: &Link) -> bool {
        self.names(link) && self.left_alone(link).is_none()
    }
}

impl Engine {
    /// Says which interfaces lead to a pod, though nobody knows which one, from now on.
    pub(crate) fn set_sandboxes(&mut self, names: BTreeSet<String>) {
        self.unknown.sandboxes = names;
        if self.unknown.uplinks.is_none() {
            self.find_uplinks();
        }
    }

    /// Whether programs hang there for nobody.
    pub(super) fn is_held_for_nobody(&self, index: u32) -> bool {
        self.unknown.held.contains_key(&index)
            || unknown::attached(&self.dir).is_ok_and(|held| held.contains(&index))
    }

    /// Sees to it that every workload's interface that no endpoint has is held, and no other.
    pub(crate) fn hold_unknown(&mut self) -> Vec<UnknownInterface> {
        let taken = self.taken();
        let links = self.links.iter();
        let named: Vec<Link> = links
            .filter(|link| self.unknown.names(link) && !taken.contains(&link.index))
            .cloned()
            .collect();
        let mut shown = Vec::new();
        let mut wanted = BTreeSet::new();
        // While it is not known where the node's traffic leaves, nothing is begun, and nothing given up.
        let stays = |index| self.unknown.uplinks.is_none() && self.is_held_for_nobody(index);
        let staying: BTreeSet<u32> = named
            .iter()
            .map(|link| link.index)
            .filter(|index| stays(*index))
            .collect();
        for link in &named {
            let why = self.unknown.left_alone(link);
            let hold = if let Some(why) = why.filter(|_| !staying.contains(&link.index)) {
                if self.unknown.told.insert(link.index) {
                    tracing::warn!(interface = link.name, "left alone: {why}");
                }
                Holding::LeftAlone(why)
            } else {
                wanted.insert(link.index);
                match self.watch_over(link) {
                    Ok(()) => Holding::Held(self.hook_at(link.index)),
                    Err(error) => Holding::Failed(error.message),
                }
            };
            shown.push(UnknownInterface {
                name: link.name.clone(),
                index: link.index,
                hold,
            });
        }
        self.let_others_go(&wanted);
        self.tidy(&taken.union(&wanted).copied().collect());
        self.unknown
            .told
            .retain(|index| named.iter().any(|link| link.index == *index));
        shown
    }

    /// Holds an interface that has appeared, if it is a workload's and no endpoint has it.
    pub(crate) fn hold_new(&mut self, index: u32) -> Result<(), Unreached> {
        let Some(link) = self.links.get(index).cloned() else {
            return Ok(());
        };
        if self.unknown.held.contains_key(&index) || !self.unknown.names(&link) {
            return Ok(());
        }
        if self.unknown.uplinks.is_none() {
            self.find_uplinks();
        }
        if self.unknown.left_alone(&link).is_some() || self.is_taken(index) {
            return Ok(());
        }
        self.hold(&link, None)
    }

    /// Before an endpoint gives its interfaces up, all but one: those that are a workload's are held for
    /// whoever has them next, and are open to nobody in between.
    pub(super) fn leave(&mut self, endpoint: u16, keep: Option<u32>) {
        let left = self.interfaces.iter();
        let left: Vec<u32> = left
            .filter(|(index, its)| its.id == endpoint && Some(*index) != keep)
            .map(|(index, _)| index)
            .collect();
        for index in left {
            let Some(link) = self.links.get(index).cloned() else {
                continue;
            };
            if !self.unknown.wants(&link) {
                continue;
            }
            if let Err(error) = self.hold(&link, Some(endpoint)) {
                let error = error.message;
                tracing::error!(interface = link.name, error, "cannot hold an interface");
            }
        }
    }

    /// An endpoint has what was held for nobody.
    pub(super) fn pass_on(&mut self, index: u32) -> Result<(), Unreached> {
        self.unknown.held.remove(&index);
        unknown::release(&self.dir, index).map_err(Unreached::of_attach)
    }

    /// Whether nothing is held for nobody.
    pub(super) fn holds_nothing_for_nobody(&self) -> anyhow::Result<bool> {
        Ok(unknown::attached(&self.dir)?.is_empty())
    }

    /// If it matters.
    pub(super) fn find_uplinks(&mut self) {
        if !self.links.iter().any(|link| self.unknown.names(link)) {
            return;
        }
        match link::uplinks() {
            Ok(uplinks) => self.unknown.add_uplinks(uplinks),
            Err(error) => tracing::error!("cannot see where default routes lead: {error}"),
        }
    }

    /// Whether an endpoint has the interface, and not one of before with its number.
    fn is_taken(&self, index: u32) -> bool {
        let mut attached = self.attached.values();
        let holder = attached.find(|attached| {
            matches!(attached.target(), Target::Interface { index: its, .. } if its == index)
        });
        match holder {
            Some(holder) => matches!(holder.interference(&self.dir), Ok(None)),
            None => self
                .interfaces
                .get(index)
                .is_some_and(|endpoint| endpoint.id != Endpoint::NOBODY.id),
        }
    }

    /// The interfaces of endpoints.
    fn taken(&self) -> BTreeSet<u32> {
        let known = self.interfaces.iter();
        let known = known.filter(|(_, endpoint)| endpoint.id != Endpoint::NOBODY.id);
        let attached = self.attached.values().map(Attached::target);
        known
            .map(|(index, _)| index)
            .chain(attached.filter_map(|target| match target {
                Target::Interface { index, .. } => Some(index),
                Target::Cgroup { .. } => None,
            }))
            .collect()
    }

    /// Holds it, or looks whether it still is held.
    fn watch_over(&mut self, link: &Link) -> Result<(), Unreached> {
        let Some(held) = self.unknown.held.get(&link.index) else {
            return self.hold(link, None);
        };
        let kind = match held.interference(&self.dir) {
            Ok(None) => return self.lead_to_nobody(link.index),
            Ok(Some(kind)) => kind,
            // To attach once more is right, whatever cannot be read.
            Err(error) => {
                tracing::warn!(interface = link.name, %error, "cannot tell what is attached");
                return self.hold(link, None);
            }
        };
        let named = held.pin_again().map_err(Unreached::of_attach);
        let restored = named.and_then(|()| self.hold(link, None));
        let is_known = match &restored {
            Ok(()) => {
                self.unknown.unrestored.remove(&link.index);
                false
            }
            // The interface goes, and takes with it what hung there.
            Err(error) if error.waiting => true,
            Err(_) => !self.unknown.unrestored.insert(link.index),
        };
        if !is_known {
            self.noticed.push(Tampering {
                kind,
                what: format!("interface {}", link.name),
                count: 1,
                restored: restored.is_ok(),
            });
        }
        restored
    }

    /// Has an interface held for nobody, from an endpoint or from none.
    fn hold(&mut self, link: &Link, from: Option<u16>) -> Result<(), Unreached> {
        let index = link.index;
        // Before the programs, which drop what comes from an interface that they do not know.
        self.lead_to_nobody(index)?;
        if let Some(endpoint) = from {
            let (from, to) = (Holder::Endpoint(endpoint), Holder::Unknown(index));
            attach::hand_over(&self.dir, from, to, index).map_err(Unreached::of_attach)?;
        }
        let attached = self.hang(index, |hook, programs| {
            unknown::attach(&self.dir, index, hook, programs)
        })?;
        if self.unknown.held.insert(index, attached).is_none() {
            tracing::info!(
                interface = link.name,
                index,
                mode = ?self.unknown.settings.mode,
                "held: nobody knows whose it is"
            );
        }
        Ok(())
    }

    fn lead_to_nobody(&mut self, index: u32) -> Result<(), Unreached> {
        let entry = self.interfaces.get(index);
        let wanted = (!self.unknown.is_strict()).then(|| Endpoint::NOBODY.observed());
        if entry == wanted {
            return Ok(());
        }
        let Some(observed) = wanted else {
            if let Err(error) = self.interfaces.remove(index) {
                tracing::debug!(index, %error, "interface was already forgotten");
            }
            return Ok(());
        };
        let entries = self.interfaces.iter();
        let of_nobody = entries
            .filter(|(_, its)| its.id == Endpoint::NOBODY.id)
            .count();
        if entry.is_none() && of_nobody >= self.capacity().endpoints {
            return Err(Unreached::failed(
                &"there are as many interfaces of nobody as there may be endpoints",
            ));
        }
        self.interfaces
            .insert(index, observed)
            .map_err(|error| Unreached::failed(&error))
    }

    /// Removes what was made for filters, where links hang in their place and are gone. Where there are only
    /// filters, it goes with them.
    fn tidy(&self, keep: &BTreeSet<u32>) {
        if self.hook == TcHook::Tcx
            && let Err(error) = attach::tidy(&self.dir, keep)
        {
            tracing::error!("cannot remove a queueing discipline: {error}");
        }
    }

    /// Takes off what is held and should not be: the interface is gone, or is a workload's no longer, or an
    /// endpoint has it.
    fn let_others_go(&mut self, wanted: &BTreeSet<u32>) {
        let held = unknown::attached(&self.dir).unwrap_or_else(|error| {
            tracing::error!("cannot tell what is held: {error}");
            BTreeSet::new()
        });
        for index in held.difference(wanted) {
            if let Err(error) = self.pass_on(*index) {
                let error = error.message;
                tracing::error!(index, error, "cannot let an interface go");
            }
        }
        self.unknown.held.retain(|index, _| wanted.contains(index));
        self.unknown
            .unrestored
            .retain(|index| wanted.contains(index));
        let entries = self.interfaces.iter();
        let stale: Vec<u32> = entries
            .filter(|(index, its)| its.id == Endpoint::NOBODY.id && !wanted.contains(index))
            .map(|(index, _)| index)
            .collect();
        for index in stale {
            if let Err(error) = self.interfaces.remove(index) {
                tracing::debug!(index, %error, "interface was already forgotten");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: Option<&str>, hardware: u16) -> Link {
        Link {
            index: 7,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            leads_to: None,
            leads_to_netns: None,
            hardware,
            mac: None,
            is_up: false,
        }
    }

    #[test]
    fn what_is_the_nodes_is_never_held() {
        let settings = WorkloadInterfaces {
            names: BTreeSet::from(["w*".parse().unwrap()]),
            mode: UnknownMode::Strict,
        };
        let mut unknown = Unknown::new(settings);
        let veth = link("w0", Some("veth"), 1);
        // Before it is known where the node's traffic leaves.
        assert!(!unknown.wants(&veth));
        unknown.uplinks = Some(BTreeSet::new());
        assert!(unknown.wants(&veth));
        assert!(unknown.wants(&link("w0", Some("tun"), 1)));
        for (name, kind, hardware) in [
            ("eth0", Some("veth"), 1),
            ("w0", None, 1),
            ("w0", Some("bridge"), 1),
            ("w0", Some("bond"), 1),
            ("w0", Some("vlan"), 1),
            ("w0", Some("vxlan"), 1),
            ("w0", Some("tun"), 65534),
            ("w0", None, 772),
        ] {
            assert!(
                !unknown.wants(&link(name, kind, hardware)),
                "{name} {kind:?}"
            );
        }
        unknown.uplinks = Some(BTreeSet::from([7]));
        assert!(!unknown.wants(&veth));
    }
}
