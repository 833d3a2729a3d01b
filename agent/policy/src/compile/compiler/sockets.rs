//! Who workloads are to one another where their node's addresses do not tell them apart: over loopback,
//! by their sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Compiler;
use crate::{
    compile::{
        classes::{Base, Class},
        ports::NamedPorts,
    },
    compiled::Socket,
    model::{SubjectName, Workload},
};

impl Compiler {
    /// Looks at all of them each time: they are few, and so are the classes of the node's addresses.
    pub(super) fn meet(&mut self) {
        let mut wanted: BTreeMap<Socket, Arc<Class>> = BTreeMap::new();
        if self.lists.tells_sockets() || !self.port_names.is_empty() {
            let classes = self.points.of_this_node(&self.scope.this_node);
            for workload in self.sharing() {
                let lists = self.lists.of_socket(&self.world, &workload.name);
                let named = NamedPorts::of(workload, |name| self.port_names.contains_key(name));
                for (identity, class) in &classes {
                    let told = told(class, &lists, &named);
                    if told == **class {
                        continue;
                    }
                    let socket = Socket {
                        workload: workload.name.clone(),
                        identity: *identity,
                    };
                    wanted.insert(socket, Arc::new(told));
                }
            }
        }
        let classes = &mut self.points.classes;
        let sockets = wanted
            .into_iter()
            .map(|(socket, class)| (socket, classes.take(&class)))
            .collect();
        let old = std::mem::replace(&mut self.compiled.sockets, sockets);
        for identity in old.into_values() {
            classes.give_back(identity);
        }
    }

    /// The workloads of this node that share its addresses.
    fn sharing(&self) -> impl Iterator<Item = &Workload> {
        let names = self.selections.keys().filter_map(SubjectName::workload);
        let workloads = names.filter_map(|name| self.world.workloads.get(name));
        workloads
            .map(AsRef::as_ref)
            .filter(|workload| !workload.owns_its_addresses())
    }
}

/// What rules can tell of an address if they know whose socket is there.
fn told(class: &Class, lists: &BTreeSet<u32>, named: &NamedPorts) -> Class {
    let Class { base, frontends } = class;
    let all: BTreeSet<u32> = base.lists.iter().chain(lists).copied().collect();
    Class {
        base: Arc::new(Base {
            lists: all.into_iter().collect(),
            named: named.clone(),
        }),
        frontends: frontends.clone(),
    }
}
