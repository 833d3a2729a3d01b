//! `protocols` of a rule.

use super::{MAX_PROTOCOLS, peers::PortNames};
use crate::{
    model::{PortMatch, PortSpec, Ports, Protocol},
    parse::{PortUse, form, port, reader::Field, tier},
};

#[derive(Clone, Copy)]
enum Form {
    Transport(Protocol),
    Named,
}

#[derive(Clone, Copy)]
enum PortForm {
    Number,
    Range,
}

const FORMS: [(&str, Form); 4] = [
    ("tcp", Form::Transport(Protocol::Tcp)),
    ("udp", Form::Transport(Protocol::Udp)),
    ("sctp", Form::Transport(Protocol::Sctp)),
    ("destinationNamedPort", Form::Named),
];

const PORTS: [(&str, PortForm); 2] = [("number", PortForm::Number), ("range", PortForm::Range)];

pub(super) fn read(field: &Field<'_>, names: PortNames, uses: &mut Vec<PortUse>) -> Option<Ports> {
    let items = form::items(field, Some(MAX_PROTOCOLS))?;
    form::each(&items, |item| protocol(item, names, uses)).map(Ports::Listed)
}

fn protocol(field: &Field<'_>, names: PortNames, uses: &mut Vec<PortUse>) -> Option<PortMatch> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &FORMS);
    object.deny_unknown();
    let read = written
        .iter()
        .map(|(form, field)| match form {
            Form::Transport(protocol) => transport(field, *protocol),
            Form::Named => {
                if names == PortNames::Impossible {
                    field.error_with_hint(
                        "named-port-without-pod",
                        "`destinationNamedPort` can not stand together with `networks`, `nodes` or \
                         `domainNames`: their ports have no names",
                        "make it a rule of its own, or give the number",
                    );
                }
                tier::named_port(field, uses).map(PortMatch::Named)
            }
        })
        .collect();
    form::only(field, "protocol-form", &FORMS, read)
}

fn transport(field: &Field<'_>, protocol: Protocol) -> Option<PortMatch> {
    let mut object = field.object()?;
    let port = object.require("destinationPort");
    object.deny_unknown();
    let port = port.and_then(|field| destination(&field))?;
    Some(PortMatch::Transport { protocol, port })
}

fn destination(field: &Field<'_>) -> Option<PortSpec> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &PORTS);
    object.deny_unknown();
    let read = written
        .iter()
        .map(|(form, field)| match form {
            PortForm::Number => port::number(field).map(|port| PortSpec::Range {
                first: port,
                last: port,
            }),
            PortForm::Range => range(field),
        })
        .collect();
    form::only(field, "port-form", &PORTS, read)
}

fn range(field: &Field<'_>) -> Option<PortSpec> {
    let mut object = field.object()?;
    let start = object.require("start");
    let end = object.require("end");
    object.deny_unknown();
    let first = start.and_then(|field| port::number(&field));
    let last = end.as_ref().and_then(port::number);
    let (first, last, end) = (first?, last?, end?);
    if first >= last {
        let message = format!("`end` {last} is not above `start` {first}");
        if first == last {
            end.error_with_hint("invalid-range", message, "write `number` for a single port");
        } else {
            end.error("invalid-range", message);
        }
        return None;
    }
    Some(PortSpec::Range { first, last })
}
