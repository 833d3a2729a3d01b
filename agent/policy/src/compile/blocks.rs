//! The CIDR blocks of peer lists, by where they begin to hold and where they are cut out.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::Peer;

/// A list by its number, and a block by its own.
type Holding = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Blocks {
    borders: BTreeMap<IpNet, Border>,
    next: u32,
}

/// What changes at a prefix.
#[derive(Debug, Default)]
pub(super) struct Border {
    begins: Vec<Holding>,
    /// Blocks that the prefix is an exception of.
    cuts: Vec<Holding>,
}

/// The lists with a block that holds at a prefix. It is led from one prefix to the next, in and out:
/// a hundred thousand blocks may hold at each of a hundred thousand.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// With how many blocks of each.
    lists: BTreeMap<u32, usize>,
    /// Blocks that are cut out here, with how many exceptions.
    cut: BTreeMap<u32, usize>,
}

impl Blocks {
    pub(super) fn is_border(&self, prefix: &IpNet) -> bool {
        self.borders.contains_key(prefix)
    }

    /// Adds the blocks of a list; gives its borders.
    pub(super) fn add(&mut self, list: u32, peers: &[Peer]) -> Vec<IpNet> {
        let mut touched = Vec::new();
        for (cidr, except) in blocks(peers) {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let border = self.borders.entry(*cidr).or_default();
            border.begins.push((list, number));
            touched.push(*cidr);
            // An exception outside of its block takes nothing away.
            for cut in except.iter().filter(|cut| cidr.contains(*cut)) {
                let border = self.borders.entry(*cut).or_default();
                border.cuts.push((list, number));
                touched.push(*cut);
            }
        }
        touched
    }

    /// Takes the blocks of a list out again; gives what were its borders.
    pub(super) fn remove(&mut self, list: u32, peers: &[Peer]) -> BTreeSet<IpNet> {
        let touched: BTreeSet<IpNet> = blocks(peers)
            .flat_map(|(cidr, except)| std::iter::once(cidr).chain(except))
            .copied()
            .collect();
        for prefix in &touched {
            let Some(Border { begins, cuts }) = self.borders.get_mut(prefix) else {
                continue;
            };
            begins.retain(|(of, _)| *of != list);
            cuts.retain(|(of, _)| *of != list);
            if begins.is_empty() && cuts.is_empty() {
                self.borders.remove(prefix);
            }
        }
        touched
    }

    pub(super) fn border(&self, prefix: &IpNet) -> Option<&Border> {
        self.borders.get(prefix)
    }

    /// What holds just outside of a prefix.
    pub(super) fn around(&self, prefix: &IpNet) -> Held {
        let mut held = Held::default();
        for border in outwards(prefix).filter_map(|outer| self.borders.get(&outer)) {
            held.enter(border);
        }
        held
    }
}

impl Held {
    pub(super) fn enter(&mut self, Border { begins, cuts }: &Border) {
        for (list, _) in begins {
            add(&mut self.lists, *list);
        }
        for (list, number) in cuts {
            if add(&mut self.cut, *number) == 1 {
                take(&mut self.lists, *list);
            }
        }
    }

    /// Undoes [`Self::enter`].
    pub(super) fn leave(&mut self, Border { begins, cuts }: &Border) {
        for (list, number) in cuts {
            if take(&mut self.cut, *number) == 0 {
                add(&mut self.lists, *list);
            }
        }
        for (list, _) in begins {
            take(&mut self.lists, *list);
        }
    }

    /// In order.
    pub(super) fn lists(&self) -> impl Iterator<Item = u32> {
        self.lists.keys().copied()
    }
}

fn add(times: &mut BTreeMap<u32, usize>, number: u32) -> usize {
    let known = times.entry(number).or_default();
    *known += 1;
    *known
}

fn take(times: &mut BTreeMap<u32, usize>, number: u32) -> usize {
    let left = times
        .get(&number)
        .map_or(0, |known| known.saturating_sub(1));
    if left == 0 {
        times.remove(&number);
    } else {
        times.insert(number, left);
    }
    left
}

/// Every prefix that covers this one and is not it, the widest first.
pub(super) fn outwards(prefix: &IpNet) -> impl DoubleEndedIterator<Item = IpNet> + use<> {
    let prefix = *prefix;
    (0..prefix.prefix_len())
        .filter_map(move |bits| Some(IpNet::new(prefix.addr(), bits).ok()?.trunc()))
}

fn blocks(peers: &[Peer]) -> impl Iterator<Item = (&IpNet, &Vec<IpNet>)> {
    peers.iter().filter_map(|peer| match peer {
        Peer::Block { cidr, except } => Some((cidr, except)),
        Peer::Workloads { .. }
        | Peer::Nodes(_)
        | Peer::OwnNode
        | Peer::Domain(_)
        | Peer::Local(_) => None,
    })
}
