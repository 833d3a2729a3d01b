//! Where somebody stands in a state, with all that answers can depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_common::table::{Endpoint, WORLD};
use ipnet::IpNet;

use super::{Behind, Judged, Peer, Place, Scope, Server, Servers, Socket, State, Who};
use crate::{
    compiled::{self, Compiled},
    connection::{End, Port, Served, frontends},
    model::{ObjectName, SubjectName},
};

/// Finds the places of a state.
pub(super) struct Finder<'s> {
    pub(super) state: &'s State<'s>,
    nodes: Vec<NodeTables<'s>>,
    peers: BTreeMap<(Vec<u32>, Option<String>), Arc<Peer>>,
    /// By the position of the node, and by what is told of them.
    sockets: BTreeMap<(usize, BTreeMap<u32, u32>), usize>,
    behind: BTreeMap<IpAddr, Arc<Behind>>,
}

/// The tables of a node, and the lengths of prefixes that they have.
struct NodeTables<'s> {
    name: Option<&'s str>,
    tables: &'s Compiled,
    v4: BTreeSet<u8>,
    v6: BTreeSet<u8>,
}

/// The tables, the policy set, the flags, and whether sockets are told. The home is that of the tables.
pub(super) type JudgedMarks = (usize, u32, u16, bool);

/// What tells those apart that serve behind a port: the protocol, how each is judged, and at which
/// port.
type Kinds = (u8, Vec<(Option<JudgedMarks>, u16)>);

// === impl Finder ===

impl<'s> Finder<'s> {
    pub(super) fn new(state: &'s State<'_>) -> Self {
        let lengths = |tables: &Compiled, is_v4: bool| {
            let prefixes = tables.prefixes.keys();
            let of_family = prefixes.filter(|prefix| prefix.addr().is_ipv4() == is_v4);
            of_family.map(IpNet::prefix_len).collect()
        };
        let nodes = state.tables.nodes();
        let mut finder = Self {
            state,
            nodes: nodes
                .map(|(name, tables)| NodeTables {
                    name,
                    tables,
                    v4: lengths(tables, true),
                    v6: lengths(tables, false),
                })
                .collect(),
            peers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            behind: BTreeMap::new(),
        };
        finder.behind = finder.behind();
        finder
    }

    /// Where it is in the network.
    pub(super) fn place(&mut self, who: &Who, address: IpAddr) -> Place {
        let (subject, voice) = match who {
            Who::Workload { name, .. } => {
                let workload = self.state.world.workloads.get(name);
                let shares = workload.filter(|workload| !workload.owns_its_addresses());
                let voice = shares.and_then(|workload| workload.node.clone());
                (Some(SubjectName::Workload(name.clone())), voice)
            }
            Who::Node(name) => (Some(SubjectName::Node(name.clone())), Some(name.clone())),
            Who::Outside(_) | Who::Process(_) | Who::Service(_) => (None, None),
        };
        self.stand(subject, address, Scope::Network, voice)
    }

    /// Where it is on the loopback interface, if it is there.
    pub(super) fn on_loopback(&mut self, who: &Who, address: IpAddr) -> Option<Place> {
        let scope = who.loopback(self.state.world)?;
        let subject = match who {
            Who::Workload { name, .. } => Some(SubjectName::Workload(name.clone())),
            Who::Node(name) => Some(SubjectName::Node(name.clone())),
            Who::Outside(_) | Who::Process(_) | Who::Service(_) => None,
        };
        // Who speaks matters only to those with addresses of their own, and they are not here.
        Some(self.stand(subject, address, scope, None))
    }

    fn stand(
        &mut self,
        subject: Option<SubjectName>,
        address: IpAddr,
        scope: Scope,
        voice: Option<String>,
    ) -> Place {
        let judged = subject.and_then(|name| self.judged(name));
        Place {
            address,
            scope,
            socket: judged
                .as_ref()
                .and_then(|judged| self.socket(judged, address)),
            judged,
            peer: self.peer(address, voice),
            behind: self.behind.get(&address).cloned(),
        }
    }

    fn socket(&mut self, judged: &Judged, address: IpAddr) -> Option<Arc<Socket>> {
        let name = judged.name.workload().filter(|_| judged.is_told)?;
        let node = self.nodes.get(judged.tables)?;
        let of_node = || {
            let node = self.state.world.nodes.get(node.name?)?;
            Some(node.addresses.contains(&address))
        };
        if !(address.is_loopback() || of_node()?) {
            return None;
        }
        let first = compiled::Socket {
            workload: name.clone(),
            identity: 0,
        };
        let its_own = node.tables.sockets.range(first..);
        let its_own = its_own.take_while(|(socket, _)| socket.workload == *name);
        let told = its_own.map(|(socket, told)| (socket.identity, *told));
        let key = (judged.tables, told.collect());
        Some(Arc::new(Socket {
            number: number(&mut self.sockets, key),
            tables: judged.tables,
            name: name.clone(),
        }))
    }

