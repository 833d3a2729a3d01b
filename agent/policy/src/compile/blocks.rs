//! The CIDR blocks of peer lists, by where they begin to hold and where they are cut out.

use std::collections::BTreeMap;

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
struct Border {
    begins: Vec<Holding>,
    /// Blocks that the prefix is an exception of.
    cuts: Vec<u32>,
}

/// Blocks that hold at a prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Vec<Holding>);

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
            for cut in except {
                self.borders.entry(*cut).or_default().cuts.push(number);
                touched.push(*cut);
            }
        }
        touched
    }

    /// Takes the blocks of a list out again; gives what were its borders.
    pub(super) fn remove(&mut self, list: u32, peers: &[Peer]) -> Vec<IpNet> {
        let mut touched = Vec::new();
        let mut gone = std::collections::BTreeSet::new();
        for (cidr, _) in blocks(peers) {
            if let Some(border) = self.borders.get_mut(cidr) {
                border.begins.retain(|(of, number)| {
                    if *of == list {
                        gone.insert(*number);
                    }
                    *of != list
                });
            }
            touched.push(*cidr);
        }
        for cut in blocks(peers).flat_map(|(_, except)| except) {
            if let Some(border) = self.borders.get_mut(cut) {
                border.cuts.retain(|number| !gone.contains(number));
            }
            touched.push(*cut);
        }
        for prefix in &touched {
            if let Some(Border { begins, cuts }) = self.borders.get(prefix)
                && begins.is_empty()
                && cuts.is_empty()
            {
                self.borders.remove(prefix);
            }
        }
        touched
    }

    /// What holds at a prefix, if `around` holds just outside of it.
    pub(super) fn step(&self, around: &Held, prefix: &IpNet) -> Held {
        let mut held = around.clone();
        if let Some(Border { begins, cuts }) = self.borders.get(prefix) {
            held.0.extend(begins);
            if !cuts.is_empty() {
                held.0.retain(|(_, number)| !cuts.contains(number));
            }
        }
        held
    }

    /// What holds just outside of a prefix.
    pub(super) fn around(&self, prefix: &IpNet) -> Held {
        outwards(prefix).fold(Held::default(), |held, outer| self.step(&held, &outer))
    }
}

impl Held {
    pub(super) fn lists(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(list, _)| *list)
    }
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
        Peer::Workloads { .. } | Peer::Nodes(_) | Peer::OwnNode | Peer::Domain(_) => None,
    })
}
