//! Peer lists in use, and which of them admit whom by labels and names.
//!
//! A list is known by its number, and each distinct one is asked once for each group of workloads
//! that no selector can tell apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    compile::{
        domains::Domains,
        ids::Ids,
        select::{in_scope, is_about, matches},
    },
    model::{
        Labels, NamespaceScope, Node, ObjectName, Peer, SubjectName, Subjects, Workload, World,
    },
};

/// Workloads of one namespace that have the same labels.
pub(super) type Group = (String, Arc<Labels>);

#[derive(Debug)]
pub(super) struct PeerLists {
    ids: Ids<Arc<[Peer]>>,
    used: BTreeMap<u32, Used>,
    /// Lists that admit a group, in order.
    groups: BTreeMap<Group, Members>,
    nodes: BTreeMap<String, BTreeSet<u32>>,
    domains: Domains,
    pub(super) own_node: BTreeSet<u32>,
    /// Lists that admit sockets, with whose.
    sockets: BTreeMap<u32, Vec<Subjects>>,
}

#[derive(Debug)]
struct Used {
    peers: Arc<[Peer]>,
    /// Those of them that labels decide: lists of a hundred thousand blocks are asked often.
    by_labels: Vec<Peer>,
    times: usize,
}

#[derive(Debug, Default)]
struct Members {
    workloads: usize,
    lists: BTreeSet<u32>,
}

/// Whom a list that came or went concerns.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) groups: BTreeSet<Group>,
    pub(super) nodes: BTreeSet<String>,
    pub(super) names: BTreeSet<String>,
    pub(super) own_node: bool,
}

impl PeerLists {
    pub(super) fn new() -> Self {
        Self {
            ids: Ids::below(u32::MAX),
            used: BTreeMap::new(),
            groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
            domains: Domains::default(),
            own_node: BTreeSet::new(),
            sockets: BTreeMap::new(),
        }
    }

    /// Uses a list once more. The second value is true if nobody had.
    pub(super) fn take(&mut self, peers: &Arc<[Peer]>) -> (u32, bool) {
        let number = self.ids.number(peers);
        let used = self.used.entry(number).or_insert_with(|| Used {
            peers: Arc::clone(peers),
            by_labels: peers
                .iter()
                .filter(|peer| matches!(peer, Peer::Workloads { .. } | Peer::Nodes(_)))
                .cloned()
                .collect(),
            times: 0,
        });
        used.times += 1;
        (number, used.times == 1)
    }

    /// Uses a list once less; gives its peers if nobody does any more.
    pub(super) fn give_back(&mut self, number: u32) -> Option<Arc<[Peer]>> {
        let used = self.used.get_mut(&number)?;
        used.times = used.times.saturating_sub(1);
        if used.times > 0 {
            return None;
        }
        let Used { peers, .. } = self.used.remove(&number)?;
        self.ids.release(&peers);
        Some(peers)
    }

    /// Asks a new list about everybody.
    pub(super) fn admit(
        &mut self,
        world: &World,
        list: u32,
        peers: &[Peer],
        touched: &mut Touched,
    ) {
        for peer in peers {
            match peer {
                Peer::Block { .. } => {}
                Peer::OwnNode => touched.own_node |= self.own_node.insert(list),
                Peer::Local(who) => self.sockets.entry(list).or_default().push(who.clone()),
                Peer::Nodes(selector) => {
                    for (name, node) in &world.nodes {
                        if matches(selector, &node.labels)
                            && self.nodes.entry(name.clone()).or_default().insert(list)
                        {
                            touched.nodes.insert(name.clone());
                        }
                    }
                }
                Peer::Domain(pattern) => {
                    self.domains.add(list, pattern);
                    touched.names.extend(self.domains.names(pattern));
                }
                Peer::Workloads {
                    namespaces,
                    workloads,
                } => {
                    let mut ask = |namespace: &str| {
                        let from = (namespace.to_owned(), Arc::default());
                        for (group, members) in self
                            .groups
                            .range_mut(from..)
                            .take_while(|((of, _), _)| of == namespace)
                        {
                            if matches(workloads, &group.1) && members.lists.insert(list) {
                                touched.groups.insert(group.clone());
                            }
                        }
                    };
                    match namespaces {
                        NamespaceScope::Named(name) => ask(name),
                        NamespaceScope::Matching(_) => world
                            .namespaces
                            .keys()
                            .filter(|name| in_scope(world, namespaces, name))
                            .for_each(|name| ask(name)),
                    }
                }
            }
        }
    }

