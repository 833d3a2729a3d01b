//! Ports and protocols.

use super::{names, nearest::nearest, reader::Field};
use crate::{
    model::{PortMatch, PortName, PortSpec, Protocol},
    yaml::{Value, quote},
};

pub(super) fn protocol(field: Option<Field<'_>>) -> Option<Protocol> {
    let Some(field) = field else {
        return Some(Protocol::Tcp);
    };
    match field.string()? {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        other => {
            let message = format!(
                "unknown protocol {}: expected `TCP`, `UDP` or `SCTP`",
                quote(other)
            );
            match nearest(other, &["TCP", "UDP", "SCTP"]) {
                Some(near) => field.error_with_hint(
                    "unknown-protocol",
                    message,
                    format!("did you mean `{near}`?"),
                ),
                None => field.error("unknown-protocol", message),
            }
            None
        }
    }
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
        Value::String(text) if text.parse::<u16>().is_ok() => {
            let message = format!(
                "{}: expected a port number or name, found {}",
                field.name(),
                field.node().describe()
            );
            field.error_with_hint("wrong-type", message, "write the number without quotes");
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
                end.error_with_hint(
                    "end-port-without-port",
                    "`endPort` needs `port`, found none",
                    "`port` is the first port of the range",
                );
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
        Some(Some(PortName::Number(first))) => match (&end, last.flatten()) {
            (Some(end), Some(last)) if last < first => {
                let message = format!("`endPort` {last} is below `port` {first}");
                end.error("end-port-below-port", message);
                None
            }
            (_, last) => Some(PortSpec::Range {
                first,
                last: last.unwrap_or(first),
            }),
        },
    };
    Some(PortMatch::Transport {
        protocol: protocol?,
        port: spec?,
    })
}
