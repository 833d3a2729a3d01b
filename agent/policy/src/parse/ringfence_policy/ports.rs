//! `ports` of a rule.

use crate::{
    model::{IcmpVersion, PortMatch, PortSpec, Ports, Protocol},
    parse::{PortUse, form, names, port, reader::Field, tier},
    yaml::Value,
};

#[derive(Clone, Copy)]
enum Form {
    Transport(Protocol),
    Icmp(IcmpVersion),
    Protocol,
    Named,
}

const FORMS: [(&str, Form); 7] = [
    ("tcp", Form::Transport(Protocol::Tcp)),
    ("udp", Form::Transport(Protocol::Udp)),
    ("sctp", Form::Transport(Protocol::Sctp)),
    ("icmp", Form::Icmp(IcmpVersion::V4)),
    ("icmpv6", Form::Icmp(IcmpVersion::V6)),
    ("protocol", Form::Protocol),
    ("name", Form::Named),
];

pub(super) fn read(field: &Field<'_>, uses: &mut Vec<PortUse>) -> Option<Ports> {
    let hint = "leave `ports` out to match every port and protocol";
    let items = form::items_or_hint(field, None, Some(hint))?;
    form::each(&items, |item| port_match(item, uses)).map(Ports::Listed)
}

fn port_match(field: &Field<'_>, uses: &mut Vec<PortUse>) -> Option<PortMatch> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &FORMS);
    // As a NetworkPolicy writes it.
    object.deny_unknown_with(|entry| {
        let is_port = matches!(&*entry.key, "port" | "endPort");
        is_port.then(|| "a port stands below its protocol, as in `tcp: {port: 80}`".to_owned())
    });
    let read = written
        .iter()
        .map(|(form, field)| match form {
            Form::Transport(protocol) => transport(field, *protocol, uses),
            Form::Icmp(version) => icmp(field, *version),
            Form::Protocol => {
                form::octet(field, "invalid-protocol", "protocol").map(PortMatch::Protocol)
            }
            Form::Named => tier::named_port(field, uses).map(PortMatch::Named),
        })
        .collect();
    form::only(field, "port-form", &FORMS, read)
}

fn transport(field: &Field<'_>, protocol: Protocol, uses: &mut Vec<PortUse>) -> Option<PortMatch> {
    let mut object = field.object()?;
    let port = object.get("port");
    let end = object.get("endPort");
    let name = object.get("name");
    object.deny_unknown();
    if let Some(field) = &port
        && let Value::String(text) = &field.node().value
        && names::PORT_NAME.holds(text)
    {
        let message = format!(
            "{}: expected integer, found {}",
            field.name(),
            field.node().describe()
        );
        field.error_with_hint(
            "wrong-type",
            message,
            format!("write `name: {text}` for a port by its name"),
        );
        return None;
    }
    let range = port::range(port.as_ref(), end.as_ref());
    let name_read = name.as_ref().map(|field| names::PORT_NAME.read(field));
    let port = match (name, name_read) {
        (Some(field), Some(name)) => {
            if port.is_some() || end.is_some() {
                field.error(
                    "port-conflict",
                    "`name` can not stand together with `port` or `endPort`",
                );
            }
            let name = name?;
            uses.push(PortUse {
                at: field.at(),
                path: field.path(),
                name: name.clone(),
                protocol: Some(protocol),
            });
            PortSpec::Name(name)
        }
        _ => range?,
    };
    Some(PortMatch::Transport { protocol, port })
}

fn icmp(field: &Field<'_>, version: IcmpVersion) -> Option<PortMatch> {
    let mut object = field.object()?;
    let kind = object.get("type");
    let code = object.get("code");
    object.deny_unknown();
    if let (None, Some(code)) = (&kind, &code) {
        code.error("code-without-type", "`code` needs `type`, found none");
    }
    let read =
        |field, what| form::optional(field, |field| form::octet(field, "invalid-icmp", what));
    let (kind, code) = (read(kind, "ICMP type"), read(code, "ICMP code"));
    Some(PortMatch::Icmp {
        version,
        kind: kind.ok()?,
        code: code.ok()?,
    })
}
