//! Whether what somebody claims of the policies is so, for everybody and every port that it is about.
//!
//! A proof by cases: every pair of classes of the compiled tables, each interval of ports. What is
//! said of one member of a class holds for all of them, so that nothing is sampled, and a claim that
//! is false comes with a connection that shows it.

mod claim;
mod render;

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;

use self::claim::Claim;
use crate::{
    classes::{Judge, PortSet, State, Universe, Who},
    connection::{End, Perspective, Port, Side},
    model::{Labels, Selector, Source, World},
    reference::matching::{in_block, selects},
};

/// A claim about who may reach whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    pub name: String,
    pub reach: Reach,
    pub from: Ends,
    pub to: Ends,
    pub ports: PortSet,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Nobody of these may reach any of those.
    Never,
    /// Each of these may reach each of those.
    Always,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    Every,
    /// Any of these.
    Listed(Vec<EndsPart>),
}

/// Who is meant. Other than a peer of a rule, a workload on its node's network is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndsPart {
    Workloads {
        namespaces: Selector,
        workloads: Selector,
    },
    Nodes(Selector),
    /// Whoever has such an address.
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// Addresses of nobody in the inventory, without those that are private or special: see
    /// [`SPECIAL`].
    Internet,
}

/// Blocks that are not the internet: private, shared, loopback, link-local, benchmarks, multicast
/// and reserved. Those for documentation stand for the internet, as they do in examples. Of IPv6,
/// all that is not below `2000::/3` is special.
pub const SPECIAL: [&str; 11] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The global unicast addresses of IPv6.
const GLOBAL_V6: &str = "2000::/3";

/// As JSON, `{"name", "reach", "holds", "file", "line", "pairs", "counterexample"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    pub name: String,
    pub reach: Reach,
    pub holds: bool,
    pub file: String,
    pub line: u32,
    /// Pairs of classes that it is about. Without any, it holds because it says nothing.
    pub pairs: usize,
    pub counterexample: Option<Counterexample>,
}

/// A connection that shows that a claim is false.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counterexample {
    pub from: End,
    pub from_address: IpAddr,
    pub to: End,
    pub to_address: IpAddr,
    pub port: Port,
    pub egress: Side,
    pub ingress: Side,
}

/// Looks for a counterexample to each claim.
pub fn verify(world: &World, perspective: Perspective, assertions: &[Assertion]) -> Vec<Proof> {
    let states = [State::new(world, perspective)];
    let borders = assertions
        .iter()
        .flat_map(|assertion| [&assertion.from, &assertion.to])
        .flat_map(Ends::borders)
        .chain(special())
        .chain(GLOBAL_V6.parse());
    let mut judge = Judge::new(&states);
    let universe = Universe::new(&states, &mut judge, borders, |who, address| {
        let is_meant = |ends: &Ends| ends.include(world, who, address);
        let both = |assertion: &Assertion| (is_meant(&assertion.from), is_meant(&assertion.to));
        assertions.iter().map(both).collect::<Vec<_>>()
    });
    let proof = |(number, assertion)| prove(&universe, &mut judge, number, assertion);
    assertions.iter().enumerate().map(proof).collect()
}

/// For each claim, whether somebody is meant as a source, and as a destination.
type Meant = Vec<(bool, bool)>;

fn prove(
    universe: &Universe<Meant>,
    judge: &mut Judge<'_, '_>,
    number: usize,
    assertion: &Assertion,
) -> Proof {
    let Assertion {
        name,
        reach,
        from: _,
        to: _,
        ports,
        source,
    } = assertion;
    let mut pairs = 0;
    let mut counterexample = None;
    let is_source = |tag: &Meant| tag.get(number).is_some_and(|(source, _)| *source);
    let is_destination = |tag: &Meant| tag.get(number).is_some_and(|(_, to)| *to);
    let [mut v4, mut v6] = [true, false].map(|is_v4| Claim::new(*reach, ports.over(is_v4)));
    for meeting in universe.meetings(is_source, is_destination) {
        let claim = if meeting.from.is_v4 { &mut v4 } else { &mut v6 };
        let Some((from, to)) = meeting.example().filter(|_| !claim.ports.is_empty()) else {
            continue;
        };
        pairs += 1;
        if counterexample.is_none() {
            counterexample = claim.contradiction(judge, from, to);
        }
    }
    Proof {
        name: name.clone(),
        reach: *reach,
        holds: counterexample.is_none(),
        file: source.file.to_string(),
        line: source.line,
        pairs,
        counterexample,
    }
}

fn special() -> impl Iterator<Item = IpNet> {
    SPECIAL.into_iter().filter_map(|text| text.parse().ok())
}

/// Whether an address that nobody has is out in the internet.
fn is_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !special().any(|block| block.contains(&address)),
        IpAddr::V6(_) => GLOBAL_V6
            .parse::<IpNet>()
            .is_ok_and(|block| block.contains(&address)),
    }
}

// === impl Ends ===

impl Ends {
    fn borders(&self) -> BTreeSet<IpNet> {
        let mut borders = BTreeSet::new();
        if let Self::Listed(parts) = self {
            for part in parts {
                if let EndsPart::Block { cidr, except } = part {
                    borders.insert(*cidr);
                    borders.extend(except);
                }
            }
        }
        borders
    }

    fn include(&self, world: &World, who: &Who, address: IpAddr) -> bool {
        match self {
            Self::Every => true,
            Self::Listed(parts) => parts.iter().any(|part| part.includes(world, who, address)),
        }
    }
}

impl EndsPart {
    fn includes(&self, world: &World, who: &Who, address: IpAddr) -> bool {
        match (self, who) {
            (
                Self::Workloads {
                    namespaces,
                    workloads,
                },
                Who::Workload { name, .. },
            ) => {
                let nothing = Labels::new();
                let known = world.namespaces.get(&name.namespace);
                let labels = known.map_or(&nothing, AsRef::as_ref);
                world.workloads.get(name).is_some_and(|workload| {
                    selects(namespaces, labels) && selects(workloads, &workload.labels)
                })
            }
            (Self::Nodes(selector), Who::Node(name)) => world
                .nodes
                .get(name)
                .is_some_and(|node| selects(selector, &node.labels)),
            (Self::Block { cidr, except }, _) => in_block(cidr, except, address),
            (Self::Internet, Who::Outside(_)) => is_internet(address),
            (Self::Workloads { .. } | Self::Nodes(_) | Self::Internet, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
