//! The addresses that nobody in the inventory has, cut where some table tells them apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::Serialize;

use crate::connection::LOOPBACK;

/// A prefix without what is below it, by its place in the list of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Region(usize);

/// All prefixes that matter, each followed by those that it covers.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    all: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    prefix: IpNet,
    parent: Option<usize>,
    /// Whether its addresses are those of loopback, which the network knows nothing of.
    is_loopback: bool,
    /// An address that stands for all of them; `None` if the prefix has no others than those below
    /// it and those of the inventory.
    sample: Option<IpAddr>,
}

/// Prints as `10.0.0.0/8 except 10.1.0.0/16`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Block {
    pub cidr: IpNet,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<IpNet>,
}

// === impl Regions ===

impl Regions {
    pub(crate) fn new(mut prefixes: BTreeSet<IpNet>, inventory: &BTreeSet<IpAddr>) -> Self {
        let everything = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ];
        prefixes.extend(everything.map(|address| IpNet::new_assert(address, 0)));
        // So that no region is of both.
        let loopback = loopback();
        prefixes.extend(loopback);
        // The order of prefixes puts each before all that it covers.
        let mut around: Vec<(usize, IpNet)> = Vec::new();
        let mut parents = Vec::new();
        let mut below: BTreeMap<usize, Vec<IpNet>> = BTreeMap::new();
        for (place, &prefix) in prefixes.iter().enumerate() {
            while around
                .last()
                .is_some_and(|(_, outer)| !outer.contains(&prefix))
            {
                around.pop();
            }
            let parent = around.last().map(|(place, _)| *place);
            if let Some(parent) = parent {
                below.entry(parent).or_default().push(prefix);
            }
            parents.push(parent);
            around.push((place, prefix));
        }
        let known = |((place, prefix), parent): ((usize, IpNet), Option<usize>)| {
            let below = below.get(&place).map_or(&[][..], Vec::as_slice);
            Known {
                prefix,
                parent,
                is_loopback: loopback.iter().any(|block| block.contains(&prefix)),
                sample: usual(prefix, below).or_else(|| sample(prefix, below, inventory)),
            }
        };
        let all = prefixes.into_iter().enumerate().zip(parents).map(known);
        Self { all: all.collect() }
    }

    /// The regions that have addresses in the network, each with one of them.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (Region, IpAddr)> {
        self.sampled(false)
    }

    /// Those that have addresses of loopback.
    pub(crate) fn on_loopback(&self) -> impl Iterator<Item = (Region, IpAddr)> {
        self.sampled(true)
    }

    fn sampled(&self, is_loopback: bool) -> impl Iterator<Item = (Region, IpAddr)> {
        let places = self.all.iter().enumerate();
        let places = places.filter(move |(_, known)| known.is_loopback == is_loopback);
        places.filter_map(|(place, known)| Some((Region(place), known.sample?)))
    }

    #[cfg(test)]
    pub(crate) fn prefix(&self, region: Region) -> Option<IpNet> {
        self.all.get(region.0).map(|known| known.prefix)
    }

    /// Some regions as few blocks, all of the network or all of loopback. What has no address there
    /// may fall on either side.
    pub(crate) fn blocks(&self, wanted: &BTreeSet<Region>) -> Vec<Block> {
        let mut blocks: BTreeMap<usize, Block> = BTreeMap::new();
        let first = wanted
            .first()
            .and_then(|Region(place)| self.all.get(*place));
        let is_loopback = first.is_some_and(|known| known.is_loopback);
        // Of each prefix: the block that it is in.
        let mut inside: Vec<Option<usize>> = Vec::new();
        for (place, known) in self.all.iter().enumerate() {
            let outer = known
                .parent
                .and_then(|parent| inside.get(parent).copied().flatten());
            let has_addresses = known.sample.is_some() && known.is_loopback == is_loopback;
            let is_in = if has_addresses {
                wanted.contains(&Region(place))
            } else {
                outer.is_some()
            };
            let cidr = known.prefix;
            inside.push(match (is_in, outer) {
                (true, Some(outer)) => Some(outer),
                (true, None) => {
                    let except = Vec::new();
                    blocks.insert(place, Block { cidr, except });
                    Some(place)
                }
                (false, Some(outer)) => {
                    if let Some(block) = blocks.get_mut(&outer) {
                        block.except.push(cidr);
                    }
                    None
                }
                (false, None) => None,
            });
        }
        blocks.into_values().collect()
    }
}

