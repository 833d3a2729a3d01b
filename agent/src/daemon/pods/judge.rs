//! Where a pod is, by what its processes' namespaces have.

use std::collections::{BTreeMap, BTreeSet};

use agent_policy::model::EndpointSpec;

use super::tree::Process;
use crate::{
    datapath::sandbox::{Inner, Sandbox, Way},
    source::kubernetes::placement::{Beside, Placement},
};

/// What the namespaces of a pod's oldest processes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It has a host side, to which the programs go.
    Interface {
        way: Way,
        /// Further ones of the same namespace.
        beside: Vec<Way>,
        /// What is not judged there.
        notes: Vec<String>,
    },
    /// It has an own namespace, and no host side: its cgroup is what there is.
    Past {
        addresses: BTreeSet<std::net::IpAddr>,
        notes: Vec<String>,
    },
    /// It is in the node's own.
    Node,
    /// Its namespace has nothing by which packets come or go.
    Unconnected,
}

/// `None` of no process.
///
/// The host side where it is `held` stays the one, as long as it leads there: what a pod's processes make of their
/// namespaces does not move it. Otherwise, of several namespaces with a host side the one counts whose oldest process
/// is the youngest: that of the sandbox that was made last. A namespace that a container has made for itself has none.
pub(super) fn judge(seen: Vec<(Process, Sandbox)>, held: Option<u32>) -> Option<Judgement> {
    let mut with_ways: Vec<(Process, Vec<Way>, Vec<Inner>)> = Vec::new();
    let (mut all_past, mut on_node, mut any) = (Vec::new(), false, false);
    let mut ids = BTreeSet::new();
    let mut seen = seen;
    seen.sort_by_key(|(process, _)| *process);
    for (process, sandbox) in seen {
        any = true;
        match sandbox {
            Sandbox::Node => on_node = true,
            Sandbox::Other { id, .. } if !ids.insert(id) => {}
            Sandbox::Other { ways, past, .. } if !ways.is_empty() => {
                with_ways.push((process, ways, past));
            }
            Sandbox::Other { past, .. } => all_past.extend(past),
        }
    }
    let is_held = |way: &Way| Some(way.index) == held;
    let is_there = |(_, ways, _): &(_, Vec<Way>, _)| ways.iter().any(is_held);
    let stays = with_ways.iter().position(is_there);
    let chosen = match stays {
        Some(at) => Some(with_ways.swap_remove(at)),
        None => with_ways.pop(),
    };
    if let Some((_, mut ways, past)) = chosen {
        let at = ways.iter().position(is_held).unwrap_or_default();
        // There is one: it was looked for above.
        let way = ways.drain(at..=at).next()?;
        let notes = past.iter().map(unjudged).collect();
        return Some(Judgement::Interface {
            way,
            beside: ways,
            notes,
        });
    }
    if !all_past.is_empty() {
        let addresses = all_past
            .iter()
            .flat_map(|inner| inner.addresses.clone())
            .collect();
        let notes = all_past.iter().map(weaker).collect();
        return Some(Judgement::Past { addresses, notes });
    }
    any.then_some(if on_node {
        Judgement::Node
    } else {
        Judgement::Unconnected
    })
}

impl Judgement {
    pub(super) fn placement(&self, cgroup: Option<&str>) -> Option<Placement> {
        let at_cgroup = || cgroup.map(|cgroup| EndpointSpec::Cgroup(cgroup.to_owned()));
        let mut others = BTreeMap::new();
        let (endpoint, addresses) = match self {
            Self::Interface { way, beside, .. } => {
                for way in beside {
                    let interface = way.name.clone();
                    let addresses = way.inner.addresses.clone();
                    let beside = Beside {
                        interface,
                        addresses,
                    };
                    others.insert(way.index, beside);
                }
                let at = EndpointSpec::Interface(way.name.clone());
                (at, way.inner.addresses.clone())
            }
            Self::Past { addresses, .. } => (at_cgroup()?, addresses.clone()),
            Self::Node => (at_cgroup()?, BTreeSet::new()),
            Self::Unconnected => return None,
        };
        Some(Placement {
            endpoint,
            addresses,
            assured: BTreeSet::new(),
            beside: others,
        })
    }
}

fn kind(inner: &Inner) -> &str {
    inner.kind.as_deref().unwrap_or("hardware")
}

/// Of an interface beside the one that the programs are at.
fn unjudged(inner: &Inner) -> String {
    let (name, kind) = (&inner.name, kind(inner));
    format!("what passes its interface {name} ({kind}) is not judged: it has no host side")
}

/// Of an interface without a host side.
fn weaker(inner: &Inner) -> String {
    let (name, kind) = (&inner.name, kind(inner));
    format!(
        "its interface {name} ({kind}) has no host side: its sockets are judged, at its cgroup; raw frames and what it \
         forwards are not"
    )
}

#[cfg(test)]
mod tests;
