//! What changes from one world to another: who may now reach whom, and who may no longer.
//!
//! Not a comparison of texts or of tables: every pair of classes is asked in both worlds, for every
//! interval of ports, and what differs becomes a row. Whoever is in one world only can reach nobody
//! in the other.

mod extent;
mod products;
mod render;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use serde::Serialize;

pub use crate::classes::{Block, PortSet};
use crate::{
    classes::{Judge, Pair, PortMap, Region, State, Universe, Who},
    connection::{Perspective, Side},
    diff::{
        extent::{Ends, Extent},
        rows::{Answers, Found, Presence},
    },
    model::{Direction, Labels, ObjectName, World},
};

/// As JSON, `{"rows": […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What is permitted now, then what no longer is; by source and destination.
    pub rows: Vec<Row>,
}

/// Everybody of `from` to everybody of `to`, on each of the ports. Never a workload with addresses of its
/// own to itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    pub change: Change,
    pub from: Group,
    pub to: Group,
    /// Where it is so over one family only, although there is the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Whether it is about the addresses of loopback, too, where both ends share those of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loopback: Option<Loopback>,
    pub ports: PortSet,
    /// The ends that decide otherwise now; none if one of the ends is new or gone.
    pub turns: Vec<Turn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Change {
    /// May now.
    #[serde(rename = "+")]
    Permitted,
    /// May no longer.
    #[serde(rename = "-")]
    Denied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    IPv4,
    IPv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loopback {
    Too,
    Only,
}

/// An end that decides otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Turn {
    pub direction: Direction,
    pub old: Side,
    pub new: Side,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Group {
    /// With the same labels in the same namespace.
    Workloads {
        namespace: String,
        labels: Labels,
        names: Vec<String>,
        /// How many there are with these labels.
        of: usize,
        /// Those of theirs that are meant, where not all are.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
    },
    Nodes {
        names: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
    },
    Service {
        name: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
    },
    /// Addresses that nobody of the inventory has.
    Addresses { blocks: Vec<Block> },
}

/// What is shown as one, as far as it is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kin {
    Workloads { namespace: String, labels: Labels },
    Nodes,
    Service(ObjectName),
    Outside,
}

