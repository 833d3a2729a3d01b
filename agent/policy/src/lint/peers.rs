//! Peers as sets: whether one list takes in all of another's item, and whether two can meet.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{budget::Budget, labels::LabelSet, subjects::SubjectSet};
use crate::model::{NamespaceScope, Peer, Peers, Selector};

/// One item of a rule's peers, made to be asked often.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Every,
    Workloads {
        namespaces: LabelSet<'a>,
        workloads: LabelSet<'a>,
    },
    Block {
        cidr: IpNet,
        except: &'a [IpNet],
    },
    Nodes(LabelSet<'a>),
    OwnNode,
    Domain(&'a str),
    Local(SubjectSet<'a>),
}

/// All peers of a rule.
#[derive(Debug, Default)]
pub(super) struct PeerSet<'a> {
    every: bool,
    /// By block, because lists of them are long; the exceptions of each time it is listed.
    blocks: BTreeMap<IpNet, Vec<&'a [IpNet]>>,
    others: Vec<Item<'a>>,
}

pub(super) fn items(peers: &Peers) -> Vec<Item<'_>> {
    match peers {
        Peers::Every => vec![Item::Every],
        Peers::Listed(listed) => listed.iter().map(Item::of).collect(),
    }
}

/// `0.0.0.0/0` or `::/0` with nothing taken out.
pub(super) fn is_world(peer: &Peer) -> bool {
    matches!(peer, Peer::Block { cidr, except } if cidr.prefix_len() == 0 && except.is_empty())
}

/// Whether an address can be in both blocks. Exceptions count only where one takes away all.
pub(super) fn blocks_meet(
    (a, a_except): (IpNet, &[IpNet]),
    (b, b_except): (IpNet, &[IpNet]),
) -> bool {
    let (a, b) = (a.trunc(), b.trunc());
    let narrower = if a.contains(&b) {
        b
    } else if b.contains(&a) {
        a
    } else {
        return false;
    };
    !a_except
        .iter()
        .chain(b_except)
        .any(|hole| hole.contains(&narrower))
}

// === impl Item ===

impl<'a> Item<'a> {
    fn of(peer: &'a Peer) -> Self {
        match peer {
            Peer::Workloads {
                namespaces,
                workloads,
            } => Self::workloads(namespaces, workloads),
            Peer::Block { cidr, except } => Self::Block {
                cidr: cidr.trunc(),
                except,
            },
            Peer::Nodes(selector) => Self::Nodes(LabelSet::of(selector)),
            Peer::OwnNode => Self::OwnNode,
            Peer::Domain(pattern) => Self::Domain(pattern),
            Peer::Local(who) => Self::Local(SubjectSet::of(who)),
        }
    }

    fn workloads(namespaces: &'a NamespaceScope, workloads: &'a Selector) -> Self {
        Self::Workloads {
            namespaces: LabelSet::of_scope(namespaces),
            workloads: LabelSet::of(workloads),
        }
    }

    /// Whether whatever `other` matches is matched by this; never asked of two blocks.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Workloads {
                    namespaces,
                    workloads,
                },
                Self::Workloads {
                    namespaces: other_namespaces,
                    workloads: other_workloads,
                },
            ) => namespaces.covers(other_namespaces) && workloads.covers(other_workloads),
            (Self::Nodes(nodes), Self::Nodes(other)) => nodes.covers(other),
            (Self::OwnNode, Self::OwnNode) => true,
            (Self::Local(who), Self::Local(other)) => who.covers(other),
            (Self::Domain(pattern), Self::Domain(other)) => {
                pattern == other
                    || pattern.strip_prefix('*').is_some_and(|suffix| {
                        other.strip_prefix('*').unwrap_or(other).ends_with(suffix)
                    })
            }
            _ => false,
        }
    }
}

// === impl PeerSet ===

