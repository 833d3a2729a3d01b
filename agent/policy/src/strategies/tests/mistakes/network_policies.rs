//! Mistakes about what `NetworkPolicy` and all the others share: peers, ports, selectors.

use std::sync::Arc;

use super::{Mistake, with_each_list_of_peers, with_each_peer, with_each_port};
use crate::model::{NamespaceScope, Peer, PortMatch, PortSpec, Protocol, Requirement, Selector};

pub(super) const MISTAKES: [Mistake; 10] = [
    ("exceptions are forgotten", |world| {
        with_each_peer(world, |peer| {
            if let Peer::Block { except, .. } = peer {
                except.clear();
            }
        })
    }),
    ("an exception holds beyond its block", |world| {
        with_each_list_of_peers(world, |peers| {
            let holes: Vec<_> = peers
                .iter()
                .filter_map(|peer| match peer {
                    Peer::Block { except, .. } => Some(except.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            for peer in peers {
                if let Peer::Block { except, .. } = peer {
                    except.clone_from(&holes);
                }
            }
        })
    }),
    ("ranges end one too early", |world| {
        with_each_port(world, |port| {
            if let PortMatch::Transport {
                port: PortSpec::Range { first, last },
                ..
            } = port
                && first < last
            {
                *last -= 1;
            }
        })
    }),
    ("UDP is taken for SCTP", |world| {
        with_each_port(world, |port| {
            if let PortMatch::Transport { protocol, .. } = port
                && *protocol == Protocol::Udp
            {
                *protocol = Protocol::Sctp;
            }
        })
    }),
    ("named ports are forgotten", |world| {
        let mut world = world.clone();
        world
            .workloads
            .values_mut()
            .for_each(|workload| Arc::make_mut(workload).ports.clear());
        world
    }),
    ("names of ports are of TCP", |world| {
        with_each_port(world, |port| {
            if let PortMatch::Named(name) = port {
                *port = PortMatch::Transport {
                    protocol: Protocol::Tcp,
                    port: PortSpec::Name(name.clone()),
                };
            }
        })
    }),
    ("a selector of namespaces means all of them", |world| {
        with_each_peer(world, |peer| {
            if let Peer::Workloads { namespaces, .. } = peer {
                *namespaces = NamespaceScope::Matching(Selector::default());
            }
        })
    }),
    ("an absent key does not match what it is not in", |world| {
        with_each_peer(world, |peer| {
            if let Peer::Workloads { workloads, .. } = peer {
                let present = |requirement: &Requirement| match requirement {
                    Requirement::NotIn { key, .. } => {
                        Some(Requirement::Exists { key: key.clone() })
                    }
                    _ => None,
                };
                let more: Vec<_> = workloads.requirements.iter().filter_map(present).collect();
                workloads.requirements.extend(more);
            }
        })
    }),
    ("ICMP codes are ignored", |world| {
        with_each_port(world, |port| {
            if let PortMatch::Icmp { code, .. } = port {
                *code = None;
            }
        })
    }),
    ("ICMP types are ignored", |world| {
        with_each_port(world, |port| {
            if let PortMatch::Icmp { kind, code, .. } = port {
                (*kind, *code) = (None, None);
            }
        })
    }),
];