/// Labels that tell the replicas of one workload apart.
const OF_REPLICAS: [&str; 5] = [
    "apps.kubernetes.io/pod-index",
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

// === impl Diff ===

impl Diff {
    /// Compares two worlds, both looked at alike.
    pub fn new(old: &World, new: &World, perspective: Perspective) -> Self {
        let states = [State::new(old, perspective), State::new(new, perspective)];
        let kin = |who: &Who| Kin::of(who, new, old);
        let mut judge = Judge::new(&states);
        let universe = Universe::new(&states, &mut judge, [], |who, _| kin(who));
        let mut known: HashMap<Both, Vec<(Answers, PortSet)>> = HashMap::new();
        let mut found = Found::default();
        for meeting in universe.meetings(|_| true, |_| true) {
            let Some((source, destination)) = meeting.example() else {
                continue;
            };
            let mut both = [0, 1].map(|state| {
                let exist = meeting.from.exists(state) && meeting.to.exists(state);
                if exist { Meets::NoWay } else { Meets::Absent }
            });
            let places = source.places.iter().zip(&destination.places);
            for (state, (pair, ends)) in both.iter_mut().zip(places).enumerate() {
                if let (Some(from), Some(to)) = ends {
                    let there = judge.pair(state, from, to).map(Meets::At);
                    *pair = there.unwrap_or(*pair);
                }
            }
            let differences = known
                .entry(both)
                .or_insert_with(|| differences(&judge, both));
            let is_v4 = meeting.from.is_v4;
            let there = differences
                .iter()
                .filter(|(_, ports)| !ports.over(is_v4).is_empty());
            for (answers, ports) in there {
                found.add(answers, ports, &meeting);
            }
        }
        let sizes = Sizes::of(&universe);
        let rows = found.into_rows(&Extent::of(&universe));
        let mut rows: Vec<Row> = rows
            .into_iter()
            .map(|row| row.named(&judge, &universe, &sizes))
            .collect();
        rows.sort();
        rows.dedup();
        Self { rows }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// How two stand to each other in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Meets<T> {
    /// What is answered.
    At(T),
    /// They do not share a node.
    NoWay,
    /// One of them does not exist.
    Absent,
}

/// In the old world and in the new one.
type Both = [Meets<Pair>; 2];

/// The ports at which a pair is permitted in one state only, by what was answered.
fn differences(judge: &Judge<'_, '_>, both: Both) -> Vec<(Answers, PortSet)> {
    let [old, new] = both;
    if old == new {
        return Vec::new();
    }
    let ports = |meets: Meets<Pair>| match meets {
        Meets::At(pair) => judge.ports(pair).map(|answers| Meets::At(*answers)),
        Meets::NoWay => PortMap::constant(Meets::NoWay),
        Meets::Absent => PortMap::constant(Meets::Absent),
    };
    let changed = ports(old).zip(&ports(new), |old, new| rows::changed(judge, *old, *new));
    let distinct: BTreeSet<Answers> = changed.values().flatten().copied().collect();
    distinct
        .into_iter()
        .map(|answers| {
            let ports = changed.map(|one| *one == Some(answers));
            (answers, PortSet::new(ports))
        })
        .collect()
}

// === impl Kin ===

impl Kin {
    fn of(who: &Who, new: &World, old: &World) -> Self {
        match who {
            Who::Workload { name, .. } => {
                let known = new.workloads.get(name).or_else(|| old.workloads.get(name));
                let mut labels = known
                    .map(|workload| (*workload.labels).clone())
                    .unwrap_or_default();
                labels.retain(|key, _| !OF_REPLICAS.contains(&key.as_str()));
                Self::Workloads {
                    namespace: name.namespace.clone(),
                    labels,
                }
            }
            Who::Node(_) => Self::Nodes,
            Who::Service(name) => Self::Service(name.clone()),
            Who::Outside(_) | Who::Process(_) => Self::Outside,
        }
    }
}

/// How many workloads are shown as one.
struct Sizes(BTreeMap<Kin, usize>);

impl Sizes {
    fn of(universe: &Universe<Kin>) -> Self {
        let mut all: BTreeMap<&Kin, BTreeSet<&Who>> = BTreeMap::new();
        for class in &universe.classes {
            let members = class.members.iter().map(|member| &member.who);
            all.entry(&class.tag).or_default().extend(members);
        }
        let counted = all
            .into_iter()
            .map(|(kin, members)| (kin.clone(), members.len()));
        Self(counted.collect())
    }
}

impl Group {
    fn new(kin: &Kin, ends: &Ends, universe: &Universe<Kin>, sizes: &Sizes) -> Self {
        let Ends { who, only } = ends;
        let addresses = only.iter().copied().collect();
        match kin {
            Kin::Workloads { namespace, labels } => Self::Workloads {
                namespace: namespace.clone(),
                labels: labels.clone(),
                names: names(who),
                of: sizes.0.get(kin).copied().unwrap_or_default(),
                addresses,
            },
            Kin::Nodes => Self::Nodes {
                names: names(who),
                addresses,
            },
            Kin::Service(name) => Self::Service {
                name: name.to_string(),
                addresses,
            },
            Kin::Outside => {
                let region = |who: &Who| match who {
                    Who::Outside(region) | Who::Process(region) => Some(*region),
                    Who::Workload { .. } | Who::Node(_) | Who::Service(_) => None,
                };
                let regions: BTreeSet<Region> = who.iter().filter_map(region).collect();
                let blocks = universe.regions.blocks(&regions);
                Self::Addresses { blocks }
            }
        }
    }
}

fn names(who: &BTreeSet<Who>) -> Vec<String> {
    who.iter()
        .filter_map(|who| match who {
            Who::Workload { name, .. } => Some(name.to_string()),
            Who::Node(name) => Some(name.clone()),
            Who::Outside(_) | Who::Process(_) | Who::Service(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