/// The address by which loopback is known, if it is one of these.
fn usual(prefix: IpNet, below: &[IpNet]) -> Option<IpAddr> {
    let [v4, v6] = loopback();
    let is_loopback = v4.contains(&prefix) || v6.contains(&prefix);
    let is_taken = |address: &IpAddr| below.iter().any(|block| block.contains(address));
    let mut usual = LOOPBACK.into_iter().filter(|_| is_loopback);
    usual.find(|address| prefix.contains(address) && !is_taken(address))
}

fn loopback() -> [IpNet; 2] {
    let [v4, v6] = LOOPBACK;
    [(v4, 8), (v6, 128)].map(|(address, bits)| IpNet::new_assert(address, bits).trunc())
}

/// The first address that is in none of `below`, which is in order, and not in the inventory.
fn sample(prefix: IpNet, below: &[IpNet], inventory: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let mut below = below.iter().peekable();
    let mut address = prefix.network();
    loop {
        if let Some(taken) = below.next_if(|taken| taken.contains(&address)) {
            address = next(taken.broadcast())?;
        } else if inventory.contains(&address) {
            address = next(address)?;
        } else {
            return Some(address);
        }
        if !prefix.contains(&address) {
            return None;
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into(),
    })
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cidr, except } = self;
        cidr.fmt(f)?;
        if !except.is_empty() {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            write!(f, " except {}", except.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(prefixes: &[&str], inventory: &[&str]) -> Regions {
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        let inventory = inventory.iter().map(|text| text.parse().unwrap()).collect();
        Regions::new(prefixes, &inventory)
    }

    #[test]
    fn a_region_is_a_prefix_without_what_is_below_it() {
        let regions = regions(
            &["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.0.0.0/32"],
            &["10.0.0.1"],
        );
        let samples: Vec<_> = regions
            .samples()
            .map(|(region, sample)| format!("{} {sample}", regions.prefix(region).unwrap()))
            .collect();
        assert_eq!(
            samples,
            [
                "0.0.0.0/0 0.0.0.0",
                "10.0.0.0/9 10.0.0.2",
                "10.0.0.0/32 10.0.0.0",
                "10.128.0.0/9 10.128.0.0",
                "::/0 ::"
            ]
        );
    }

    #[test]
    fn no_region_is_of_the_network_and_of_loopback() {
        let regions = regions(&["::/128", "127.0.0.1/32", "126.0.0.0/7"], &[]);
        let shown = |all: &mut dyn Iterator<Item = (Region, IpAddr)>| {
            all.map(|(region, sample)| format!("{} {sample}", regions.prefix(region).unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&mut regions.samples()),
            [
                "0.0.0.0/0 0.0.0.0",
                "126.0.0.0/7 126.0.0.0",
                "::/0 ::2",
                "::/128 ::"
            ]
        );
        assert_eq!(
            shown(&mut regions.on_loopback()),
            [
                "127.0.0.0/8 127.0.0.0",
                "127.0.0.1/32 127.0.0.1",
                "::1/128 ::1"
            ]
        );
        let network = regions.samples().map(|(region, _)| region).collect();
        let blocks = regions.blocks(&network);
        let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
        assert_eq!(blocks, ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn blocks_are_as_few_as_they_can_be() {
        let regions = regions(&["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"], &[]);
        let wanted = |texts: &[&str]| {
            let is_wanted = |region: &Region| {
                let prefix = regions.prefix(*region).unwrap().to_string();
                texts.contains(&prefix.as_str())
            };
            let chosen = regions.samples().map(|(region, _)| region);
            let blocks = regions.blocks(&chosen.filter(is_wanted).collect());
            blocks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            wanted(&["0.0.0.0/0", "10.1.0.0/16", "::/0"]),
            [
                "0.0.0.0/0 except 10.0.0.0/8",
                "10.1.0.0/16 except 10.1.1.0/24",
                "::/0"
            ]
        );
        assert_eq!(wanted(&["10.1.0.0/16", "10.1.1.0/24"]), ["10.1.0.0/16"]);
    }
}
