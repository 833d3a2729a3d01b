//! The CIDR blocks of peer lists, by where they begin to hold and where they are cut out.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::Peer;

/// All borders of blocks. One set for all of them: most prefixes have one block, and there may be a hundred
/// thousand, so a list of its own for each would take most of the room.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    borders: BTreeSet<Border>,
    next: u32,
}

/// Where a block begins to hold, or where it is cut out. Sorts by the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Border {
    prefix: IpNet,
    side: Side,
    list: u32,
    /// Of the block.
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Begins,
    /// The prefix is an exception of the block.
    IsCut,
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
        self.at(prefix).next().is_some()
    }

    /// Adds the blocks of a list; gives its borders.
    pub(super) fn add(&mut self, list: u32, peers: &[Peer]) -> Vec<IpNet> {
        let mut touched = Vec::new();
        for (cidr, except) in blocks(peers) {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let mut add = |prefix, side| {
                self.borders.insert(Border {
                    prefix,
                    side,
                    list,
                    number,
                });
                touched.push(prefix);
            };
            add(*cidr, Side::Begins);
            // An exception outside of its block takes nothing away.
            for cut in except.iter().filter(|cut| cidr.contains(*cut)) {
                add(*cut, Side::IsCut);
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
            for side in [Side::Begins, Side::IsCut] {
                let [lowest, highest] = [0, u32::MAX].map(|number| Border {
                    prefix: *prefix,
                    side,
                    list,
                    number,
                });
                let of_list: Vec<Border> = self.borders.range(lowest..=highest).copied().collect();
                for border in &of_list {
                    self.borders.remove(border);
                }
            }
        }
        touched
    }

    /// What changes at a prefix: blocks that begin, and then those that are cut.
    pub(super) fn at(&self, prefix: &IpNet) -> impl DoubleEndedIterator<Item = &Border> {
        let first = Border {
            prefix: *prefix,
            side: Side::Begins,
            list: 0,
            number: 0,
        };
        let last = Border {
            side: Side::IsCut,
            list: u32::MAX,
            number: u32::MAX,
            ..first
        };
        self.borders.range(first..=last)
    }

    /// What holds just outside of a prefix.
    pub(super) fn around(&self, prefix: &IpNet) -> Held {
        let mut held = Held::default();
        for outer in outwards(prefix) {
            held.enter(self.at(&outer));
        }
        held
    }

    /// Gives back the room that is left between borders after many have been added.
    pub(super) fn compact(&mut self) {
        self.borders = std::mem::take(&mut self.borders).into_iter().collect();
    }
}

impl Held {
    /// Takes up what changes at a prefix, in the order of [`Blocks::at`].
    pub(super) fn enter<'b>(&mut self, borders: impl Iterator<Item = &'b Border>) {
        for Border {
            side, list, number, ..
        } in borders
        {
            match side {
                Side::Begins => {
                    add(&mut self.lists, *list);
                }
                Side::IsCut => {
                    if add(&mut self.cut, *number) == 1 {
                        take(&mut self.lists, *list);
                    }
                }
            }
        }
    }

    /// Undoes [`Self::enter`], from its end: where a block begins and another of its list is cut out, a list must
    /// not be taken away that is not there yet.
    pub(super) fn leave<'b>(&mut self, borders: impl DoubleEndedIterator<Item = &'b Border>) {
        for Border {
            side, list, number, ..
        } in borders.rev()
        {
            match side {
                Side::Begins => {
                    take(&mut self.lists, *list);
                }
                Side::IsCut => {
                    if take(&mut self.cut, *number) == 0 {
                        add(&mut self.lists, *list);
                    }
                }
            }
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
