//! What a connection is asked for: a protocol and, where it has them, a port.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::ConnectionError;
use crate::{model::Protocol, yaml::is_digits};

/// `TCP/8080`, `UDP/53`, `SCTP/1`, `ICMP`, `ICMPv6/128`, `ICMP/3/4`, or another
/// protocol by its number: `protocol/47`.
///
/// ICMP without a type is an echo request. Serialised as written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The number that IANA assigned.
    pub protocol: u8,
    /// The destination port; of ICMP `type << 8 | code`; 0 for protocols that have no ports.
    pub number: u16,
}

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// The types of an echo request.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// The address family that a protocol belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

// === impl Port ===

impl Port {
    pub fn new(protocol: Protocol, number: u16) -> Self {
        Self {
            protocol: protocol.number(),
            number,
        }
    }

    /// Most protocols run over either family; ICMP has one for each.
    pub(super) fn family(self) -> Option<Family> {
        match self.protocol {
            ICMP => Some(Family::V4),
            ICMP_V6 => Some(Family::V6),
            _ => None,
        }
    }
}

impl FromStr for Port {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seen = || text.to_owned();
        match parse(text) {
            Some(port) => Ok(port),
            // It would be a protocol's, and is mostly meant as a port.
            None if is_digits(text) => Err(ConnectionError::BareNumber { seen: seen() }),
            None => Err(ConnectionError::Port { seen: seen() }),
        }
    }
}

fn parse(text: &str) -> Option<Port> {
    let (name, rest) = match text.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let port = |protocol| {
        let number = decimal(rest?)?;
        (number > 0).then_some(Port::new(protocol, number))
    };
    match name.to_ascii_uppercase().as_str() {
        "TCP" => port(Protocol::Tcp),
        "UDP" => port(Protocol::Udp),
        "SCTP" => port(Protocol::Sctp),
        "ICMP" => Some(Port {
            protocol: ICMP,
            number: type_and_code(rest, ECHO_V4)?,
        }),
        "ICMPV6" => Some(Port {
            protocol: ICMP_V6,
            number: type_and_code(rest, ECHO_V6)?,
        }),
        "PROTOCOL" => {
            let protocol = u8::try_from(decimal(rest?)?).ok()?;
            let has_parts = [ICMP, ICMP_V6]
                .into_iter()
                .chain([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number))
                .any(|known| known == protocol);
            (!has_parts).then_some(Port {
                protocol,
                number: 0,
            })
        }
        _ => None,
    }
}

fn type_and_code(rest: Option<&str>, echo: u8) -> Option<u16> {
    let (kind, code) = match rest {
        None => (echo, 0),
        Some(rest) => {
            let (kind, code) = rest.split_once('/').unwrap_or((rest, "0"));
            (
                u8::try_from(decimal(kind)?).ok()?,
                u8::try_from(decimal(code)?).ok()?,
            )
        }
    };
    Some(u16::from_be_bytes([kind, code]))
}

/// Digits only: the standard parser would also take `+80`.
fn decimal(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, number } = *self;
        let [kind, code] = number.to_be_bytes();
        for named in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            if named.number() == protocol {
                return write!(f, "{named}/{number}");
            }
        }
        match (protocol, kind) {
            (ICMP, ECHO_V4) if code == 0 => f.write_str("ICMP"),
            (ICMP_V6, ECHO_V6) if code == 0 => f.write_str("ICMPv6"),
            (ICMP, _) => write!(f, "ICMP/{kind}/{code}"),
            (ICMP_V6, _) => write!(f, "ICMPv6/{kind}/{code}"),
            _ => write!(f, "protocol/{protocol}"),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_typed() {
        for text in [
            "TCP/8080",
            "UDP/53",
            "SCTP/1",
            "ICMP",
            "ICMP/3/4",
            "ICMPv6",
            "ICMPv6/1/0",
            "protocol/47",
        ] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        assert_eq!(
            "tcp/80".parse::<Port>().unwrap(),
            Port::new(Protocol::Tcp, 80)
        );
        assert_eq!("icmp/8".parse::<Port>().unwrap().to_string(), "ICMP");
    }

    #[test]
    fn what_is_no_port_is_refused_with_what_was_seen_and_what_is_expected() {
        for text in [
            "",
            "TCP",
            "TCP/",
            "TCP/0",
            "TCP/70000",
            "TCP/+80",
            "80/TCP",
            "ICMP/300",
            "protocol/6",
            "protocol/256",
            "protocol",
            "47/protocol",
            "x",
        ] {
            let error = text.parse::<Port>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
            assert!(error.contains("TCP/8080"), "{error}");
        }
    }

    #[test]
    fn a_number_alone_is_asked_back() {
        for text in ["80", "47", "6", "443", "65536"] {
            let error = text.parse::<Port>().unwrap_err().to_string();
            assert!(error.contains(&format!("`TCP/{text}`")), "{error}");
            assert!(error.contains("`protocol/NUMBER`"), "{error}");
        }
    }
}
