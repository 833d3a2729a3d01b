//! What all objects of the API add to the world of files, a change at a time.

use std::{collections::BTreeSet, mem, net::SocketAddr, sync::Arc};

use agent_policy::{
    load::NAMESPACE_NAME_LABEL,
    model::{
        Change, Direction, Failsafe, Labels, Peer, Peers, PortMatch, PortSpec, Ports, Protocol,
        Source, World,
    },
};
use ipnet::IpNet;

use super::Inner;
use crate::source::kubernetes::kind::{Key, Kind};

/// What has to be put together anew of what several objects say.
#[derive(Default)]
struct Touched {
    namespaces: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Inner {
    pub(super) fn compose(&mut self, before: &World, files: &Arc<World>) -> Option<World> {
        let is_held = self.is_held();
        let old_files = if is_held {
            // They are laid over what is in force again afterwards, which may take away what has their names.
            Arc::clone(&self.files)
        } else {
            mem::replace(&mut self.files, Arc::clone(files))
        };
        let same_files = Arc::ptr_eq(&old_files, files);
        if !same_files {
            // Names and addresses may have been taken, or given up.
            self.dirty.extend(self.objects.keys().cloned());
        }
        let dirty = if is_held {
            BTreeSet::new()
        } else {
            mem::take(&mut self.dirty)
        };
        // What files declare may have taken the place of a policy.
        self.is_revised |= dirty.iter().any(|key| key.kind.is_policy());
        let kept = mem::take(&mut self.kept);
        let (removed, added) = self.follow(dirty);
        if !is_held {
            self.summarize();
        }
        let failsafe = self.failsafe();
        let is_same = kept.is_empty() && removed.is_empty() && added.is_empty();
        if is_same && same_files && *before.failsafe == failsafe {
            return None;
        }
        let mut world = before.clone();
        let mut touched = Touched::default();
        for change in &kept {
            touched.apply(&mut world, change);
        }
        // Removals first, so that names and addresses are free for who takes them.
        for change in &removed {
            touched.apply(&mut world, &without(change));
        }
        for change in files.changes_from(&old_files) {
            touched.apply(&mut world, &change);
        }
        for change in &added {
            touched.apply(&mut world, change);
        }
        let Touched { namespaces, names } = touched;
        for name in namespaces {
            let labels = self.labels(&name);
            world.apply(&Change::Namespace(name, labels));
        }
        if !names.is_empty() {
            self.settle_names(&mut world, names);
        }
        if *world.failsafe != failsafe {
            world.failsafe = Arc::new(failsafe);
        }
        Some(world)
    }

    /// What these objects no longer add, and what they add now.
    pub(super) fn follow(&mut self, dirty: BTreeSet<Key>) -> (Vec<Change>, Vec<Change>) {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for key in dirty {
            let (new, errors) = self.effective(&key);
            if errors.is_empty() {
                self.conflicts.remove(&key);
            } else if self.conflicts.get(&key) != Some(&errors) {
                for error in &errors {
                    tracing::warn!("kubernetes:{key}: {error}");
                }
                self.conflicts.insert(key.clone(), errors);
            }
            let old = self.in_force.get(&key);
            if old.is_none_or(|old| *old != new) {
                added.extend(new.iter().cloned());
                let old = if new.is_empty() {
                    self.in_force.remove(&key)
                } else {
                    self.in_force.insert(key, new)
                };
                removed.extend(old.unwrap_or_default());
            }
        }
        (removed, added)
    }

    /// Of a namespace that an object names there is at least its name.
    fn labels(&self, name: &str) -> Option<Arc<Labels>> {
        let of_files = self.files.namespaces.get(name);
        if let Some(labels) = of_files.filter(|labels| labels.len() > 1) {
            return Some(Arc::clone(labels));
        }
        let own = self
            .in_force
            .get(&Key::namespace(name))
            .and_then(|changes| changes.first());
        if let Some(Change::Namespace(_, labels)) = own {
            return labels.clone();
        }
        let is_named = |kind| {
            let first = Key {
                kind,
                namespace: name.to_owned(),
                name: String::new(),
            };
            let mut next = self.in_force.range(first..);
            next.next()
                .is_some_and(|(key, _)| key.kind == kind && key.namespace == name)
        };
        let is_there = of_files.is_some() || Kind::ALL.into_iter().any(is_named);
        let label = (NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
        is_there.then(|| Arc::new(Labels::from([label])))
    }

    /// Tables do not contradict one another: each says some of the addresses.
    fn settle_names(&self, world: &mut World, names: BTreeSet<String>) {
        let tables = self.in_force.values().flatten();
        let tables: Vec<_> = tables
            .filter_map(|change| match change {
                Change::Name(name, Some(addresses)) => Some((name, addresses)),
                _ => None,
            })
            .collect();
        for name in names {
            let of_files = self.files.names.get(&name);
            let told = tables.iter().filter(|(other, _)| **other == name);
            let told = told.map(|(_, addresses)| *addresses).chain(of_files);
            let told: Vec<_> = told.collect();
            let all = (!told.is_empty()).then(|| {
                let addresses = told.into_iter().flat_map(|addresses| addresses.iter());
                Arc::new(addresses.copied().collect())
            });
            world.apply(&Change::Name(name, all));
        }
    }

    /// Of the settings, and that the API's own servers are reached whatever policies say.
    fn failsafe(&self) -> Vec<Failsafe> {
        let servers = self.servers().into_iter().map(api_server);
        self.files.failsafe.iter().cloned().chain(servers).collect()
    }
}

impl Touched {
    fn apply(&mut self, world: &mut World, change: &Change) {
        match change {
            Change::Namespace(name, _) => {
                self.namespaces.insert(name.clone());
            }
            Change::Name(name, _) => {
                self.names.insert(name.clone());
            }
            Change::Failsafe(_) => {}
            Change::Workload(name, new) => {
                self.in_namespace(&name.namespace, new.as_ref(), world, change);
            }
            Change::Service(name, new) => {
                self.in_namespace(&name.namespace, new.as_ref(), world, change);
            }
            Change::NetworkPolicy(name, new) => {
                self.in_namespace(&name.namespace, new.as_ref(), world, change);
            }
            Change::Node(..) | Change::TierPolicy(..) => world.apply(change),
        }
    }

    fn in_namespace<T>(
        &mut self,
        namespace: &str,
        new: Option<&T>,
        world: &mut World,
        change: &Change,
    ) {
        // One that nobody is in any more does no harm until it is deleted itself.
        if new.is_some() && !world.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.to_owned());
        }
        world.apply(change);
    }
}