    fn judged(&self, name: SubjectName) -> Option<Judged> {
        let (node, home) = match &name {
            SubjectName::Workload(name) => {
                let node = self.state.world.workloads.get(name)?.node.as_deref();
                (node, node)
            }
            SubjectName::Node(name) => {
                // One that no policy selects has no say, and `explain` says so, too.
                End::Node(name.clone()).subject(self.state.world)?;
                (Some(name.as_str()), None)
            }
        };
        let tables = self.nodes.iter().position(|known| known.name == node)?;
        let known = self.nodes.get(tables)?.tables;
        let subject = known.subjects.get(&name)?;
        let owns = subject.flags & Endpoint::OWNS_ADDRESSES != 0;
        let is_told = name.workload().is_some() && !owns && !known.sockets.is_empty();
        Some(Judged {
            tables,
            is_told,
            set: subject.set_of(self.state.perspective.view),
            flags: subject.flags,
            // Nothing else than a node's exemption hangs on it, and that needs addresses of one's own.
            home: home.filter(|_| owns).map(str::to_owned),
            own: if owns {
                subject.addresses.clone()
            } else {
                BTreeSet::new()
            },
            name,
        })
    }

    fn peer(&mut self, address: IpAddr, voice: Option<String>) -> Arc<Peer> {
        let (number, identities) = (self.peers.len(), self.identities(address));
        let known = self.peers.entry((identities, voice));
        let peer = known.or_insert_with_key(|(identities, voice)| {
            Arc::new(Peer {
                number,
                identities: identities.clone(),
                voice: voice.clone(),
            })
        });
        Arc::clone(peer)
    }

    fn identities(&self, address: IpAddr) -> Vec<u32> {
        let identity = |node: &NodeTables<'_>| {
            let lengths = if address.is_ipv4() {
                &node.v4
            } else {
                &node.v6
            };
            lengths
                .iter()
                .rev()
                .filter_map(|bits| IpNet::new(address, *bits).ok())
                .find_map(|prefix| node.tables.prefixes.get(&prefix.trunc()).copied())
                .unwrap_or(WORLD)
        };
        self.nodes.iter().map(identity).collect()
    }

    /// What stands behind each address that is a frontend.
    fn behind(&self) -> BTreeMap<IpAddr, Arc<Behind>> {
        let mut of_ports: BTreeMap<Kinds, usize> = BTreeMap::new();
        let mut of_all: BTreeMap<Vec<(Port, usize)>, usize> = BTreeMap::new();
        // Every node has the same behind it.
        let mut known: BTreeMap<Arc<Served>, Arc<Behind>> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (address, served) in frontends(self.state.world) {
            let next = known.len();
            let behind = known.entry(served).or_insert_with_key(|served| {
                let servers = served.iter().map(|(port, all)| {
                    let servers = all.iter().map(|serving| Server {
                        judged: self.server(serving.workload.as_ref(), serving.address),
                        port: serving.port.number,
                    });
                    (
                        *port,
                        Servers::new(servers.collect(), port.protocol, &mut of_ports),
                    )
                });
                let ports: BTreeMap<Port, Servers> = servers.collect();
                let numbers = ports.iter().map(|(port, servers)| (*port, servers.number));
                let number = number(&mut of_all, numbers.collect());
                let own = ports
                    .values()
                    .flat_map(|servers| servers.own.iter().copied());
                let own = own.collect();
                Arc::new(Behind {
                    number,
                    served: next,
                    ports,
                    own,
                })
            });
            all.insert(address, Arc::clone(behind));
        }
        all
    }

    /// Who judges what arrives at a backend: the workload, or the node whose address it is.
    fn server(&self, workload: Option<&ObjectName>, address: IpAddr) -> Option<Judged> {
        if let Some(name) = workload {
            return self.judged(name.clone().into());
        }
        let mut nodes = self.state.world.nodes.values();
        let node = nodes.find(|node| node.addresses.contains(&address))?;
        self.judged(SubjectName::Node(node.name.clone()))
    }
}

/// The same for the same value.
fn number<T: Ord>(known: &mut BTreeMap<T, usize>, value: T) -> usize {
    let next = known.len();
    *known.entry(value).or_insert(next)
}

// === impl Servers ===

impl Servers {
    fn new(all: Vec<Server>, protocol: u8, known: &mut BTreeMap<Kinds, usize>) -> Self {
        let mut kinds = BTreeSet::new();
        let distinct = all.iter().filter(|server| kinds.insert(server.kind()));
        let distinct: Vec<Server> = distinct.cloned().collect();
        let judged = all.iter().filter_map(|server| server.judged.as_ref());
        Self {
            number: number(
                known,
                (protocol, distinct.iter().map(Server::kind).collect()),
            ),
            own: judged
                .flat_map(|judged| judged.own.iter().copied())
                .collect(),
            distinct,
            all,
        }
    }
}

impl Server {
    fn kind(&self) -> (Option<JudgedMarks>, u16) {
        (self.judged.as_ref().map(Judged::marks), self.port)
    }
}

// === impl Judged ===

impl Judged {
    pub(super) fn marks(&self) -> JudgedMarks {
        let Self {
            name: _,
            tables,
            set,
            flags,
            // Only a workload has one, and its tables are those of its home.
            home: _,
            // Whoever meets with an address of its own is asked alone.
            own: _,
            is_told,
        } = self;
        (*tables, *set, *flags, *is_told)
    }
}