    /// Forgets a list that nobody uses.
    pub(super) fn forget(&mut self, list: u32, peers: &[Peer], touched: &mut Touched) {
        let has = |is: fn(&Peer) -> bool| peers.iter().any(is);
        if has(|peer| matches!(peer, Peer::Workloads { .. })) {
            for (group, members) in &mut self.groups {
                if members.lists.remove(&list) {
                    touched.groups.insert(group.clone());
                }
            }
        }
        if has(|peer| matches!(peer, Peer::Nodes(_))) {
            for (node, lists) in &mut self.nodes {
                if lists.remove(&list) {
                    touched.nodes.insert(node.clone());
                }
            }
        }
        for peer in peers {
            if let Peer::Domain(pattern) = peer {
                self.domains.remove(list, pattern);
                touched.names.extend(self.domains.names(pattern));
            }
        }
        touched.own_node |= self.own_node.remove(&list);
        self.sockets.remove(&list);
    }

    /// One more workload of a group.
    pub(super) fn enter(&mut self, world: &World, group: &Group) {
        if !self.groups.contains_key(group) {
            let members = Members {
                workloads: 0,
                lists: self.lists_for(world, group),
            };
            self.groups.insert(group.clone(), members);
        }
        if let Some(members) = self.groups.get_mut(group) {
            members.workloads += 1;
        }
    }

    pub(super) fn leave(&mut self, group: &Group) {
        if let Some(members) = self.groups.get_mut(group) {
            members.workloads = members.workloads.saturating_sub(1);
            if members.workloads == 0 {
                self.groups.remove(group);
            }
        }
    }

    /// Asks every list again about the groups of a namespace, whose labels have changed.
    pub(super) fn review_namespace(
        &mut self,
        world: &World,
        namespace: &str,
        touched: &mut Touched,
    ) {
        let from = (namespace.to_owned(), Arc::default());
        let groups: Vec<Group> = self
            .groups
            .range(from..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(group, _)| group.clone())
            .collect();
        for group in groups {
            let lists = self.lists_for(world, &group);
            if let Some(members) = self.groups.get_mut(&group)
                && members.lists != lists
            {
                members.lists = lists;
                touched.groups.insert(group);
            }
        }
    }

    /// Asks every list again about a node.
    pub(super) fn review_node(&mut self, name: &str, node: Option<&Node>) {
        let lists = self.asked(|peer| match (peer, node) {
            (Peer::Nodes(selector), Some(node)) => matches(selector, &node.labels),
            _ => false,
        });
        put(&mut self.nodes, name, lists);
    }

    /// Notes a name of the DNS that came or went.
    pub(super) fn know_name(&mut self, name: &str, is_known: bool) {
        self.domains.know(name, is_known);
    }

    pub(super) fn of_workload(&self, workload: &Workload) -> impl Iterator<Item = u32> {
        let members = self.groups.get(&group(workload));
        members
            .into_iter()
            .flat_map(|members| members.lists.iter().copied())
    }

    /// Whether some list admits sockets at all.
    pub(super) fn tells_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    pub(super) fn of_socket(&self, world: &World, workload: &ObjectName) -> BTreeSet<u32> {
        let workload = SubjectName::Workload(workload.clone());
        let admit = |who: &[Subjects]| who.iter().any(|one| is_about(world, one, &workload));
        self.sockets
            .iter()
            .filter(|(_, who)| admit(who))
            .map(|(list, _)| *list)
            .collect()
    }

    pub(super) fn of_node(&self, name: &str) -> impl Iterator<Item = u32> {
        self.nodes.get(name).into_iter().flatten().copied()
    }

    pub(super) fn of_name(&self, name: &str) -> impl Iterator<Item = u32> {
        self.domains.lists_with(name).into_iter()
    }

    fn lists_for(&self, world: &World, (namespace, labels): &Group) -> BTreeSet<u32> {
        self.asked(|peer| match peer {
            Peer::Workloads {
                namespaces,
                workloads,
            } => matches(workloads, labels) && in_scope(world, namespaces, namespace),
            Peer::Block { .. }
            | Peer::Nodes(_)
            | Peer::OwnNode
            | Peer::Domain(_)
            | Peer::Local(_) => false,
        })
    }

    fn asked(&self, admits: impl Fn(&Peer) -> bool) -> BTreeSet<u32> {
        self.used
            .iter()
            .filter(|(_, used)| used.by_labels.iter().any(&admits))
            .map(|(number, _)| *number)
            .collect()
    }
}

pub(super) fn group(workload: &Workload) -> Group {
    (
        workload.name.namespace.clone(),
        Arc::clone(&workload.labels),
    )
}

fn put(map: &mut BTreeMap<String, BTreeSet<u32>>, key: &str, lists: BTreeSet<u32>) {
    if lists.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), lists);
    }
}
