//! Who is who: prefixes and addresses sorted into classes that no rule tells apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    compile::{ids::Ids, ports::NamedPorts, select::names},
    compiled::host_prefix,
    model::{Labels, ObjectName, Peer, Peers, Rule, World},
};

/// The distinct peer lists of all rules, with their numbers.
pub(super) struct PeerLists<'w>(BTreeMap<&'w [Peer], u32>);

/// All that rules can tell of an address. The empty class is the rest of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// The peer lists that admit it.
    pub(super) lists: BTreeSet<u32>,
    /// What it calls its ports.
    pub(super) named_ports: NamedPorts,
}

impl<'w> PeerLists<'w> {
    pub(super) fn collect(rules: impl Iterator<Item = &'w Rule>) -> Self {
        let distinct: BTreeSet<&[Peer]> = rules
            .filter_map(|rule| match &rule.peers {
                Peers::Every => None,
                Peers::Listed(peers) => Some(peers.as_slice()),
            })
            .collect();
        let mut ids = Ids::for_peer_lists();
        Self(
            distinct
                .into_iter()
                .map(|list| (list, ids.number(&list)))
                .collect(),
        )
    }

    pub(super) fn number(&self, list: &[Peer]) -> Option<u32> {
        self.0.get(list).copied()
    }
}

/// The class of every prefix and address that rules or workloads name.
pub(super) fn classify(
    world: &World,
    lists: &PeerLists<'_>,
    port_names: &BTreeSet<&str>,
    this_node: &BTreeSet<IpAddr>,
) -> BTreeMap<IpNet, Class> {
    let mut blocks = Blocks::of(lists);
    let mut own: BTreeMap<IpNet, Class> = BTreeMap::new();
    let mut by_labels: BTreeMap<(&str, &Labels), BTreeSet<u32>> = BTreeMap::new();
    for (address, name) in &world.addresses {
        let Some(workload) = world.workloads.get(name) else {
            continue;
        };
        let ObjectName { namespace, .. } = name;
        // Replicas have the same labels: ask once for all of them.
        let admitted = by_labels
            .entry((namespace.as_str(), &workload.labels))
            .or_insert_with(|| {
                lists
                    .0
                    .iter()
                    .filter(|(list, _)| list.iter().any(|peer| names(world, peer, workload)))
                    .map(|(_, number)| *number)
                    .collect()
            })
            .clone();
        let named_ports = NamedPorts::of(workload, port_names);
        own.insert(
            host_prefix(*address),
            Class {
                lists: admitted,
                named_ports,
            },
        );
    }
    blocks.prefixes.extend(own.keys());
    blocks
        .prefixes
        .extend(this_node.iter().copied().map(host_prefix));
    blocks.walk(|prefix, by_address| {
        let mut class = own.remove(&prefix).unwrap_or_default();
        class.lists.extend(by_address);
        class
    })
}

/// The CIDR blocks of all lists, by where they begin to hold and where they are cut out.
#[derive(Default)]
struct Blocks {
    /// Every prefix at which something may change, and every address of interest.
    prefixes: BTreeSet<IpNet>,
    /// Prefix → blocks (list, number of the block) that begin there.
    begins: BTreeMap<IpNet, Vec<(u32, usize)>>,
    /// Prefix → numbers of the blocks that it is an exception of.
    except: BTreeMap<IpNet, Vec<usize>>,
}

impl Blocks {
    fn of(lists: &PeerLists<'_>) -> Self {
        let mut blocks = Self::default();
        let mut number = 0;
        for (list, &id) in &lists.0 {
            for peer in *list {
                let Peer::Block { cidr, except } = peer else {
                    continue;
                };
                blocks.begins.entry(*cidr).or_default().push((id, number));
                for cut in except {
                    blocks.except.entry(*cut).or_default().push(number);
                }
                number += 1;
            }
        }
        blocks
            .prefixes
            .extend(blocks.begins.keys().chain(blocks.except.keys()));
        blocks
    }

    /// Visits every prefix after the ones that cover it, with the lists whose blocks hold there.
    fn walk(&self, mut class: impl FnMut(IpNet, BTreeSet<u32>) -> Class) -> BTreeMap<IpNet, Class> {
        let mut classes = BTreeMap::new();
        let mut around: Vec<(IpNet, Vec<(u32, usize)>)> = Vec::new();
        // The order of prefixes puts each before all that it covers.
        for prefix in &self.prefixes {
            while around
                .last()
                .is_some_and(|(outer, _)| !outer.contains(prefix))
            {
                around.pop();
            }
            let mut holding = around
                .last()
                .map_or_else(Vec::new, |(_, blocks)| blocks.clone());
            holding.extend(self.begins.get(prefix).into_iter().flatten());
            if let Some(cut) = self.except.get(prefix) {
                holding.retain(|(_, block)| !cut.contains(block));
            }
            let lists = holding.iter().map(|(list, _)| *list).collect();
            classes.insert(*prefix, class(*prefix, lists));
            around.push((*prefix, holding));
        }
        classes
    }
}
