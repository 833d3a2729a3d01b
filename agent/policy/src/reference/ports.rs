//! §1.7 to §1.9 and §6.3: whether a rule's ports include the one that is asked for.

use crate::{
    model::{IcmpVersion, NamedPort, PortMatch, PortSpec, Ports, Protocol},
    question::Question,
};

/// `named` is what the destination calls its ports.
pub(super) fn include(ports: &Ports, question: &Question, named: &[NamedPort]) -> bool {
    match ports {
        Ports::Every => true,
        Ports::Listed(ports) => ports.iter().any(|port| includes(port, question, named)),
    }
}

pub(crate) fn includes(listed: &PortMatch, question: &Question, named: &[NamedPort]) -> bool {
    match listed {
        // §1.9: ICMP is none of these protocols, so a rule that lists them never permits it.
        PortMatch::Transport { protocol, port } => {
            protocol.number() == question.protocol
                && match port {
                    PortSpec::Every => true,
                    PortSpec::Range { first, last } => (*first..=*last).contains(&question.port),
                    PortSpec::Name(name) => has_name(named, name, &[*protocol], question),
                }
        }
        PortMatch::Named(name) => has_name(
            named,
            name,
            &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
            question,
        ),
        PortMatch::Icmp {
            version,
            kind,
            code,
        } => is_icmp(*version, *kind, *code, question),
        PortMatch::Protocol(number) => *number == question.protocol,
    }
}

/// §1.8: a name that the destination does not have matches nothing.
fn has_name(
    named: &[NamedPort],
    wanted: &str,
    protocols: &[Protocol],
    question: &Question,
) -> bool {
    named.iter().any(|one| {
        let NamedPort {
            name,
            port,
            protocol,
        } = one;
        name == wanted
            && protocols.contains(protocol)
            && protocol.number() == question.protocol
            && *port == question.port
    })
}

fn is_icmp(version: IcmpVersion, kind: Option<u8>, code: Option<u8>, question: &Question) -> bool {
    let [asked_kind, asked_code] = question.port.to_be_bytes();
    version.number() == question.protocol
        && kind.is_none_or(|kind| kind == asked_kind)
        && code.is_none_or(|code| code == asked_code)
}