impl<'a> PeerSet<'a> {
    pub(super) fn of(peers: &'a Peers) -> Self {
        let mut set = Self::default();
        for item in items(peers) {
            match item {
                Item::Every => set.every = true,
                Item::Block { cidr, except } => set.blocks.entry(cidr).or_default().push(except),
                other => set.others.push(other),
            }
        }
        let whole = |block: IpNet| {
            let listed = set.blocks.get(&block);
            listed.is_some_and(|times| times.iter().any(|except| except.is_empty()))
        };
        // An address is of one of the two families, whoever it belongs to.
        let [v4, v6] = [
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        set.every |= whole(v4) && whole(v6);
        set
    }

    /// Whether whatever the item matches is in this set. `false` too where the budget ends.
    pub(super) fn covers(&self, item: &Item<'_>, budget: &mut Budget) -> bool {
        if self.every {
            return true;
        }
        match item {
            Item::Every => false,
            Item::Block { cidr, except } => self.covers_block(*cidr, except, budget),
            other => {
                budget.spend(self.others.len()) && self.others.iter().any(|own| own.covers(other))
            }
        }
    }

    fn covers_block(&self, cidr: IpNet, except: &[IpNet], budget: &mut Budget) -> bool {
        let mut covers = |times: &Vec<&[IpNet]>| {
            times.iter().any(|holes| {
                budget.spend(1 + holes.len() * except.len().max(1))
                    && holes.iter().all(|hole| {
                        let apart = !hole.contains(&cidr) && !cidr.contains(hole);
                        apart || except.iter().any(|wider| wider.contains(hole))
                    })
            })
        };
        // Few blocks are looked at, many are looked up, length by length.
        if self.blocks.len() <= usize::from(cidr.prefix_len()) {
            let mut wider = self
                .blocks
                .iter()
                .filter(|(wider, _)| wider.contains(&cidr));
            return wider.any(|(_, times)| covers(times));
        }
        (0..=cidr.prefix_len()).any(|length| {
            let wider = IpNet::new(cidr.network(), length).map(|wider| wider.trunc());
            let times = wider.ok().and_then(|wider| self.blocks.get(&wider));
            times.is_some_and(&mut covers)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Peer {
        Peer::Block {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
        }
    }

    fn covers(outer: Vec<Peer>, inner: &Peer) -> bool {
        let outer = Peers::listed(outer);
        PeerSet::of(&outer).covers(&Item::of(inner), &mut Budget::default())
    }

    #[test]
    fn a_block_is_within_a_wider_one_outside_its_exceptions() {
        let wide = block("10.0.0.0/8", &["10.1.0.0/16"]);
        for (inner, expected) in [
            (block("10.2.0.0/16", &[]), true),
            (block("10.1.0.0/24", &[]), false),
            (block("10.0.0.0/8", &[]), false),
            (block("10.0.0.0/8", &["10.1.0.0/16"]), true),
            (block("10.0.0.0/8", &["10.0.0.0/15"]), true),
            (block("10.0.0.0/8", &["10.1.0.0/17"]), false),
            (block("0.0.0.0/0", &[]), false),
            (block("::/0", &[]), false),
        ] {
            assert_eq!(covers(vec![wide.clone()], &inner), expected, "{inner:?}");
        }
    }

    #[test]
    fn both_families_are_everybody() {
        let both = vec![block("0.0.0.0/0", &[]), block("::/0", &[])];
        assert!(covers(both.clone(), &Peer::OwnNode));
        assert!(PeerSet::of(&Peers::listed(both)).covers(&Item::Every, &mut Budget::default()));
        assert!(!covers(vec![block("0.0.0.0/0", &[])], &Peer::OwnNode));
    }

    #[test]
    fn names_are_within_their_wildcard_and_the_apex_is_not() {
        let name = |text: &str| Peer::Domain(text.to_owned());
        for (outer, inner, expected) in [
            ("a.example", "a.example", true),
            ("*.example", "a.example", true),
            ("*.example", "*.a.example", true),
            ("*.example", "*.example", true),
            ("*.example", "example", false),
            ("*.a.example", "*.example", false),
            ("*.example", "an-example", false),
            ("a.example", "*.example", false),
        ] {
            assert_eq!(
                covers(vec![name(outer)], &name(inner)),
                expected,
                "{outer} {inner}"
            );
        }
    }
}
