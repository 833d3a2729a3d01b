//! A port and a peer as a rule can say them.

use std::net::IpAddr;

use super::{super::edit::exactly, asked_port, owner};
use crate::{
    compiled::host_prefix,
    connection::Port,
    load::NAMESPACE_NAME_LABEL,
    model::{
        IcmpVersion, NamespaceScope, Peer, PolicyKind, PortMatch, PortSpec, Protocol, Requirement,
        Selector, World,
    },
    question::Question,
};

/// What is asked for, if this kind of policy can list it.
pub(super) fn port(kind: PolicyKind, question: &Question) -> Option<(Port, PortMatch)> {
    let port = asked_port(question);
    let [icmp_type, code] = port.number.to_be_bytes();
    let icmp = |version| PortMatch::Icmp {
        version,
        kind: Some(icmp_type),
        code: Some(code),
    };
    let transport = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.number() == port.protocol);
    let ours = kind == PolicyKind::RingfencePolicy;
    let said = match transport {
        Some(protocol) if port.number > 0 => PortMatch::Transport {
            protocol,
            port: PortSpec::Range {
                first: port.number,
                last: port.number,
            },
        },
        Some(_) => return None,
        None if !ours => return None,
        None if port.protocol == IcmpVersion::V4.number() => icmp(IcmpVersion::V4),
        None if port.protocol == IcmpVersion::V6.number() => icmp(IcmpVersion::V6),
        None => PortMatch::Protocol(port.protocol),
    };
    Some((port, said))
}

/// By its labels if a workload owns the address.
pub(super) fn peer(world: &World, address: IpAddr, own_namespace: Option<&str>) -> Peer {
    match owner(world, address).filter(|workload| !workload.labels.is_empty()) {
        Some(workload) => {
            let namespace = workload.name.namespace.clone();
            Peer::Workloads {
                namespaces: if own_namespace == Some(namespace.as_str()) {
                    NamespaceScope::Named(namespace)
                } else {
                    NamespaceScope::Matching(namespace_called(namespace))
                },
                workloads: exactly(&workload.labels),
            }
        }
        None => Peer::Block {
            cidr: host_prefix(address),
            except: Vec::new(),
        },
    }
}

pub(super) fn namespace_called(name: String) -> Selector {
    let key = NAMESPACE_NAME_LABEL.to_owned();
    Selector {
        requirements: vec![Requirement::In {
            key,
            values: [name].into(),
        }],
    }
}
