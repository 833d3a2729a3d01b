//! Ports and protocols.

use super::{choice::PROTOCOLS, names, reader::Field};
use crate::{
    model::{PortMatch, PortName, PortSpec, Protocol},
    yaml::{Value, is_digits, quote},
};

pub(super) fn protocol(field: Option<Field<'_>>) -> Option<Protocol> {
    let Some(field) = field else {
        return Some(Protocol::Tcp);
    };
    PROTOCOLS.read(&field)
}

pub(super) fn number(field: &Field<'_>) -> Option<u16> {
    let seen = field.integer()?;
    match u16::try_from(seen) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("invalid port {seen}: expected 1 to 65535");
            field.error("invalid-port", message);
            None
        }
    }
}

pub(super) fn number_or_name(field: &Field<'_>) -> Option<PortName> {
    match &field.node().value {
        Value::Integer(_) => number(field).map(PortName::Number),
        Value::String(text) if is_digits(text) => {
            let message = format!(
                "invalid port name {}: a number in quotes is a name, and a name has a letter",
                quote(text)
            );
            let number = text.trim_start_matches('0');
            let hint = format!("write it without quotes, {}", quote(number));
            field.error_with_hint("invalid-name", message, hint);
            None
        }
        Value::String(_) => names::PORT_NAME.read(field).map(PortName::Name),
        _ => {
            field.wrong_type("port number or name");
            None
        }
    }
}

/// One item of `ports` in a rule.
pub(super) fn port_match(field: &Field<'_>) -> Option<PortMatch> {
    let mut object = field.object()?;
    let protocol = protocol(object.get("protocol"));
    let port = object.get("port");
    let end = object.get("endPort");
    object.deny_unknown();

    let last = end.as_ref().map(number);
    let spec = match port.as_ref().map(number_or_name) {
        None => {
            if let Some(end) = &end {
                end_without_port(end);
            }
            Some(PortSpec::Every)
        }
        Some(None) => None,
        Some(Some(PortName::Name(name))) => {
            if let Some(end) = &end {
                let message = format!("`endPort` needs a numeric `port`, found `{name}`");
                end.error("end-port-with-name", message);
            }
            Some(PortSpec::Name(name))
        }
        Some(Some(PortName::Number(first))) => ordered(first, last.flatten(), end.as_ref()),
    };
    Some(PortMatch::Transport {
        protocol: protocol?,
        port: spec?,
    })
}

/// A range by numbers alone; every port where neither end is written.
pub(super) fn range(port: Option<&Field<'_>>, end: Option<&Field<'_>>) -> Option<PortSpec> {
    let last = end.map(number);
    let Some(port) = port else {
        if let Some(end) = end {
            end_without_port(end);
        }
        return Some(PortSpec::Every);
    };
    ordered(number(port)?, last.flatten(), end)
}

fn ordered(first: u16, last: Option<u16>, end: Option<&Field<'_>>) -> Option<PortSpec> {
    match (end, last) {
        (Some(end), Some(last)) if last < first => {
            let message = format!("`endPort` {last} is below `port` {first}");
            end.error("end-port-below-port", message);
            None
        }
        (_, last) => Some(PortSpec::Range {
            first,
            last: last.unwrap_or(first),
        }),
    }
}

fn end_without_port(end: &Field<'_>) {
    end.error_with_hint(
        "end-port-without-port",
        "`endPort` needs `port`, found none",
        "`port` is the first port of the range",
    );
}