/// The same object gone.
fn without(change: &Change) -> Change {
    match change {
        Change::Namespace(name, _) => Change::Namespace(name.clone(), None),
        Change::Workload(name, _) => Change::Workload(name.clone(), None),
        Change::Node(name, _) => Change::Node(name.clone(), None),
        Change::Service(name, _) => Change::Service(name.clone(), None),
        Change::Name(name, _) => Change::Name(name.clone(), None),
        Change::NetworkPolicy(name, _) => Change::NetworkPolicy(name.clone(), None),
        Change::TierPolicy(id, _) => Change::TierPolicy(id.clone(), None),
        Change::Failsafe(failsafe) => Change::Failsafe(Arc::clone(failsafe)),
    }
}

fn api_server(server: SocketAddr) -> Failsafe {
    Failsafe {
        name: format!("api-server {server}"),
        direction: Direction::Egress,
        peers: Peers::Listed(
            [Peer::Block {
                cidr: IpNet::from(server.ip()),
                except: Vec::new(),
            }]
            .into(),
        ),
        ports: Ports::Listed(vec![PortMatch::Transport {
            protocol: Protocol::Tcp,
            port: PortSpec::Range {
                first: server.port(),
                last: server.port(),
            },
        }]),
        source: Source {
            file: "kubernetes".into(),
            line: 1,
        },
    }
}
